"""Recipes that rows share: settings, each with its source.

The paper trains every method by one protocol (section 5). What only the released training script of squeeze
training specifies (`train_stat.py`) therefore applies to the baselines too. Files are those of the authors'
repository or of the method's own. The ResNet-18 schedule is assumed for rows without a schedule of their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from stcore.paper.preset import Recipe, Setting

DIRECTORIES = {"cifar10": "cifar10:data", "cifar100": "cifar100:data", "svhn": "svhn:data/svhn"}
"""The data sets' folders in the released code; `--dataset` names yours."""


def from_source(source: str, **values: Any) -> Recipe:
    """Settings that share one source."""
    return {name: Setting(value, source) for name, value in values.items()}


def paper(section: str, **values: Any) -> Recipe:
    """Settings that the paper gives in this section."""
    return from_source(f"paper §{section}", **values)


def released(file: str, **values: Any) -> Recipe:
    """Settings that only published code gives."""
    return from_source(f"released code ({file})", **values)


def ours(why: str, **values: Any) -> Recipe:
    """Settings that no source gives, with the reason for our choice."""
    return from_source(f"our choice: unspecified ({why})", **values)


def assumed(recipe: Recipe, names: Iterable[str], why: str) -> Recipe:
    """The recipe with these settings declared our choice; the values stay."""
    return {**recipe, **ours(why, **{name: recipe[name].value for name in names if name in recipe})}


PROTOCOL: Recipe = {
    **paper("5", batch_size=128, momentum=0.9, weight_decay=5e-4, select_by="pgd20", eval_epsilon=8 / 255),
    **released("train_stat.py", nesterov=False, select="test"),
}

_CIFAR: Recipe = {
    **paper("5", epochs=120, learning_rate=0.1, schedule="step", drops=(80 / 120, 100 / 120)),
    **released("train_stat.py", augment="crop-flip"),
}
SCHEDULE: dict[str, Recipe] = {
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    "svhn": {
        **paper("5", epochs=80, learning_rate=0.01, schedule="step", drops=(50 / 80, 65 / 80)),
        **released("train_stat.py", augment="none"),
    },
}
"""The learning-rate schedule by data set."""

OPTIMISATION = (
    *("epochs", "learning_rate", "schedule", "drops", "batch_size", "momentum", "nesterov", "weight_decay"),
    *("augment", "select"),
)

BALL: dict[str, Recipe] = {
    "cifar10": paper("5", epsilon=8 / 255, step_size=2 / 255, norm="linf"),
    "cifar100": paper("5", epsilon=8 / 255, step_size=2 / 255, norm="linf"),
    "svhn": paper("5", epsilon=8 / 255, step_size=1 / 255, norm="linf"),
}
"""The ball in which training searches, by data set."""

SQUEEZE_BETA = {"cifar10": 6.0, "cifar100": 4.0, "svhn": 8.0}

SMALL_NOISE = {"init": "gaussian", "noise_std": 1e-3}
_AT: Recipe = {
    **ours("10, as squeeze training and TRADES were released", steps=10),
    **ours("docs/decisions.md, 7", init="uniform"),
}
_TRADES: Recipe = {
    **paper("5", beta=6.0),
    **paper("2.2", divergence="kl"),
    **released("trades.py", steps=10, **SMALL_NOISE, share_natural=False, adversarial_first=False),
}
_MART: Recipe = {**paper("5", beta=5.0), **released("mart.py", steps=10, **SMALL_NOISE)}
TWO: Recipe = paper("C", examples=2, combine="mean")

METHOD_RECIPES: dict[str, Recipe] = {
    "standard": {},
    "st": {
        **paper("4.1, Algorithm 1", **SMALL_NOISE),
        **paper("5.1", divergence="symmetric_kl"),
        **released("train_stat.py", steps=10),
        **released("losses.py", stop_gradient_targets=True),
    },
    "at": _AT,
    "trades": _TRADES,
    "mart": _MART,
    "at2": {**_AT, **TWO},
    "trades2": {**_TRADES, **TWO},
    "mart2": {**_MART, **TWO},
    "collaborative": {
        **paper("3.2", steps=10),
        **ours("as in TRADES", beta=6.0, **SMALL_NOISE),
    },
}
"""The settings of each method, without the ball and squeeze training's β."""

AWP = ours("as AWP's authors released TRADES-AWP", awp=0.005, perturbation_warmup=10)
AWP_ORDER = ours("as AWP's authors released TRADES-AWP", adversarial_first=True)
"""The settings that weight perturbation adds to any method, and to TRADES alone."""


def table(source: str, method: str, data: str, model: str = "resnet18") -> Recipe:
    """All settings of a model of the main tables except the attacks; `source` is the section of its row."""
    named = paper(source, method=method, dataset=DIRECTORIES[data], model=model)
    ball = {} if method == "standard" else BALL[data]
    beta = paper("5.1", beta=SQUEEZE_BETA[data]) if method == "st" else {}
    return {**named, **PROTOCOL, **SCHEDULE[data], **ball, **METHOD_RECIPES[method], **beta}
