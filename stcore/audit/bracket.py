"""`stcore.bracket`: robust accuracy between a proof and an attack, image by image.

First comes the lower bound: which images are proved (`stcore.bounds`). Then the attacks try the rest. An image is
proved, broken (misclassified, with or without an attack), or undecided.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from stcore.attacks import Attack
from stcore.autoattack.attack import AutoAttack
from stcore.autoattack.cascade import under
from stcore.base import checks
from stcore.base.progress import Progress, Silent, stretch
from stcore.bounds.layers import Layers
from stcore.bounds.proof import ALPHA, METHODS, check, prove
from stcore.bounds.smoothing import Smoothing
from stcore.core.dispatch import backend_of, make_classifier
from stcore.core.threat import reach
from stcore.data.rows import Images
from stcore.errors import DataError, UsageError
from stcore.evaluation.accuracy import Accuracy
from stcore.evaluation.assessment import Assessment, AssessmentResult, EvaluationStore, NullStore
from stcore.evaluation.attack_names import Split, attacks_by_name, has_own_budget, split
from stcore.evaluation.evaluator import Evaluator
from stcore.evaluation.given import on_host
from stcore.protocols import Array, Classifier

NORMS = ("linf", "l2", "l1")
OPEN, PROVED, BROKEN = 0, 1, 2
"""States of an image: undecided, proved, broken."""
ATTACK = "attack"


@dataclass(frozen=True, eq=False, repr=False)
class Bracket:
    """Robust accuracy from below and from above.

    records: arrays (N,) by name. `state`: 0 undecided, 1 proved, 2 broken; `label`; `predicted/natural` and, with
        attacks, `predicted/ATTACK`, −1 for an image that was not attacked; `seconds` of the bound. Of proofs
        `margin`, the lower bound of the label's logit minus the largest other one, NaN for an image that is
        misclassified, and `method`, its index in `stcore.bounds.proof.METHODS`. Of smoothing `radius`, and
        `predicted/smoothed`, −1 if the smoothed classifier abstains.
    attacked: the attacks' result on the images that were attacked, or None.
    """

    records: Mapping[str, Array]
    attacked: AssessmentResult | None

    @property
    def total(self) -> int:
        return len(self.records["state"])

    @property
    def proved(self) -> int:
        return self._count(PROVED)

    @property
    def broken(self) -> int:
        return self._count(BROKEN)

    @property
    def undecided(self) -> int:
        return self._count(OPEN)

    @property
    def natural(self) -> Accuracy:
        """Of the network itself, without noise."""
        right = self.records["predicted/natural"] == self.records["label"]
        return Accuracy(int(right.sum()), self.total)

    @property
    def lower(self) -> Accuracy:
        """At least these images are classified correctly whatever the perturbation."""
        return Accuracy(self.proved, self.total)

    @property
    def upper(self) -> Accuracy:
        """At most these are."""
        return Accuracy(self.total - self.broken, self.total)

    @property
    def seconds(self) -> float:
        """Seconds of the bound for each image that it was sought for."""
        tried = self.records["seconds"] > 0
        return float(self.records["seconds"][tried].mean()) if tried.any() else 0.0

    def __repr__(self) -> str:
        low, high, between = (
            100 * count / self.total for count in (self.proved, self.upper.correct, self.undecided)
        )
        return (
            f"at least {low:.2f} %, at most {high:.2f} %, undecided {between:.2f} % "
            f"({self.proved} proved, {self.broken} broken, {self.undecided} undecided of {self.total})"
        )

    def _count(self, state: int) -> int:
        return int((self.records["state"] == state).sum())


@dataclass(frozen=True)
class Proofs:
    """The lower bound by proof: margins of a network's layers. method: see `stcore.bounds.proof.prove`."""

    layers: Layers
    epsilon: float
    norm: str
    method: str = ALPHA

    def __post_init__(self) -> None:
        checks.choice("method", self.method, METHODS)
        checks.choice("norm", self.norm, NORMS)
        checks.number("epsilon", self.epsilon)

    def blank(self, count: int) -> dict[str, Array]:
        return {"margin": np.full(count, np.nan), "method": np.full(count, -1)}

    def bound(
        self, state: Mapping[str, Array], row: int, image: Array, label: int, logits: Array, **_: Any
    ) -> None:
        """Bounds one image, a host image as the network computes with it; writes its row of the state."""
        if logits.argmax() != label:
            return
        pixels = self.layers.pixels(image[None])[0]
        check(self.layers, pixels, logits)
        proof = prove(self.layers, pixels, label, self.epsilon, self.norm, self.method)
        state["margin"][row], state["method"][row] = proof.margin, METHODS.index(proof.method)

    def states(self, records: Mapping[str, Array]) -> Array:
        """The states after the bound."""
        wrong = records["predicted/natural"] != records["label"]
        return np.where(wrong, BROKEN, np.where(records["margin"] > 0, PROVED, OPEN))


