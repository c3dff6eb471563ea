"""A trained network by name or of a weights file: what it does with images, and its way into other programs."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stcore import models, zoo
from stcore.api.foreign import load_foreign
from stcore.audit.evaluation import Evaluation, evaluate
from stcore.base import checks
from stcore.core import validation
from stcore.core.dispatch import available_backends, backend_name, load_backend, make_classifier
from stcore.errors import DataError, UsageError
from stcore.models.weights_files import build_described, is_keras, read_weights, recorded_shape
from stcore.protocols import Array, Classifier, Tensor
from stcore.runs.folder import CONFIG

if TYPE_CHECKING:  # `import stcore` is quicker without plans, their data, and exports
    from stcore.data.photos import Photos
    from stcore.export import Exported
    from stcore.runs.plan import Plan


@dataclass(frozen=True, eq=False)
class LoadedNetwork:
    """A trained network.

    model: a `torch.nn.Module` in evaluation mode, or a `keras.Model`, from pixels in [0, 1] to logits.
    config: the settings of the run that made it; empty if only the weights are known.
    metadata: of the weights file.   card: of a network of the zoo, else None.

    Its methods take images as data sets hold them, in either framework: (N, H, W, C), uint8, or floats in [0, 1].
    They also take photos of any size, as files, folders, images of pillow or lists of them, which become such
    images by the rule of `resize`; a file that is no picture raises DataError.
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

    @property
    def resize(self) -> str:
        """How photos are brought to the size of its images, as the metadata say it."""
        from stcore.data.decoding import RESIZE

        return self.metadata.get("resize", RESIZE)

    def predict(self, images: Any, *, batch_size: int = 250) -> Array:
        """The predicted classes (N,) of images (N, H, W, C) or photos.

        Raises UsageError or DataError for images of another shape, type or range, DivergedError for a logit that
        is NaN or +∞.
        """
        classes: Array = self.logits(images, batch_size=batch_size).argmax(axis=1)
        return classes

    def probabilities(self, images: Any, *, batch_size: int = 250) -> Array:
        """The probabilities (N, classes), float64, of images (N, H, W, C) or photos. Raises as `predict` does."""
        logits = self.logits(images, batch_size=batch_size)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities: Array = shares / shares.sum(axis=1, keepdims=True)
        return probabilities

    def logits(self, images: Any, *, batch_size: int = 250) -> Array:
        """The logits (N, classes), float64, of images (N, H, W, C) or photos. Raises as `predict` does."""
        classifier, pixels = self._classifier(), self._checked(images)
        batches = (classifier.images(pixels[rows]) for rows in _slices(len(pixels), batch_size))
        logits = np.concatenate([classifier.eval_logits(batch) for batch in batches])
        return validation.check_finite(logits.astype(np.float64))

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

    def report(self, path: str | Path, *, format: str | None = None, examples: bool = True) -> Path:
        """Writes the report of a run or of a network of the zoo, as `stcli report` does, and returns its path.

        format: html, markdown or card, a model card; by default markdown for a file NAME.md, else html.
        Raises UsageError for a file that cannot be written, a missing package, or the network of a
        weights file alone, of which there is nothing to report.
        """
        from stcore.report.writing import write

        out = Path(path)
        form = format or ("markdown" if out.suffix == ".md" else "html")
        return write([self._place()], out, form, examples=examples)

    def preprocess(self, images: Any) -> Tensor:
        """Images (N, H, W, C) or photos as the model's native tensor: pixels in [0, 1], in its own layout.

        Raises as `predict` does.
        """
        return self._classifier().images(self._checked(images))

    def export(
        self, target: str, path: str | Path, *, preprocessing: str | None = None, images: Any = None
    ) -> Exported:
        """Writes the network as a file of another program into a new folder, as `stcli export` does.

        target: onnx, torch-export, savedmodel, tflite, state-dict, or hub.
        preprocessing: inside (the default if the target computes): the file takes uint8 images (N, H, W, C);
            beside: it takes floats, scaled and normalised as preprocessing.json beside it says.
        images: images or photos on which what was written is compared with the network; by default 100 of the test
            split, or random ones if its data are unknown or not here.
        Raises UsageError for what the target cannot express, a missing package, or a file whose logits differ;
        nothing is then left behind.
        """
        from stcore.export import export

        return export(self, target, Path(path), self.sample(images)[0], preprocessing=preprocessing)

    def push(self, repository: str, *, private: bool = False) -> str:
        """Uploads the network to the Hugging Face hub as OWNER/NAME, as `stcli push` does; returns its address.

        Raises UsageError for another name, or if huggingface_hub is missing, DataError if the hub refuses.
        """
        from stcore.export import hub

        with tempfile.TemporaryDirectory() as folder:
            hub.write(self, Path(folder), f"{hub.PREFIX}{repository}")
            return hub.upload(Path(folder), repository, private=private)

    def sample(self, images: Any = None, count: int = 100) -> tuple[Array, str]:
        """Images, uint8 (N, H, W, C), to compare two forms of the network on, and what they are.

        images: the user's, images or photos; None: the first of the test split, or random ones without it.
        """
        from stcore.data.pixels import to_pixels

        if images is not None:
            return to_pixels(self._checked(images), "images"), "images given"
        try:
            return self._test()[0][:count], "images of the test split"
        except (DataError, UsageError):
            shape = (count, *self.image_shape)
            return np.random.default_rng(0).integers(
                0, 256, shape, np.uint8
            ), "random images: its data are not here"

    def reloaded(self, folder: Path) -> LoadedNetwork:
        """The network of a folder in the hub's layout, in this one's framework."""
        from stcore.export.hub import WEIGHTS

        name, own = self.metadata["model"], backend_name(self.model)
        given = self.model if models.is_given(name) else name if models.is_factory(name) else None
        return load_file(folder / WEIGHTS, backend=own, model=given)

    def model_card(self, place: str) -> str:
        """Its card in the format of the Hugging Face hub.   place: where it will be loaded from."""
        from stcore.report.card import short_card

        name = self.metadata["model"] if self.card is None else self.card.name
        return short_card(name, self.metadata, place, self.card)

    def evaluation_files(self) -> Mapping[str, Path]:
        """The records of its evaluations, by their paths in a folder of the hub."""
        if self.card is None:
            return {}
        files = self.card.files
        return {"evaluations/autoattack/records.npz": files["npz"], "evaluations/card.json": files["json"]}

    def _classifier(self) -> Classifier:
        return make_classifier(self.model)

    def _checked(self, images: Any) -> Array:
        """Images or photos as an array. Raises UsageError or DataError for another shape, type or range."""
        from stcore.data.photos import are_photos

        if are_photos(images):
            return self.read_photos(images).images
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

    def read_photos(self, photos: Any, *, skip_broken: bool = False) -> Photos:
        """Photos as images of the network, by the rule of `resize`; see `stcore.data.photos.read_photos`."""
        from stcore.data.decoding import RESIZE
        from stcore.data.photos import read_photos

        if self.resize != RESIZE:
            raise UsageError(f"images: expected weights with the resize rule {RESIZE!r}; received {self.resize!r}")
        return read_photos(photos, self.image_shape, skip_broken)

    def _place(self) -> Path:
        """What a report is of."""
        if self.card is None:
            raise UsageError(
                "report: expected a run, or a network of the zoo; a weights file says nothing of its training"
            )
        return Path(f"{zoo.PREFIX}{self.card.name}")

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
    config: Mapping[str, Any] | None = None,
    image_shape: tuple[int, int, int] | None = None,
    class_names: Sequence[str] | None = None,
    trusted: bool = False,
) -> LoadedNetwork:
    """The network of a weights file; arguments and errors as in `stcore.load`.

    card: of a network of the zoo, which `source` names.   config: of the run, if it is known.
    trusted: a factory that the file names may be called.
    """
    path = zoo.weights_path(source)
    weights, metadata = ({}, {}) if is_keras(path) else read_weights(path)  # those of Keras need the network
    settings = config or ({} if card is None else card.config)
    if "model" not in metadata:
        sizes: dict[str, Any] = {"image_shape": image_shape, "class_names": class_names}
        network, metadata = load_foreign(path, weights, model, backend=backend, device=device, **sizes)
        return LoadedNetwork(_evaluating(network), settings, metadata)
    if image_shape is not None or class_names is not None:
        raise UsageError(f"image_shape, class_names: expected neither, since {source} says both; leave them out")
    network = network_of(weights, metadata, source, backend=backend, model=model, device=device, trusted=trusted)
    return LoadedNetwork(network, settings, metadata, card)


