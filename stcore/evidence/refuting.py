"""Refutation of a claimed accuracy: images in a random, recorded order, attacks where they decide most.

The first images of the order are looked at in groups, by a ladder of attacks. New images meet the cheap attacks.
While fewer than claimed withstand these, more images follow, which refute the claim; otherwise the expensive
attacks try those that are left, which either breaks them or supports the claim. An image that fell counts against
the claim, one that withstood the whole ladder for it; what is in between counts for neither
(`stcore.evidence.sequential`). So where the passes go changes how soon there is a verdict, not how sure it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from stcore.audit import CHECKS, audit
from stcore.autoattack.cascade import Cascade, under
from stcore.base.progress import Progress, stretch
from stcore.data.images import ImageData
from stcore.errors import UsageError
from stcore.evaluation.evaluator import Evaluator
from stcore.evidence.building import BOUNDS, NATURAL, assembled, restored
from stcore.evidence.code import code
from stcore.evidence.file import REFUTATION, Evidence
from stcore.evidence.ladder import Rung, doubts, ladder
from stcore.evidence.sampling import UNDECIDED, Claim, Standing, order
from stcore.protocols import Array, Classifier

GROUP = 32
"""Images that are taken into view together."""
AUDITED = 32
"""Images of the audit, the first of the order."""
AUDIT_PASSES = 540 + 200
"""At most so much an audited image costs (`stcore.audit.audit`)."""


@dataclass
class Broken:
    """How an image fell: the point, the attack that found it, the class predicted for it, and its distance."""

    point: Array
    attack: str
    predicted: int
    distance: float


class Refutation:
    """Tests a claim on a network and a test split, step by step; what it has found is an `Evidence` at any time.

    classifier: with its weights.   test: the test split.   positions: of the images that the claim is about.
    identity: the evaluation's settings and fingerprints, as `stcore.runs.evaluation_identity.identity` has them.
    seed: of the order and of the attacks' noise.   batch_size: lanes of an attack at one time.
    """

    def __init__(
        self,
        classifier: Classifier,
        test: ImageData,
        positions: Array,
        claim: Claim,
        identity: Mapping[str, Any],
        *,
        batch_size: int = 250,
    ) -> None:
        self.claim, self.identity, self._batch_size = claim, dict(identity), batch_size
        self._test, self._classifier = test, classifier
        self.order = order(positions, identity["seed"], identity["weights"], identity["data"])
        chosen = test.subset(self.order)
        self._images, self._labels = chosen.images, chosen.labels
        self._evaluator = Evaluator(classifier, {}, identity["seed"])
        self._evaluator.fold(self._images)
        self.broken: dict[int, Broken] = {}
        """What fell, by place in the order."""
        self.rung: Array = np.zeros(0, int)
        """Of each image in view, how many rungs it has withstood."""
        self.passes: dict[str, int] = {}
        """Images × forward and backward passes, by attack."""
        self.warned: list[str] | None = None
        """The audit's warnings; None before it."""
        self.ladder: tuple[Rung, ...] = ()
        self._logits: Array = np.zeros((0, test.num_classes))
        self._running: tuple[int, Array, Cascade] | None = None

    # The verdict

    @property
    def standing(self) -> Standing:
        """What the images in view say of the claim."""
        stood = int((self.rung == len(self.ladder)).sum()) if self.ladder else 0
        return Standing(self.claim, len(self.order), len(self.rung), len(self.broken), stood)

    # The work

    def run(
        self,
        progress: Progress,
        stop: Callable[[], bool] = lambda: False,
        save: Callable[[], None] = lambda: None,
    ) -> Standing:
        """Works until there is a verdict, all images are done, or `stop` returns True; returns where it is.

        stop, save: called after every step; `save` decides itself whether it is time.
        """
        if self.standing.verdict != UNDECIDED or stop():
            return self.standing
        self._audit(progress)
        with stretch(progress, "refute", len(self.order)):
            progress.advance(len(self.rung), self._note())
            before = len(self.rung)
            for changed in self._steps():
                if changed:
                    progress.advance(len(self.rung) - before, self._note())
                    before = len(self.rung)
                    if self.standing.verdict != UNDECIDED:
                        break
                if stop():
                    break
                save()
        return self.standing

    def _audit(self, progress: Progress) -> None:
        """Asks the audit which attacks the network misleads; an l1 ball has none."""
        if self.warned is None:
            count = min(AUDITED, len(self.order))
            found = []
            if self.claim.norm != "l1":
                with stretch(progress, "audit", count * len(CHECKS)):
                    found = audit(
                        self._classifier,
                        np.asarray(self._images[:count]),
                        self._labels[:count],
                        epsilon=self.claim.epsilon,
                        norm=self.claim.norm,
                        seed=self.identity["seed"],
                        batch_size=self._batch_size,
                        advance=progress.advance,
                    )
                self.passes["audit"] = AUDIT_PASSES * count
            self._heed(doubts(found))

    def _heed(self, warned: list[str]) -> None:
        """Makes the ladder that these warnings of the audit suggest."""
        self.warned = warned
        self.ladder = ladder(self.claim.norm, self.claim.epsilon, self._test.num_classes, warned)

    def _steps(self) -> Iterator[bool]:
        """Yields after each step of an attack: whether an image fell, or withstood a rung."""
        while True:
            if self._running is None:
                work = self._next()
                if work is None:
                    return
                number, places = work
                if number < 0:
                    self._view(places)
                    yield True
                    continue
                self._running = number, places, self._cascade(number, places)
            number, places, cascade = self._running
            while cascade.advance():
                yield self._absorb(number, places, cascade)
            self._spend(self.ladder[number].name, _passes(cascade))
            self.rung[[place for place in places.tolist() if place not in self.broken]] = number + 1
            self._running = None
            yield True

    def _next(self) -> tuple[int, Array] | None:
        """The next rung and the places of its images; −1 for images to take into view; None if all is done."""
        seen, total = len(self.rung), len(self.order)
        left = [place for place in range(seen) if place not in self.broken and self.rung[place] < len(self.ladder)]
        cheap = [place for place in left if self.ladder[self.rung[place]].cheap]
        more = seen < total and (not left or seen - len(self.broken) < self.claim.accuracy * seen)
        if more and not cheap:
            return -1, np.arange(seen, min(seen + GROUP, total))
        if not left:
            return None
        lowest = min(int(self.rung[place]) for place in cheap or left)
        return lowest, np.array([place for place in left if self.rung[place] == lowest])

    def _view(self, places: Array) -> None:
        """Takes images into view: one natural forward each."""
        images = np.asarray(self._images[places[0] : places[-1] + 1])
        logits = self._evaluator.logits(self._classifier.images(images))
        self._logits = np.concatenate((self._logits.astype(logits.dtype), logits))
        self.rung = np.concatenate((self.rung, np.zeros(len(places), int)))
        self._spend(NATURAL, len(places))
        pixels = self._classifier.host_pixels(images)
        for at, predicted in enumerate(logits.argmax(axis=1).tolist()):
            if predicted != self._labels[places[at]]:
                self.broken[int(places[at])] = Broken(pixels[at], NATURAL, predicted, 0.0)

    def _cascade(self, number: int, places: Array) -> Cascade:
        """One attack on the images at these places."""
        return Cascade(
            self._classifier,
            (self.ladder[number].stage,),
            np.asarray(self._images[places]),
            self._labels[places],
            self._logits[places],
            lambda points: self._evaluator.classes(self._classifier.images(points)),
            positions=self.order[places],
            seed=self.identity["seed"],
            batch_size=self._batch_size,
            lanes=self._evaluator.lanes,
        )

    def _absorb(self, number: int, places: Array, cascade: Cascade) -> bool:
        """Takes over what the attack has found; whether that was anything."""
        found = dict(cascade.found)
        for row, point in found.items():
            self.broken[int(places[row])] = Broken(
                point,
                self.ladder[number].name,
                int(cascade.records.predicted[row]),
                float(cascade.records.distance[row]),
            )
        cascade.found.clear()
        return bool(found)

    def _spend(self, attack: str, passes: int) -> None:
        self.passes[attack] = self.passes.get(attack, 0) + passes

    def _note(self) -> str:
        low, high = self.standing.bounds
        return f"between {100 * low:.2f} and {100 * high:.2f} %"

    # The evidence

    def evidence(self) -> Evidence:
        """All that is known, with what it resumes from if the verdict is open."""
        standing, identity = self.standing, self.identity
        passes = dict(self.passes)
        if self._running is not None:
            number, _, cascade = self._running
            name = self.ladder[number].name
            passes[name] = passes.get(name, 0) + _passes(cascade)
        header = {
            "kind": REFUTATION,
            "claim": {"norm": self.claim.norm, "epsilon": self.claim.epsilon, "bounds": BOUNDS},
            "network": {
                "model": identity["model"],
                "normalize": identity.get("normalize", "none"),
                "weights": identity["weights"],
                "image_shape": list(self._test.image_shape),
                "num_classes": self._test.num_classes,
            },
            "data": {"dataset": identity["dataset"], "sha256": identity["data"], "images": len(self._test)},
            "code": code(),
            "dtype": identity["dtype"],
            "settings": identity,
            "refutation": {
                "accuracy": self.claim.accuracy,
                "confidence": self.claim.confidence,
                "tolerance": self.claim.tolerance,
                "seed": identity["seed"],
                "subset": identity["subset"],
                "verdict": standing.verdict,
                "warned": self.warned,
                "ladder": [rung.name for rung in self.ladder],
                "passes": passes,
            },
        }
        seen = len(self.rung)
        broken = [
            (place, it.point, it.attack, it.predicted, it.distance) for place, it in sorted(self.broken.items())
        ]
        return assembled(
            header,
            self.order[:seen],
            broken,
            np.asarray(self._images[:seen]),
            self._labels[:seen],
            rung=self.rung,
            state=self._state() if standing.verdict == UNDECIDED else {},
        )

    def _state(self) -> dict[str, Array]:
        """What the work resumes from, beside the evidence: natural logits, and the attack that is running."""
        if self._running is None:
            return {"logits": self._logits}
        number, places, cascade = self._running
        inner = {f"cascade/{name}": array for name, array in cascade.save().items()}
        return {"logits": self._logits, "number": np.array([number]), "places": places, **inner}

    def resume(self, evidence: Evidence) -> None:
        """Takes over what an earlier process found. Raises UsageError if it is of another claim or network."""
        known = self.evidence().header
        for name in ("kind", "claim", "network", "data", "dtype", "settings"):
            ours, theirs = known[name], evidence.header[name]
            if name == "claim":
                ours, theirs = ({key: it[key] for key in ("norm", "epsilon")} for it in (ours, theirs))
            _check_same(name, ours, theirs)
        for name in ("accuracy", "confidence", "tolerance", "seed", "subset"):
            _check_same(name, known["refutation"][name], evidence.header["refutation"][name])
        there = evidence.header["refutation"]
        self.passes = dict(there["passes"])
        if there["warned"] is not None:
            self._heed(list(there["warned"]))
        self.rung = np.array(evidence.rung)
        points = restored(evidence, self._test)
        place_of = {int(position): place for place, position in enumerate(evidence.evaluated.tolist())}
        for at, (row, name) in enumerate(zip(evidence.row.tolist(), evidence.names, strict=True)):
            self.broken[place_of[row]] = Broken(
                points[at], name, int(evidence.predicted[at]), float(evidence.distance[at])
            )
        state = evidence.state
        if "logits" in state:
            self._logits = np.array(state["logits"])
        if "number" in state:
            number, places = int(state["number"][0]), np.array(state["places"])
            cascade = self._cascade(number, places)
            cascade.load(under("cascade", state))
            self._running = number, places, cascade
            self._spend(self.ladder[number].name, -_passes(cascade))  # counted again when it ends


def _passes(cascade: Cascade) -> int:
    return int(cascade.forwards.sum() + cascade.backwards.sum())


def _check_same(name: str, ours: Any, theirs: Any) -> None:
    if ours != theirs:
        raise UsageError(
            f"out: expected a new file, or one of this claim, network and data; its {name} is {theirs!r:.100}, "
            f"here it is {ours!r:.100}. Choose another file"
        )