@dataclass(frozen=True)
class Certificates:
    """The lower bound by randomised smoothing, of the smoothed classifier."""

    smoothing: Smoothing
    epsilon: float
    norm: str = "l2"

    def __post_init__(self) -> None:
        checks.choice("norm (smoothing)", self.norm, ("l2",))
        if (largest := self.smoothing.largest_radius()) < reach(self.epsilon, self.norm):
            raise UsageError(
                f"samples: expected enough for a radius of {self.epsilon:g}; {self.smoothing.samples} certify "
                f"{largest:.3g} at most. Give more samples, or a larger deviation than {self.smoothing.sigma:g}"
            )

    def blank(self, count: int) -> dict[str, Array]:
        return {"radius": np.zeros(count), "predicted/smoothed": np.full(count, -1)}

    def bound(
        self, state: Mapping[str, Array], row: int, image: Array, label: int, logits: Array, **more: Any
    ) -> None:
        """Certifies one image."""
        found = self.smoothing.certify(image=image, **more)
        state["predicted/smoothed"][row], state["radius"][row] = found

    def states(self, records: Mapping[str, Array]) -> Array:
        """The states: proved if certified for the label and ε; broken if another class is certain at the image."""
        smoothed, label = records["predicted/smoothed"], records["label"]
        certified = (smoothed == label) & (records["radius"] >= reach(self.epsilon, self.norm))
        return np.where(certified, PROVED, np.where((smoothed >= 0) & (smoothed != label), BROKEN, OPEN))


Bound: TypeAlias = Proofs | Certificates


class Bracketing:
    """Bounds and attacks over a data set, with stop and resume.

    images: (N, H, W, C) or flat, on the host.   labels: (N,).   positions: (N,) indices in the whole data set.
    bound: the lower bound; Certificates are of the smoothed classifier, and no attack is made on it.
    check: attack the proved images too. An attack that fools one raises DataError: there is a bug, or the network
        does not compute in the precision that the proof assumes.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        attacks: Split,
        bound: Bound,
        images: Images,
        labels: Array,
        *,
        batch_size: int = 250,
        positions: Array | None = None,
        check: bool = False,
    ) -> None:
        if other := [name for part in attacks for name in part if has_own_budget(name)]:
            raise UsageError(
                f"attacks: expected attacks in the ball of the bound; received {other[0]}, which has its own. "
                "Give norm and radius to the bracket"
            )
        self._evaluator, self._attacks, self._bound = evaluator, attacks, bound
        self._images, self._labels, self._batch_size, self._check = images, labels, batch_size, check
        self._positions = np.arange(len(images)) if positions is None else positions
        self._state: dict[str, Array] = {}

    def run(
        self, progress: Progress, store: EvaluationStore | None = None, stop: Callable[[], bool] = lambda: False
    ) -> Bracket | None:
        """Runs from the start, or from the stored state, to the end; returns None if `stop` returns True."""
        store = store or NullStore()
        count = len(self._images)
        blank = {"done": np.array(0), "natural": np.zeros(count, int), "seconds": np.zeros(count)}
        saved = dict(store.load() or {**blank, **self._bound.blank(count)})
        attack = under(ATTACK, saved)
        self._state = {name: np.array(one) for name, one in saved.items() if not name.startswith(f"{ATTACK}/")}
        for _ in self._bounds(progress):
            stopping = stop()
            if stopping or store.due():
                store.save({**self._state, **{f"{ATTACK}/{name}": one for name, one in attack.items()}}, {})
            if stopping:
                return None
        records = self._records()
        rest = np.flatnonzero((records["state"] == OPEN) | (self._check & (records["state"] == PROVED)))
        if isinstance(self._bound, Certificates) or not len(rest):
            store.save(self._state, {})
            return Bracket(records, None)
        found = Assessment(
            self._evaluator,
            self._attacks,
            self._images[rest],
            self._labels[rest],
            batch_size=self._batch_size,
            positions=self._positions[rest],
        ).run(progress, _Within(store, self._state, attack), stop, "attack")
        return None if found is None else Bracket(_attacked(records, rest, found), found)

    def _bounds(self, progress: Progress) -> Iterator[None]:
        """Yields after each image."""
        classifier, total, done = self._evaluator.classifier, len(self._images), int(self._state["done"])
        more = {"seed": self._evaluator.seed, "batch_size": self._batch_size, "predict": self._predict}
        with stretch(progress, "bound", total):
            progress.advance(done)
            for begin in range(done, total, self._batch_size):
                rows = range(begin, min(begin + self._batch_size, total))
                x = classifier.images(self._images[rows.start : rows.stop])
                logits, images = self._evaluator.logits(x), classifier.host_images(x)
                for row, image, one in zip(rows, images, logits, strict=True):
                    start, label = time.monotonic(), int(self._labels[row])
                    self._bound.bound(
                        self._state, row, image, label, one, position=int(self._positions[row]), **more
                    )
                    right = one.argmax() == label or isinstance(self._bound, Certificates)
                    self._state["natural"][row], self._state["done"] = one.argmax(), np.array(row + 1)
                    self._state["seconds"][row] = time.monotonic() - start if right else 0.0
                    progress.advance(1)
                    yield

    def _predict(self, images: Array) -> Array:
        return self._evaluator.classes(self._evaluator.classifier.images(images))

    def _records(self) -> dict[str, Array]:
        state = {name: array for name, array in self._state.items() if name not in ("done", "natural")}
        records = {"position": self._positions, "label": self._labels, **state}
        records["predicted/natural"] = self._state["natural"]
        return {**records, "state": self._bound.states(records)}


class _Within:
    """The store of the attacks' state, within the store of the whole."""

    def __init__(self, store: EvaluationStore, state: Mapping[str, Array], saved: Mapping[str, Array]) -> None:
        self._store, self._state, self._saved = store, state, saved

    def load(self) -> Mapping[str, Array] | None:
        return self._saved or None

    def due(self) -> bool:
        return self._store.due()

    def save(self, state: Mapping[str, Array], examples: Mapping[str, Mapping[int, Array]]) -> None:
        self._store.save({**self._state, **{f"{ATTACK}/{name}": one for name, one in state.items()}}, examples)


