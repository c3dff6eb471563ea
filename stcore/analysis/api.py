"""`stcore.analyze`: the paper's figures from one's own models."""

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
from stcore.evaluation.api import on_host

if TYPE_CHECKING:  # it brings what is heavy
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
    """One of the paper's analyses of a `torch.nn.Module` or `keras.Model`, or of several by name.

    models: a model, or a mapping of names to models, which may be of both frameworks.   data: as in
    `stcore.evaluate`; batches that come only once do for a single model.
    what: `collaborative` (Fig. 1), `examples` (Figs. 2 and 11: of all images given), `landscape` (Fig. 3: the mean
    over all images given) or `angles` (Fig. 7).   settings: those of the analysis' `Settings`, such as
    `epsilon=8 / 255`, `steps=20`; what is not given is the paper's.   batch_size: images at one time.
    class_names: what classes are called.   progress: who is told how it goes on (see `stcore.base.progress`).
    Returns the numbers: `rows()`, `content()`, and what else `stcore.analysis.angles.Result`, say, has;
    `stcore.figures.angles.draw` makes its figure. Models come back as they were.
    Raises DataError for pixels or labels out of range, UsageError for a setting that is not known or out of range.
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
    seen = _subjects(named, data, batch_size, class_names)
    return module.compute(seen, asked, progress=progress or Silent())


def _subjects(
    models: Mapping[str, Any], data: Any, batch_size: int, class_names: Sequence[str] | None
) -> Iterator[Subject]:
    from stcore.analysis.subject import Subject

    for name, model in models.items():
        classifier = make_classifier(model)
        images, labels = on_host(classifier, data, batch_size)
        places = np.arange(len(labels))
        yield Subject(name, classifier, images, labels, places, name, batch_size, class_names)
