"""A trained network by name or of a weights file, and what it does with images."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stcore import models, zoo
from stcore.audit.evaluation import Evaluation, evaluate
from stcore.base import checks
from stcore.core import validation
from stcore.core.dispatch import available_backends, backend_name, load_backend, make_classifier
from stcore.errors import DataError, UsageError
from stcore.models.weights_files import read_weights, recorded_shape
from stcore.protocols import Array, Classifier, Tensor

if TYPE_CHECKING:  # `import stcore` is quicker without plans and their data
    from stcore.runs.plan import Plan


@dataclass(frozen=True, eq=False)
class LoadedNetwork:
    """A trained network.

    model: a `torch.nn.Module` in evaluation mode, or a `keras.Model`, from pixels in [0, 1] to logits.
    config: the settings of the run that made it; empty if only the weights are known.
    metadata: of the weights file.   card: of a network of the zoo, else None.

    Its methods take images as data sets hold them, in either framework: (N, H, W, C), uint8, or floats in [0, 1].
    """

    model: Any
    config: Mapping[str, Any]
    metadata: Mapping[str, str]
    card: zoo.Card | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of its images."""
        return _shape(self.metadata)[0]

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """One name per class, or None if unknown."""
        names = self.metadata.get("class_names")
        return None if names is None else tuple(json.loads(names))

    def predict(self, images: Any, *, batch_size: int = 250) -> Array:
        """The predicted classes (N,) of images (N, H, W, C).

        Raises UsageError or DataError for images of another shape, type or range, DivergedError for a logit that
        is NaN or +∞.
        """
        classes: Array = self._logits(images, batch_size).argmax(axis=1)
        return classes

    def probabilities(self, images: Any, *, batch_size: int = 250) -> Array:
        """The probabilities (N, classes), float64, of images (N, H, W, C). Raises as `predict` does."""
        logits = self._logits(images, batch_size)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities: Array = shares / shares.sum(axis=1, keepdims=True)
        return probabilities

    def evaluate(
        self,
        data: tuple[Any, Any] | None = None,
        attacks: Sequence[Any] | Mapping[str, Any] = ("fgsm", "pgd20"),
        *,
        batch_size: int = 250,
        **options: Any,
    ) -> Evaluation:
        """Natural accuracy and robust accuracy under each attack, by `stcore.evaluate`.

        data: (images, labels), images as in `predict`; None: the test split of the data that it was trained on.
        options: of `stcore.evaluate`; `epsilon` and `norm` are by default those of the run's own evaluation.
        Raises UsageError if the data are None and unknown, and otherwise as `stcore.evaluate` does.
        """
        images, labels = self._test() if data is None else (self._checked(data[0]), np.asarray(data[1]))
        if len(images) != len(labels):
            raise UsageError(f"data: expected as many labels as images; received {len(labels)} and {len(images)}")
        threat = {} if (plan := self._plan()) is None else {"epsilon": plan.evaluation.epsilon, "norm": plan.norm}
        classifier = self._classifier()
        batches = ((classifier.images(images[rows]), labels[rows]) for rows in _slices(len(images), batch_size))
        return evaluate(self.model, batches, attacks, batch_size=batch_size, **{**threat, **options})

    def preprocess(self, images: Any) -> Tensor:
        """Images (N, H, W, C) as the native tensor that the model takes: pixels in [0, 1], in its own layout.

        Raises as `predict` does.
        """
        return self._classifier().images(self._checked(images))

    def _classifier(self) -> Classifier:
        return make_classifier(self.model)

    def _logits(self, images: Any, batch_size: int) -> Array:
        classifier, pixels = self._classifier(), self._checked(images)
        batches = (classifier.images(pixels[rows]) for rows in _slices(len(pixels), batch_size))
        logits = np.concatenate([classifier.eval_logits(batch) for batch in batches])
        return validation.check_finite(logits.astype(np.float64))

    def _checked(self, images: Any) -> Array:
        """The images as an array. Raises UsageError or DataError for another shape, type or range."""
        array = np.asarray(images)
        if array.shape[1:] != self.image_shape:
            raise UsageError(
                f"images: expected (N, {', '.join(map(str, self.image_shape))}); received {array.shape}"
            )
        if array.dtype != np.uint8 or not len(array):
            if array.dtype.kind in "iub" and len(array):
                raise DataError(f"images: expected uint8, or floats in [0, 1]; received {array.dtype}")
            validation.check_pixels(array)
        return array

    def _plan(self) -> Plan | None:
        """The run's plan; None if only the weights are known."""
        from stcore.runs.plan import make_plan

        known = {name: value for name, value in self.config.items() if name != "preset"}
        return make_plan(known) if known else None

    def _test(self) -> tuple[Array, Array]:
        from stcore.runs.preparation import Setup

        plan = self._plan()
        if plan is None:
            raise UsageError("data: expected (images, labels), since a weights file names no data; received None")
        test = Setup(plan, load_backend(plan.runtime.backend), "", self.metadata).test
        return np.asarray(test.images), test.labels


