"""`stcore.train`: a whole run, as `stcli train` makes it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stcore import models
from stcore.api.callbacks import Callback
from stcore.api.run import Run, carry_out_shown, finished, run_options
from stcore.base.registry import GIVEN
from stcore.core.dispatch import backend_name, load_backend, make_classifier
from stcore.errors import UsageError
from stcore.runs.folder import CONFIG, RESULT, RunFolder
from stcore.trackers import make_tracker

if TYPE_CHECKING:  # `import stcore` is quicker without plans and their data
    from stcore.base.progress import Progress
    from stcore.core.objective import Objective
    from stcore.data.images import Splits
    from stcore.runs.plan import Plan

OF_NETWORK = ("normalize", "pretrained", "dtype")
"""Settings that a network which is handed over brings itself."""
OF_KERAS = ("device", "replicas", "threads")
"""Settings that Keras takes before its first network is made."""


def train(
    model: Any,
    data: Any,
    method: str | Objective | type[Objective] | None = None,
    *,
    validation: Any = None,
    test: Any = None,
    epochs: int | None = None,
    optimizer: Any = None,
    out: str | Path | None = None,
    callbacks: Sequence[Callback | str] = (),
    seed: int = 0,
    backend: str | None = None,
    resume: bool = False,
    progress: bool | Progress = True,
    save_every: float = 300.0,
    max_hours: float | None = None,
    **settings: Any,
) -> Run:
    """Trains a network, selects the best epoch, evaluates it, and leaves all in a folder, as `stcli train` does.

    model: a name (`resnet18`, `timm:NAME`, `package.module:factory`; see `stcore.models.build`), or a
        `torch.nn.Module` or `keras.Model` from pixels in [0, 1] to logits, which is trained in place and ends with
        the weights of the best epoch. A Keras model that is not built yet is, from data that are handed over.
    data: the name of a data set (`digits`, `parquet:DIR`, `package.module:load`; see `stcore.data.load`), a
        function that loads one, a folder of images, arrays
        (images, labels), `stcore.data.ImageData` or `Splits`, or a loader of batches (images, labels), such as a
        torch DataLoader or a batched `tf.data.Dataset`.
        Images are uint8, or floats in [0, 1] (of arrays rounded to multiples of 1/255): a torch.Tensor channels
        first (N, C, H, W), anything else channels last (N, H, W, C). Labels are integers (N,) or
        (N, 1) from 0 on, or one-hot or soft labels (N, C); evaluations take the likeliest class.
        A loader is read anew in each epoch, with its own batches, order and augmentation.
    method: the training method; by default `st`, or that of the preset: a name, `package.module:MyConfig`, its
        settings as an object such as `stcore.TradesConfig(beta=4)`, all of whose fields count, or their class.
    validation, test: arrays, a loader, which is read once, or ImageData; for data without parts of their own. The
        best epoch is chosen on validation; for arrays it may be a share or a count to hold out, stratified by
        class, and by default 2 % are. If one of the two is missing, the other serves as both, with a warning, and
        the run's `select` is `test`.
    optimizer: `sgd` or `adamw`; or, for a network that is handed over, an optimizer of its weights (torch.optim or
        keras.optimizers, with a number as its learning rate), whose rates follow the schedule in proportion.
    epochs and settings: the options of `stcli train` by their Python names, such as learning_rate, steps or beta.
        `divergence` may also be a function, and `attacks` a list of names and attacks, or a dict of them by name.
        What no import brings back, such as a class of a notebook, resumes only from Python, handed over again.
    out: the run's folder, new or empty; by default a new one in runs/.   seed: of all randomness.
    backend: torch or keras, for a network by name; by default torch.
    callbacks: objects as `stcore.Callback` describes them, or trackers by name, as `stcli train --track` takes
        them.   progress: show it, or a `stcore.base.progress.Progress` to report to.
    resume: continue the run in `out`, with the same arguments; begin it if there is none.
    save_every, max_hours: seconds between two saved states, and the time after which the run stops, to be resumed.

    Ctrl-C stops the run after the current step; the `Run` that is returned is then unfinished, and its `resume`
    continues it.
    Raises UsageError for arguments that do not fit, DataError for invalid data, DeviceError for a missing device,
    DivergedError if the loss or a prediction becomes non-finite.
    """
    from stcore.api.objects import given_data, of_parts
    from stcore.runs.plan import default_name, make_plan
    from stcore.runs.preparation import Given

    trackers = [make_tracker(one) for one in callbacks]
    if "dataset" in settings:
        raise UsageError("dataset: expected none beside data; received both. Name the data set as data")
    chosen = {"epochs": epochs, "backend": backend}
    settings |= of_parts(method, settings)
    settings |= {name: value for name, value in chosen.items() if value is not None}
    found = given_data(data, validation, test, seed, settings)
    network = None if isinstance(model, str) else model
    if network is None:
        settings |= {"model": model, "seed": seed}
    else:
        settings |= _of_model(model, found.splits, settings) | {"seed": seed}
    if isinstance(optimizer, str):
        settings["optimizer"] = optimizer
    elif optimizer is not None:
        settings |= _of_optimizer(optimizer, network, settings)
    plan = make_plan({**settings, **found.settings})
    if plan.bound:
        warnings.warn(
            f"no import brings back {', '.join(plan.bound)}: stcli can neither resume nor evaluate this run; from "
            "Python hand it over again, or put it into a module",
            stacklevel=2,
        )
    given = Given(network, None if isinstance(optimizer, str) else optimizer, found.splits, found.batches)
    if found.note is not None:
        warnings.warn(found.note, stacklevel=2)
    if out is None and resume:
        raise UsageError("out: expected the folder of the run to resume; received none")
    folder = RunFolder.unused(Path("runs"), default_name(plan)) if out is None else Path(out)
    begun = resume and (folder / CONFIG).is_file()
    if begun:
        _check_same(folder, plan)
    if not (begun and (folder / RESULT).is_file()):
        options = run_options(begun, save_every, max_hours)
        folder = carry_out_shown(plan, folder, given, trackers, options, progress)
    return finished(plan, folder, given)


def _of_model(model: Any, splits: Splits | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the network itself determines; it is built for these images if it is not."""
    backend = backend_name(model)
    if settings.get("backend", backend) != backend:
        raise UsageError(
            f"backend: expected {backend}, the model's own; received {settings['backend']}. Leave it out"
        )
    for name in (*OF_NETWORK, *(OF_KERAS if backend == "keras" else ())):
        if name in settings:
            raise UsageError(
                f"{name}: expected none for a network that is handed over, which has its own; received "
                f"{settings[name]!r}. Leave it out"
            )
    loaded = load_backend(backend)
    if backend == "keras":
        loaded.check_range(model)
        if splits is not None:
            loaded.build(model, splits.train.image_shape)
    dtype = str(make_classifier(model).dtype).removeprefix("torch.")  # type: ignore[attr-defined]
    return {"model": models.name_of(model), "backend": backend, "dtype": dtype}


