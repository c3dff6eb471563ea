"""`stcore.Run`: a run's folder with its network; how it is carried out, resumed, and opened by `stcore.load`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stcore import models, zoo
from stcore.api.loading import LoadedNetwork, hub_folder, is_hub_folder, load_file
from stcore.base import checks
from stcore.errors import UsageError
from stcore.evaluation.accuracy import Accuracy, as_html, percent
from stcore.models.weights_files import read_weights
from stcore.protocols import Array, Classifier
from stcore.runs.folder import CHECKPOINTS, ENVIRONMENT, RESULT, RunFolder

if TYPE_CHECKING:  # `import stcore` is quicker without plans and their data
    from stcore.base.progress import Progress
    from stcore.evidence import Evidence
    from stcore.runs.plan import Plan
    from stcore.runs.preparation import Given
    from stcore.runs.training_run import Outcome, RunOptions


@dataclass(frozen=True, eq=False, repr=False)
class Run(LoadedNetwork):
    """A run, finished or not, as `stcore.train` returns it and `stcore.load` opens its folder.

    model: the network with the weights of the best epoch; None if there are none yet, or if the network was handed
        over as an object and `stcore.load` was not given it again.
    config: all settings.   metadata: of the weights file.   path: the run's folder.
    given: what `stcore.train` was given as objects; None if the run was opened from its folder.
    checkpoint: whose weights the network has: best, last, best-ema or last-ema.
    """

    path: Path = Path()
    given: Given | None = None
    checkpoint: str = "best"

    @property
    def history(self) -> list[dict[str, Any]]:
        """The metrics of each epoch, as in metrics.jsonl."""
        from stcore.runs.record import metrics_so_far

        return metrics_so_far(self.path)

    @property
    def result(self) -> dict[str, Any] | None:
        """The content of result.json: accuracies on the test split by checkpoint; None if unfinished."""
        return RunFolder(self.path).read_json(RESULT)

    @property
    def accuracies(self) -> dict[str, dict[str, Accuracy]]:
        """The accuracies on the test split by checkpoint and attack; empty if the run is unfinished."""
        checkpoints = (self.result or {"checkpoints": {}})["checkpoints"]
        return {
            name: {attack: Accuracy.of_json(score) for attack, score in scores.items()}
            for name, scores in checkpoints.items()
        }

    def evidence(self, path: str | Path, *, with_weights: bool = False) -> Evidence:
        """Writes the evidence of the evaluation of its checkpoint that kept its examples, and returns it.

        with_weights: put the network into the file.   Raises UsageError as `stcli evidence` does.
        """
        from stcore.api.evidence import make_evidence

        return make_evidence(self.path, path, checkpoint=self.checkpoint, include_weights=with_weights)

    def model_card(self, place: str) -> str:
        """Its card in the format of the Hugging Face hub, as in `report(format="card")`; see `LoadedNetwork`."""
        from stcore.report.card import card
        from stcore.report.gathered import gather

        return card(gather([self.path])[0], self.checkpoint, place)

    def evaluation_files(self) -> Mapping[str, Path]:
        """The run's result, and the records of the finished evaluations of its checkpoint."""
        from stcore.evaluation.folder import EVALUATIONS, IDENTITY, RECORDS
        from stcore.report.gathered import gather

        later = [
            f"{EVALUATIONS}/{one.name}/{one.checkpoint}/{name}"
            for one in gather([self.path])[0].evaluations
            for name in (IDENTITY, RESULT, RECORDS)
            if one.checkpoint == self.checkpoint and one.result is not None and not one.mismatch
        ]
        return {name: self.path / name for name in (RESULT, *later)}

    def resume(self, *, progress: bool | Progress = True) -> Run:
        """Continues an unfinished run, and returns it; a finished one is returned as it is.

        Network and data that were handed over as objects are those of this `Run`.
        Raises UsageError if they were not: give them again, by `stcore.train(…, out=…, resume=True)`.
        """
        return self if self.result is not None else _resume(self, progress)

    def _place(self) -> Path:
        return self.path

    def _plan(self) -> Plan | None:
        with RunFolder(self.path).explaining():
            return super()._plan()

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
    image_shape: tuple[int, int, int] | None = None,
    class_names: Sequence[str] | None = None,
) -> LoadedNetwork:
    """Loads a trained network; of a run's folder, the run as a `Run`.

    source: a run's folder, a weights file, `zoo:NAME` (`stcore.zoo.names()`, `stcli zoo list`), `hf://OWNER/NAME`
        of the Hugging Face hub (`@REVISION` may follow), or a folder in its layout.
    backend: torch or keras; by default the first that is installed, for a third-party network its own.
    checkpoint: of a run: best (the default), last, best-ema or last-ema.
    model: for a network that was handed to `stcore.train` as an object, an object of the same class, which gets
        the weights; for a weights file of a package.module:factory network that factory's name. For a file of
        another program (a state dict in .pt, .pth or .safetensors, as timm's; .weights.h5 or .keras of Keras) the
        network itself, or one of stcore's names for a released state dict; a .keras alone holds its network too.
        A file alone has no code run; a run's folder does, by the import paths in its config.toml, so load one only
        from people whose code you would run.
    image_shape, class_names: of a file of another program: (H, W, C), which a network in Keras often says itself,
        and a name per class.
    device: where the network is built; by default torch's CPU, or where Keras puts it.

    Raises UsageError for an unknown name, a folder that is no run, a missing or damaged file, or one that does
    not name its network.
    """
    card, path = zoo.find(source), Path(source)
    options = {"backend": backend, "model": model, "device": device}
    sizes: dict[str, Any] = {"image_shape": image_shape, "class_names": class_names}
    if path.is_dir() and sizes != dict.fromkeys(sizes):
        raise UsageError(f"image_shape, class_names: expected neither with {source}, a folder; leave them out")
    if card is None and path.is_dir() and not is_hub_folder(path):
        return open_run(path, checkpoint=checkpoint, **options)
    if checkpoint is not None:
        raise UsageError(f"checkpoint: expected none with {source}, which is no run's folder; leave it out")
    if card is None and (folder := hub_folder(source)) is not None:
        from stcore.export import hub

        return load_file(folder / hub.WEIGHTS, config=hub.training(folder), **options)
    return load_file(source, card=card, **options, **sizes)


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
    with folder.explaining():
        network = load_file(weights, backend=backend, model=model, device=device, trusted=True)
    return Run(network.model, config, network.metadata, path=path, given=given, checkpoint=checkpoint or "best")