def load_file(
    source: str | Path,
    *,
    backend: str | None = None,
    model: Any = None,
    device: str | None = None,
    card: zoo.Card | None = None,
    trusted: bool = False,
) -> LoadedNetwork:
    """The network of a weights file; arguments and errors as in `stcore.load`.

    card: of a network of the zoo, which `source` names.   trusted: a factory that the file names may be called.
    """
    weights, metadata = read_weights(source)
    name = _network(metadata, source)
    if models.is_given(name) or not isinstance(model, str | None):
        check_given(model, name, source)
        network, chosen = model, backend_name(model)
        checks.choice("backend", backend or chosen, (chosen,))
        models.check_weights(metadata, chosen, metadata.get("normalize", models.normalization.NONE))
    else:
        network, chosen = _built(metadata, source, backend, model, device, trusted)
    models.load_weights(network, weights)
    config: Mapping[str, Any] = {} if card is None else card.config
    return LoadedNetwork(network.eval() if chosen == "torch" else network, config, metadata, card)


def check_given(model: Any, name: str, source: str | Path) -> None:
    """Raises UsageError unless the model is an object of the class that the weights are of."""
    received = "none" if model is None else models.name_of(model)
    if received != name:
        raise UsageError(
            f"model: {source} is of {name}; received {received}. Give model= the network itself, an object of the "
            "class that was trained"
        )


def _built(
    metadata: Mapping[str, str],
    source: str | Path,
    backend: str | None,
    model: str | None,
    device: str | None,
    trusted: bool,
) -> tuple[Any, str]:
    """A new network as the metadata say, and its backend."""
    name, (image_shape, num_classes) = metadata["model"], _shape(metadata)
    if model != (name if models.is_factory(name) and not trusted else None):
        raise UsageError(
            f"model: {source} is of {name}; received {model or 'none'}. Give model= for a weights file of a "
            "package.module:factory that you trust, as its code is run, and for no other network"
        )
    trained_by = metadata.get("backend")
    chosen = backend or (
        trained_by if trained_by and models.is_third_party(name) else (*available_backends(), "torch")[0]
    )
    load_backend(chosen)
    normalize = metadata.get("normalize", models.normalization.NONE)
    models.check_weights(metadata, chosen, normalize)
    network = models.build(
        name,
        chosen,  # type: ignore[arg-type]
        num_classes=num_classes,
        in_channels=image_shape[-1],
        image_size=image_shape[:2],
        normalize=normalize,
        device=device,
    )
    return network, chosen


def _network(metadata: Mapping[str, str], place: str | Path) -> str:
    """The name of the network. Raises UsageError if the file does not say all that its network is built from."""
    if "model" not in metadata or recorded_shape(metadata) is None:
        raise UsageError(
            f"source: expected weights of stcli train or import, which say which network they are of; {place} "
            "does not. Import it by stcli import"
        )
    return metadata["model"]


def _shape(metadata: Mapping[str, str]) -> tuple[tuple[int, int, int], int]:
    shape = recorded_shape(metadata)
    if shape is None:
        raise UsageError("run: expected weights, which say the shape of their images; there are none yet")
    return shape


def _slices(count: int, size: int) -> Iterator[slice]:
    checks.whole("batch_size", size, 1)
    return (slice(begin, begin + size) for begin in range(0, count, size))