def network_of(
    weights: Mapping[str, Array],
    metadata: Mapping[str, str],
    source: str | Path,
    *,
    backend: str | None = None,
    model: Any = None,
    device: str | None = None,
    trusted: bool = False,
    dtype: str = "float32",
) -> Any:
    """A network with these weights, in evaluation mode; other arguments and errors as in `load_file`.

    source: what the weights came from, for errors.   dtype: of a network that is built.
    """
    name = _network(metadata, source)
    if models.is_given(name) or not isinstance(model, str | None):
        check_given(model, name, source)
        network, chosen = model, backend_name(model)
        checks.choice("backend", backend or chosen, (chosen,))
        models.check_weights(metadata, chosen, metadata.get("normalize", models.normalization.NONE))
    else:
        network = _built(metadata, source, backend, model, device, trusted, dtype)
    models.load_weights(network, weights)
    return _evaluating(network)


def hub_folder(source: str | Path) -> Path | None:
    """The folder in the hub's layout of hf://OWNER/NAME, or such a folder itself; None for anything else."""
    path = Path(source)
    if path.parts[:1] == ("hf:",):  # a path has lost one of the slashes
        from stcore.export import hub

        return hub.download(hub.PREFIX + "/".join(path.parts[1:]))
    return path if path.is_dir() and is_hub_folder(path) else None


def is_hub_folder(path: Path) -> bool:
    """Whether a folder has the layout of the Hugging Face hub, and not that of a run."""
    from stcore.export import hub

    return hub.is_folder(path) and not (path / CONFIG).is_file()


def _evaluating(network: Any) -> Any:
    """The network in evaluation mode, if its framework has one."""
    return network.eval() if backend_name(network) == "torch" else network


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
    dtype: str,
) -> Any:
    """A new network as the metadata say."""
    name = metadata["model"]
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
    return build_described(metadata, chosen, device=device, dtype=dtype)


def _network(metadata: Mapping[str, str], place: str | Path) -> str:
    """The name of the network. Raises UsageError if the file does not say all that its network is built from."""
    if recorded_shape(metadata) is None:
        raise UsageError(
            f"source: expected weights of stcli train or import, which say the shape of their images; {place} "
            "does not. Import it by stcli import"
        )
    return metadata["model"]


def _shape(metadata: Mapping[str, str]) -> tuple[tuple[int, int, int], int]:
    shape = recorded_shape(metadata)
    if shape is None and metadata:
        raise UsageError(
            f"image_shape: expected that of the images of {metadata['model']}, which its weights do not say; "
            "received none. Give stcore.load(…, image_shape=(H, W, C))"
        )
    if shape is None:
        raise UsageError("run: expected weights, which say the shape of their images; there are none yet")
    return shape


def _slices(count: int, size: int) -> Iterator[slice]:
    checks.whole("batch_size", size, 1)
    return (slice(begin, begin + size) for begin in range(0, count, size))
