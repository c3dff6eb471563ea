"""`stcore.analyze`: the paper's analyses of your own models."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stcore.analysis.registry import ANALYSES
from stcore.base import checks
from stcore.base.progress import Progress, Silent
from stcore.core.dispatch import make_classifier
from stcore.errors import UsageError
from stcore.evaluation.given import on_host

if TYPE_CHECKING:  # its import is slow
    from stcore.analysis.subject import Subject


def analyze(
    models: Any,
    data: tuple[Any, Any] | Iterable[tuple[Any, Any]],
    what: str,
    *,
    batch_size: int = 250,
    class_names: Sequence[str] | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Any:
    """Runs one of the paper's analyses on a `torch.nn.Module` or `keras.Model`, or on several by name.

    models: a model, or a mapping from names to models, of either framework.   data: as in `stcore.evaluate`; an
    iterator that yields its batches only once suffices for a single model.
    what: `collaborative` (Fig. 1), `examples` (Figs. 2 and 11, of all images), `landscape` (Fig. 3, the mean over
    all images) or `angles` (Fig. 7).   settings: fields of the analysis' `Settings`, such as `epsilon=8 / 255`,
    `steps=20`; the defaults are the paper's.   batch_size: images per batch.   class_names: names of the classes.
    progress: receives progress reports (see `stcore.base.progress`).
    Returns the result, for example `stcore.analysis.angles.Result`, with `rows()` and `content()`;
    `stcore.figures.angles.draw` draws its figure. The models are left unchanged.
    Raises DataError for pixels or labels out of range, UsageError for a setting that is unknown or out of range.
    """
    known = [name for name, it in ANALYSES.items() if it.of == "checkpoints"]
    checks.choice("what", what, known)
    named = dict(models) if isinstance(models, Mapping) else {"model": models}
    if not named:
        raise UsageError("models: expected a model, or a mapping of names to models; received an empty one")
    module = importlib.import_module(ANALYSES[what].module)
    try:
        asked = module.Settings(**settings)
    except TypeError:
        fields = ", ".join(module.Settings.__dataclass_fields__)
        raise UsageError(f"settings: expected some of {fields}; received {', '.join(settings)}") from None
    subjects = _subjects(named, data, batch_size, class_names)
    return module.compute(subjects, asked, progress=progress or Silent())


def _subjects(
    models: Mapping[str, Any], data: Any, batch_size: int, class_names: Sequence[str] | None
) -> Iterator[Subject]:
    from stcore.analysis.subject import Subject

    for name, model in models.items():
        classifier = make_classifier(model)
        images, labels = on_host(classifier, data, batch_size)
        positions = np.arange(len(labels))
        yield Subject(name, classifier, images, labels, positions, name, batch_size, class_names)
