"""`stcore.Run`: a run's folder with its network, and `stcore.load`."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stcore import models, zoo
from stcore.base import checks
from stcore.errors import UsageError
from stcore.evaluation.accuracy import Accuracy, as_html, percent
from stcore.models.weights_files import read_weights
from stcore.protocols import Array, Classifier
from stcore.runs.folder import CHECKPOINTS, ENVIRONMENT, METRICS, RESULT, RunFolder
from stcore.runs.loading import LoadedNetwork, load_file

if TYPE_CHECKING:  # `import stcore` is quicker without plans and their data
    from stcore.base.progress import Progress
    from stcore.runs.preparation import Given


@dataclass(frozen=True, eq=False, repr=False)
class Run(LoadedNetwork):
    """A run, finished or not, as `stcore.train` returns it and `stcore.load` opens its folder.

    model: the network with the weights of the best epoch; None if there are none yet, or if the network was handed
        over as an object and `stcore.load` was not given it again.
    config: all settings.   metadata: of the weights file.   path: the run's folder.
    given: what `stcore.train` was given as objects; None if the run was opened from its folder.
    """

    path: Path = Path()
    given: Given | None = None

    @property
    def history(self) -> list[dict[str, Any]]:
        """The metrics of each epoch, as in metrics.jsonl."""
        from stcore.runs.record import read_metrics

        return read_metrics(self.path) if (self.path / METRICS).is_file() else []

    @property
    def result(self) -> dict[str, Any] | None:
        """The content of result.json: accuracies on the test split by checkpoint; None if unfinished."""
        return RunFolder(self.path).read_json(RESULT)

    @property
    def accuracies(self) -> dict[str, dict[str, Accuracy]]:
        """The accuracies on the test split by checkpoint and attack; empty if the run is unfinished."""
        checkpoints = (self.result or {"checkpoints": {}})["checkpoints"]
        return {
            name: {attack: Accuracy(score["correct"], score["total"]) for attack, score in scores.items()}
            for name, scores in checkpoints.items()
        }

    def report(self, path: str | Path, *, format: str | None = None, examples: bool = True) -> Path:
        """Writes the report of this run, as `stcli report` does, and returns its path.

        format: html, markdown or card, a model card; by default markdown for a file NAME.md, else html.
        Raises UsageError for a file that cannot be written, or a missing package.
        """
        from stcore.report.writing import write

        out = Path(path)
        return write(
            [self.path], out, format or ("markdown" if out.suffix == ".md" else "html"), examples=examples
        )

    def resume(self, *, progress: bool | Progress = True) -> Run:
        """Continues an unfinished run, and returns it; a finished one is returned as it is.

        Network and data that were handed over as objects are those of this `Run`.
        Raises UsageError if they were not: give them again, by `stcore.train(…, out=…, resume=True)`.
        """
        from stcore.api.training import resume

        return self if self.result is not None else resume(self, progress)

    def _classifier(self) -> Classifier:
        if self.model is None:
            raise UsageError(
                f"run: expected a network in {self.path}; there are no weights of a finished epoch yet, or it was "
                "handed over as an object: then give it again, by stcore.load(FOLDER, model=…)"
            )
        return super()._classifier()

    def _test(self) -> tuple[Array, Array]:
        if self.given is None or self.given.splits is None:
            return super()._test()
        test = self.given.splits.test
        return np.asarray(test.images), test.labels

    def __repr__(self) -> str:
        rows = [
            f"{name}: " + ", ".join(f"{attack} {percent(score)} %" for attack, score in scores.items())
            for name, scores in self.accuracies.items()
        ]
        state = f"unfinished after {len(self.history)} epochs"
        return "\n  ".join([f"Run {self.path}", *(rows or [state])])

    def _repr_html_(self) -> str:
        """What a notebook shows: the table of accuracies, or how far the run is."""
        return as_html(scores) if (scores := self.accuracies) else f"<p>{escape(repr(self))}</p>"


def load(
    source: str | Path,
    *,
    backend: str | None = None,
    checkpoint: str | None = None,
    model: Any = None,
    device: str | None = None,
) -> LoadedNetwork:
    """Loads a trained network; of a run's folder, the run as a `Run`.

    source: `zoo:NAME` (`stcore.zoo.names()`, `stcli zoo list`), a run's folder, or a weights file.
    backend: torch or keras; by default the first that is installed, for a third-party network its own.
    checkpoint: of a run: best (the default), last, best-ema or last-ema.
    model: for a network that was handed to `stcore.train` as an object, an object of the same class, which gets
        the weights; for a weights file of a package.module:factory network that factory's name. A file alone has
        no code run; a run's folder does, so load one only from people whose code you would run.
    device: where the network is built; by default torch's CPU, or where Keras puts it.

    Raises UsageError for an unknown name, a folder that is no run, a missing or damaged file, or one that does
    not name its network.
    """
    card, path = zoo.find(source), Path(source)
    options = {"backend": backend, "model": model, "device": device}
    if card is None and path.is_dir():
        return open_run(path, checkpoint=checkpoint, **options)
    if checkpoint is not None:
        raise UsageError(f"checkpoint: expected none with {source}, which is no run's folder; leave it out")
    return load_file(source, card=card, **options)


def open_run(
    path: Path,
    *,
    backend: str | None = None,
    checkpoint: str | None = None,
    model: Any = None,
    device: str | None = None,
    given: Given | None = None,
) -> Run:
    """The run in a folder; arguments and errors as in `load`.   given: see `Run`."""
    folder = RunFolder.open(path)
    settings = folder.read_config()
    config = {**settings, "dataset": folder.located(settings.get("dataset", "digits"))}
    checks.choice("checkpoint", checkpoint or "best", CHECKPOINTS)
    weights = path / f"{checkpoint or 'best'}.safetensors"
    unfinished = checkpoint is None and not weights.is_file() and folder.read_json(RESULT) is None
    if unfinished:
        return Run(None, config, {}, path=path, given=given)
    if model is None and models.is_given(str(settings.get("model"))):
        return Run(None, config, read_weights(weights)[1], path=path, given=given)
    network = load_file(weights, backend=backend, model=model, device=device, trusted=True)
    return Run(network.model, config, network.metadata, path=path, given=given)


def device_of(path: Path) -> str | None:
    """The device that a run was trained on."""
    return (RunFolder(path).read_json(ENVIRONMENT) or {}).get("device")
