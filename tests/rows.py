"""Every training method once, with its variants: the rows of the shared suite. A new method is one line here."""

from dataclasses import replace

from stcore import (
    AdversarialConfig,
    BatConfig,
    CollaborativeConfig,
    EatConfig,
    FastSqueezeConfig,
    GairatConfig,
    GairRstConfig,
    MartConfig,
    SingleStepConfig,
    SqueezeConfig,
    StandardConfig,
    TradesConfig,
)
from stcore.methods import make_objective
from stcore.testing import methods
from stcore.testing.backends import draw
from stcore.testing.methods import to_arrays, to_native

__all__ = ["ROWS", "SHORT", "found", "noise", "to_arrays", "to_native"]

ROWS = {
    "st": SqueezeConfig(),
    "st from uniform noise": SqueezeConfig(init="uniform"),
    "st with another inner divergence": SqueezeConfig(divergence="js", inner_divergence="squared_l2"),
    "standard": StandardConfig(),
    "at": AdversarialConfig(),
    "at2": AdversarialConfig(examples=2),
    "at2 max": AdversarialConfig(examples=2, combine="max"),
    "trades": TradesConfig(),
    "trades sharing natural": TradesConfig(share_natural=True),
    "trades adversarial first": TradesConfig(adversarial_first=True),
    "trades as in rst": TradesConfig(adversarial_first=True, share_natural=True),
    "trades symmetric kl": TradesConfig(divergence="symmetric_kl"),
    "trades js": TradesConfig(divergence="js"),
    "trades squared l2": TradesConfig(divergence="squared_l2"),
    "trades2": TradesConfig(examples=2),
    "trades2 max": TradesConfig(examples=2, combine="max"),
    "trades in l2": TradesConfig(norm="l2", epsilon=0.5, step_size=0.125),
    "mart": MartConfig(),
    "mart2": MartConfig(examples=2),
    "mart2 max": MartConfig(examples=2, combine="max"),
    "collaborative": CollaborativeConfig(),
    "gairat": GairatConfig(begin_epoch=1),
    "gairat sigmoid": GairatConfig(begin_epoch=1, weighting="sigmoid"),
    "gairat discrete": GairatConfig(begin_epoch=1, weighting="discrete"),
    "gairat before its weights": GairatConfig(begin_epoch=2),
    "gair-rst": GairRstConfig(begin_epoch=1),
    "gair-rst before its weights": GairRstConfig(begin_epoch=2),
    "bat": BatConfig(),
    "bat in three strides up the kl": BatConfig(segments=3, inner="kl"),
    "e-at": EatConfig(balls=("linf:0.1", "l1:2"), steps=3),
    "fast-st": FastSqueezeConfig(),
    "fast-st of the image": FastSqueezeConfig(natural="image"),
    "fast-st by descent": FastSqueezeConfig(natural="image", collaborative="descent"),
    "fast-st by descent from the start": FastSqueezeConfig(collaborative="descent", steps=2),
    "n-fgsm": SingleStepConfig(),
    "n-fgsm in two steps": SingleStepConfig(steps=2, project=True),
    "n-fgsm in l2": SingleStepConfig(norm="l2", epsilon=0.5, label_smoothing=0.1),
    "fgsm": SingleStepConfig(start_scale=0.0, search_mode="eval"),
    "fgsm-rs": make_objective("fgsm-rs", {}),
    "fgsm-consistency": make_objective("fgsm-consistency", {}),
}

SHORT = {name: replace(row, steps=3) if hasattr(row, "step_size") else row for name, row in ROWS.items()}
"""The same with searches of three steps, for what does not depend on how long they are."""


def noise(objective, shape, seed=0):
    """The unit noise of a batch, as float64 arrays (B, H, W, C)."""
    return draw(objective.noise_laws, shape, seed)


def found(backend, model, objective, given, seed=0):
    """What the method finds in its first epoch: the native examples as it made them."""
    return methods.found(backend, model, objective, given, objective.phase(1), seed)