def _attacked(records: Mapping[str, Array], rest: Array, found: AssessmentResult) -> dict[str, Array]:
    """The records after the attacks. Raises DataError if one fooled a proved image."""
    records = {name: np.array(array) for name, array in records.items()}
    for name, classes in found.predictions.predicted.items():
        if name == "natural":
            continue
        predicted = records[f"predicted/{name}"] = np.full(len(records["label"]), -1)
        predicted[rest] = classes
        fooled = (predicted >= 0) & (predicted != records["label"])
        if len(wrong := np.flatnonzero(fooled & (records["state"] == PROVED))):
            raise DataError(
                f"bracket: {name} fools {len(wrong)} images that are proved robust, image "
                f"{records['position'][wrong[0]]} first: the network does not compute in the precision that the "
                "proof assumes, or this is a bug in stcore"
            )
        records["state"][fooled] = BROKEN
    return records


def read_layers(classifier: Classifier, shape: Sequence[int]) -> Layers:
    """A network's layers for host images of this shape, (H, W, C) or (d,). Raises UsageError for an unknown
    layer."""
    model = classifier.model  # type: ignore[attr-defined]
    ordered = (shape[2], shape[0], shape[1]) if len(shape) == 3 else tuple(shape)
    layers: Layers = backend_of(model).read_layers(model, ordered)
    return layers


def bracket(
    model: Any,
    data: tuple[Any, Any] | Iterable[tuple[Any, Any]],
    attacks: Sequence[str | Attack | AutoAttack] | Mapping[str, Attack | AutoAttack] = ("autoattack",),
    *,
    epsilon: float = 8 / 255,
    norm: str = "linf",
    method: str = ALPHA,
    smoothing: Smoothing | None = None,
    check: bool = False,
    batch_size: int = 250,
    seed: int = 0,
    progress: Progress | None = None,
) -> Bracket:
    """Bounds robust accuracy from below by a proof and from above by attacks, image by image.

    model, data, attacks, epsilon, batch_size, seed, progress: as in `stcore.evaluate`.   norm: linf, l2 or l1.
    method: intervals, crown or alpha-crown, the tightest: what is tried at most, the cheapest first. The network
    is
        one of convolutions, linear layers, batch norms, ReLU, pooling and sums, of at most a few hundred thousand
        weights; what is proved holds for its forward in float32 (`stcore.bounds.intervals`).
    smoothing: `stcore.bounds.smoothing.Smoothing`: instead of proofs for the network, certificates for the
    smoothed
        classifier, in l2, of any network. No attack is made on it: the upper bound is its accuracy without one.
    check: attack the proved images too.
    Raises UsageError for a layer that no bound is known for, DataError if an attack fools a proved image, and as
    `stcore.evaluate` does.
    """
    classifier = make_classifier(model)
    images, labels = on_host(classifier, data, batch_size)
    bound: Bound = (
        Proofs(read_layers(classifier, images.shape[1:]), epsilon, norm, method)
        if smoothing is None
        else Certificates(smoothing, epsilon, norm)
    )
    parts = split(attacks_by_name(attacks, epsilon, norm))
    found = Bracketing(
        Evaluator(classifier, parts.by_batch, seed),
        parts,
        bound,
        images,
        labels,
        batch_size=batch_size,
        check=check,
    ).run(progress or Silent())
    if found is None:  # only a `stop` returns None
        raise AssertionError
    return found