def finished(plan: Plan, folder: Path, given: Given) -> Run:
    """The run in the folder, with its network where it was trained."""
    backend = plan.runtime.backend
    environment = RunFolder(folder).read_json(ENVIRONMENT) or {}
    device = environment.get("device") if backend == "torch" and given.model is None else None
    return open_run(folder, backend=backend, model=given.model, device=device, given=given)


def carry_out(
    plan: Plan,
    folder: Path,
    given: Given,
    callbacks: Sequence[Any],
    options: RunOptions,
    show: Progress,
    say: Callable[[str], None],
) -> Outcome:
    """Trains, with the callbacks (`stcore.Callback`) at their places.

    show: receives progress reports.   say: prints a line.
    """
    from stcore.api.display import epoch_line, title
    from stcore.runs.training_run import run

    begun: list[Run] = []  # stays empty in all ranks but the first

    def on_begin() -> None:
        say(f"{title(plan)} → {folder}")
        begun.append(Run(None, plan.flat(), {}, path=folder, given=given))
        for callback in callbacks:
            callback.on_begin(begun[0])

    def on_row(row: Mapping[str, Any]) -> None:
        say(epoch_line(row, plan.optimisation.epochs, plan.evaluation.select))
        for callback in callbacks:
            callback.on_epoch(row)

    def on_step(step: int, metrics: Mapping[str, float]) -> None:
        for callback in callbacks:
            callback.on_step(step, metrics)

    outcome = run(plan, folder, show, on_row, on_begin, options, on_step, given)
    for callback in callbacks if begun and not outcome.interrupted else ():
        callback.on_end(begun[0].result or {})
    return outcome


def carry_out_shown(
    plan: Plan,
    folder: Path,
    given: Given,
    callbacks: Sequence[Any],
    options: RunOptions,
    progress: bool | Progress,
) -> Path:
    """`carry_out` on the terminal or in the notebook; the folder, which of several ranks is that of the first."""
    from stcore.api.display import make_display

    show, say = make_display(progress)
    outcome = carry_out(plan, folder, given, callbacks, options, show, say)
    if outcome.interrupted:
        say(f"interrupted after {outcome.epochs} whole epochs; resume() of the run continues it")
    return outcome.folder


def run_options(resumed: bool, save_every: float = 300.0, max_hours: float | None = None) -> RunOptions:
    """Options of a run that passes on its notes as warnings; arguments as in `stcore.train`."""
    from stcore.runs.training_run import RunOptions

    def warn(text: str) -> None:
        warnings.warn(text, stacklevel=2)

    return RunOptions.of(resumed, save_every, max_hours, warn)


def _resume(run: Run, progress: bool | Progress) -> Run:
    """Continues the run; see `Run.resume`."""
    from stcore.runs.plan import make_plan
    from stcore.runs.preparation import Given

    given = run.given or Given()
    with RunFolder(run.path).explaining():
        plan = make_plan(run.config)
    for name, kind, there in (
        ("model", "network", given.model),
        ("dataset", "data", given.splits),
        ("optimizer", "optimizer", given.optimizer),
    ):
        if name in plan.given and there is None:
            raise UsageError(
                f"resume: expected the {kind} that {run.path} was begun with, an object; received none. Give it "
                f"again: stcore.train(model, data, …, out={str(run.path)!r}, resume=True)"
            )
    folder = carry_out_shown(plan, run.path, given, (), run_options(True), progress)
    return finished(plan, folder, given)
