"""Settings of the rows with extra data (section 5.3): RST (Carmon et al., 2019) and its successors.

Training takes 200 "epochs" of ceil(50 000 / 256) = 196 batches, half of each pseudo-labelled. The radius is 0.031
in training and 8/255 in the paper's evaluation. None of BAT-RST's settings could be found.
"""

from __future__ import annotations

from stcore.paper.preset import Recipe
from stcore.paper.recipes import AWP, DIRECTORIES, SMALL_NOISE, TWO, assumed, ours, paper, released

_RST = "semisup-adv"

BASE: Recipe = {
    **paper("5.3", model="wrn-28-10", dataset=DIRECTORIES["cifar10"]),
    **released(_RST, epochs=200, batch_size=256, learning_rate=0.1, schedule="cosine", augment="crop-flip"),
    **released(_RST, momentum=0.9, nesterov=True, weight_decay=5e-4),
    **released(_RST, epsilon=0.031, step_size=0.007, steps=10, norm="linf", beta=6.0),
    **paper("5.3", extra_data="ti500k:data/ti_500K_pseudo_labeled.pickle"),
    **released(_RST, extra_fraction=0.5),
    **paper("5", eval_epsilon=8 / 255, select_by="pgd20"),
    **ours("the last epoch counts, so no images need to be held out", select="test"),
}

_TRADES: Recipe = {
    **paper("2.2", divergence="kl"),
    **released(_RST, **SMALL_NOISE, share_natural=True, adversarial_first=True),
}

_ON_RST = "not found in BAT's sources; RST's"
_UNKNOWN_OF_BAT = (
    *("epochs", "batch_size", "learning_rate", "schedule", "augment", "momentum", "nesterov", "weight_decay"),
    *("epsilon", "step_size", "steps", "beta", "extra_fraction"),
)

ROWS: dict[str, tuple[str, Recipe]] = {
    "rst": ("trades", _TRADES),
    "bat-rst": (
        "bat",
        {
            **assumed(BASE, _UNKNOWN_OF_BAT, _ON_RST),
            **ours("the smallest number with a bridge: 1 is TRADES", segments=2),
            **released("torchdefenses, bat.py", inner="cross_entropy"),
            **ours("as in TRADES", **SMALL_NOISE),
        },
    ),
    "gair-rst": (
        "gair-rst",
        released("GAIR-RST, losses.py", **SMALL_NOISE, shift=3.0, begin_epoch=100, confidence=50.0),
    ),
    "awp-rst": (
        "trades",
        {**_TRADES, **AWP, **ours("AWP's authors report the best epoch by PGD-20 on the test set", select="test")},
    ),
    "rwp-rst": (
        "trades",
        {
            **_TRADES,
            **released("utils_rwp.py", rwp=0.005, rwp_threshold=1.7, rwp_steps=10, perturbation_warmup=10),
            **released("RWP, RST folder: the best epoch by PGD on the test set", select="test"),
        },
    ),
    "st-rst": (
        "st",
        {
            **paper("5.1", divergence="symmetric_kl"),
            **released("semisup-adv, losses_stat.py", init="uniform", stop_gradient_targets=True),
        },
    ),
    "trades2-rst": ("trades2", {**_TRADES, **TWO}),
}
"""Row of Table 4 (the last one is from appendix C) → the method, and its differences from RST's recipe."""

KEEP_BEST = ("awp-rst", "rwp-rst")
"""The rows that report the best epoch instead of the last."""


def extra_data(source: str, row: str) -> Recipe:
    """All settings of a model with extra data except the attacks; `source` is the section of its row."""
    method, own = ROWS[row]
    return {**paper(source, method=method), **BASE, **own}