def _of_optimizer(optimizer: Any, network: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the optimizer itself determines."""
    if network is None:
        raise UsageError(
            f"optimizer: expected a name, such as adamw, for a network by name; received a "
            f"{type(optimizer).__qualname__}, whose weights are another network's"
        )
    if "learning_rate" in settings:
        raise UsageError(
            f"learning_rate: expected none beside an optimizer, which has its own; received "
            f"{settings['learning_rate']}. Leave it out"
        )
    rate = load_backend(backend_name(network)).rate_of(optimizer, network)
    return {"optimizer": f"{GIVEN}:{type(optimizer).__name__}", "learning_rate": rate}


def _check_same(folder: Path, plan: Plan) -> None:
    """Raises UsageError unless the run in the folder has the settings of this plan."""
    from stcore.base.files import as_plain
    from stcore.runs.plan import make_plan
    from stcore.runs.states import MOVABLE

    with RunFolder(folder).explaining():
        there = as_plain(make_plan(RunFolder(folder).read_config()).flat())
    for name, here in as_plain(plan.flat()).items():
        if there.get(name) != here and name not in MOVABLE:
            raise UsageError(
                f"resume: expected {name} = {there.get(name)}, with which the run in {folder} was begun; received "
                f"{here}. Give the same settings, or another out"
            )
