"""`stcore.replay`, and evidence of a finished evaluation: files found by the places that commands take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stcore import zoo
from stcore.api.loading import hub_folder, is_hub_folder, load_file, network_of
from stcore.base import checks
from stcore.base.progress import Progress
from stcore.core.dispatch import make_classifier
from stcore.data.download.registry import PUBLISHED
from stcore.data.images import ImageData
from stcore.data.readers.shards import NOTHING, Known
from stcore.data.readers.sources import load_test, side_of
from stcore.errors import DataError, UsageError
from stcore.evaluation.folder import read_identity
from stcore.evidence.building import (
    check_weights,
    find_evaluation,
    from_evaluation,
    run_of,
    same_images,
    with_weights,
)
from stcore.evidence.file import Evidence, read, write
from stcore.evidence.replaying import Replay
from stcore.evidence.replaying import replay as replay_on
from stcore.models.weights_files import read_weights, recorded_shape
from stcore.protocols import Array
from stcore.runs.folder import CHECKPOINTS, RunFolder
from stcore.runs.plan import make_plan


@dataclass(frozen=True)
class Weights:
    """Weights with their metadata, and where they came from.

    config: the settings of their run; empty if unknown.   file: None if an evidence file holds them.
    trusted: a factory that they name may be called: they are of a run's folder.
    """

    arrays: Mapping[str, Array]
    metadata: Mapping[str, str]
    config: Mapping[str, Any] = field(default_factory=dict)
    file: Path | None = None
    trusted: bool = False


def replay(
    path: str | Path,
    weights: str | Path | None = None,
    *,
    dataset: str | None = None,
    seal: str | None = None,
    checkpoint: str | None = None,
    backend: str | None = None,
    model: Any = None,
    device: str | None = None,
    batch_size: int = 250,
    progress: Progress | None = None,
) -> Replay:
    """Verifies each success of an evidence file by one forward, as `stcli replay` does.

    path: the file.   seal: the SHA-256 that it was published with, hexadecimal, or its beginning.
    weights: a run's folder, a weights file, zoo:NAME, hf://OWNER/NAME or a folder in its layout; None if the file
        holds them.   checkpoint, backend, model, device: as in `stcore.load`.
    dataset: the data, as `stcli train --dataset` takes them; by default those of the weights' run, or that are
        known by name.   batch_size: images per forward.
    Raises DataError for a file that is damaged, or is no evidence, or has another seal, and for data that are not
    there; UsageError for other weights than those that were attacked.
    """
    checks.whole("batch_size", batch_size, 1)
    evidence = read(Path(path))
    check_seal(evidence, seal)
    known = _known_weights(evidence, weights, checkpoint)
    check_weights(evidence, known.arrays)
    if known.file is not None and "model" not in known.metadata:  # of another program
        network = load_file(known.file, backend=backend, model=model, device=device).model
    else:
        source = known.file or path
        options: dict[str, Any] = {"backend": backend, "model": model, "device": device, "trusted": known.trusted}
        network = network_of(known.arrays, known.metadata, source, dtype=evidence.header["dtype"], **options)
    test = _test_of(evidence, known, dataset)
    return replay_on(evidence, make_classifier(network), test, batch_size=batch_size, progress=progress)


def make_evidence(
    place: str | Path,
    out: str | Path,
    *,
    checkpoint: str | None = None,
    include_weights: bool = False,
    weights: str | Path | None = None,
    dataset: str | None = None,
) -> Evidence:
    """Writes the evidence of a finished evaluation that kept its examples, and returns it, with its seal.

    place: the evaluation's folder, or its run's.   checkpoint: of the run.   include_weights: put the network into
    the file.   weights: the network, if the evaluation does not lie in its run's folder.
    dataset: the data, if they moved, or if no run names them.
    Raises UsageError for an evaluation that is not finished or kept no examples, DataError for other data.
    """
    folder = find_evaluation(Path(place), checkpoint)
    identity, run = read_identity(folder), run_of(folder)
    known = None
    if weights is not None:
        known = find_weights(weights, checkpoint)
    elif run is not None:
        known = _of_run(run, folder.name)
    name = dataset or (known.config.get("dataset") if known else None) or _by_name(identity["dataset"])
    shape = recorded_shape(known.metadata) if known else None
    facts = NOTHING if shape is None else Known(num_classes=shape[1], channels=shape[0][-1])
    test = load_images(name, known.config if known else {}, facts, shape and shape[0])
    sizes = [known.config["test_size"]] if known and known.config.get("test_size") else []
    evidence = from_evaluation(folder, same_images(test, identity["data"], sizes) or test)
    if include_weights:
        if known is None or not known.arrays:
            raise UsageError(f"weights: expected the network to include, which {folder} is of. Give --weights")
        evidence = with_weights(evidence, known.arrays, known.metadata)
    write(Path(out), evidence)
    return read(Path(out))


def check_seal(evidence: Evidence, seal: str | None) -> None:
    """Raises DataError for another seal than the one that was published; its first 8 digits are enough."""
    if seal is not None and (len(seal) < 8 or not evidence.seal.startswith(seal.lower())):
        raise DataError(
            f"seal: expected {seal}; received {evidence.seal}: another file than the one that was published"
        )


def find_weights(place: str | Path, checkpoint: str | None = None) -> Weights:
    """The weights at a place that `stcore.load` takes; errors as there."""
    path, card = Path(place), zoo.find(place)
    if card is None and path.is_dir() and not is_hub_folder(path):
        name = checkpoint or CHECKPOINTS[0]
        checks.choice("checkpoint", name, CHECKPOINTS)
        return _of_run(path, name)
    if checkpoint is not None:
        raise UsageError(f"checkpoint: expected none with {place}, which is no run's folder; leave it out")
    if card is not None:
        return Weights(*read_weights(zoo.weights_path(str(place))), card.config, card.files["safetensors"])
    if (found := hub_folder(path)) is not None:
        from stcore.export import hub

        return Weights(*read_weights(found / hub.WEIGHTS), hub.training(found), found / hub.WEIGHTS)
    return Weights(*read_weights(path), {}, path)


def _of_run(run: Path, name: str) -> Weights:
    """A run's settings, with the weights of a checkpoint; without them if `name` is another file's."""
    folder = RunFolder.open(run)
    config = folder.read_config()
    config["dataset"] = folder.located(config.get("dataset", "digits"))
    if name not in CHECKPOINTS:
        return Weights({}, {}, config)
    file = run / f"{name}.safetensors"
    return Weights(*read_weights(file), config, file, trusted=True)


def load_images(
    dataset: str | None, config: Mapping[str, Any], known: Known, shape: tuple[int, int, int] | None
) -> ImageData:
    """The whole test split of a data set, read as a run's settings say.

    known: of the whole set.   shape: (H, W, C) of the network's images.   Raises UsageError if the data are None.
    """
    if dataset is None:
        raise UsageError("dataset: expected the data, such as cifar10:DIR, which neither file nor run names")
    settings = {name: value for name, value in config.items() if name not in ("preset", "test_size")}
    given = make_plan({**settings, "dataset": dataset}).data
    return load_test(
        dataset,
        known,
        columns=given.columns,
        image_size=given.image_size or side_of(dataset, shape),
        skip_broken=given.skip_broken,
    )


def _known_weights(evidence: Evidence, place: str | Path | None, checkpoint: str | None) -> Weights:
    if place is not None:
        return find_weights(place, checkpoint)
    if not evidence.weights:
        network = evidence.header["network"]
        raise UsageError(
            f"weights: expected those of {network['model']} with the fingerprint {network['weights'][:16]}…, "
            "which the file names by digest alone. Give --weights a run's folder, a weights file, zoo:NAME or "
            "hf://OWNER/NAME"
        )
    return Weights(evidence.weights, evidence.metadata)


def _test_of(evidence: Evidence, known: Weights, dataset: str | None) -> ImageData:
    header = evidence.header
    height, width, channels = header["network"]["image_shape"]
    facts = Known(num_classes=header["network"]["num_classes"], channels=channels)
    name = dataset or known.config.get("dataset") or _by_name(header["data"]["dataset"])
    return load_images(name, known.config, facts, (height, width, channels))


def _by_name(dataset: str) -> str | None:
    """A data set that its name alone finds; a file's path, or code, is never taken from an evidence file."""
    return dataset if dataset == "digits" or dataset in PUBLISHED else None
