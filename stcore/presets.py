"""Training recipes by data set: the defaults of `stcli train`.

CIFAR and SVHN follow the paper (section 5), and its released code where the paper is silent: SGD with momentum 0.9
and weight decay 5e-4 on every tensor, batch 128; CIFAR: 120 epochs at 0.1, divided by 10 from epochs 80 and 100
on, zero-pad 4, crop and flip; SVHN: 80 epochs at 0.01, divided by 10 from epochs 50 and 65 on, no augmentation.
The digits recipe is ours: images of 8×8 pixels need a larger ball (at 8/255 even a standard network keeps 96 %
under PGD-20), and their small network needs a shorter schedule.

Pretrained networks are fine-tuned by `finetune/sgd`, after Mo et al. (2022, released code), which found SGD with
clipped gradients best for vision transformers, or by `finetune/adamw`, after Debenedetti et al. (2023, released
code), for transformers and ConvNeXt: heavy decay, light augmentation.
"""

from __future__ import annotations

from typing import Any

from stcore.methods.squeeze import SqueezeConfig

SQUEEZE = {
    "cifar10": SqueezeConfig(),
    "cifar100": SqueezeConfig(beta=4.0),
    "svhn": SqueezeConfig(beta=8.0, step_size=1 / 255),
    "digits": SqueezeConfig(epsilon=0.2, step_size=0.05),
    "finetune/sgd": SqueezeConfig(),
    "finetune/adamw": SqueezeConfig(steps=5, step_size=2.4 / 255),
}
"""Squeeze training's settings by recipe; the first three are the paper's, the last two those of the recipes."""

_CIFAR: dict[str, Any] = {
    "model": "resnet18",
    "epochs": 120,
    "batch_size": 128,
    "learning_rate": 0.1,
    "drops": (80 / 120, 100 / 120),
    "augment": "crop-flip",
}

RECIPES: dict[str, dict[str, Any]] = {
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    "svhn": {**_CIFAR, "epochs": 80, "learning_rate": 0.01, "drops": (50 / 80, 65 / 80), "augment": "none"},
    "digits": {
        **_CIFAR,
        "model": "small-cnn",
        "epochs": 20,
        "batch_size": 64,
        "learning_rate": 0.1,
        "augment": "none",
    },
    "finetune/sgd": {
        "model": "timm:deit_tiny_patch16_224",
        "epochs": 40,
        "batch_size": 64,
        "learning_rate": 0.1,
        "weight_decay": 1e-4,
        "drops": (36 / 40, 39 / 40),
        "clip_norm": 1.0,
        "augment": "crop-flip",
    },
    "finetune/adamw": {
        "model": "timm:xcit_small_12_p16_224",
        "epochs": 20,
        "batch_size": 64,
        "optimizer": "adamw",
        "learning_rate": 5e-5 * 64 / 512,  # the rate for batches of 512, in proportion (Touvron et al., 2021)
        "weight_decay": 0.5,
        "schedule": "cosine",
        "drops": (),
        "warmup": 5.0,  # of 20 epochs; of others in proportion
        "augment": "random-resized-crop-flip",
    },
}
"""Network, schedule and augmentation by recipe. `drops`: when the learning rate is divided by 10, as shares of the
epochs in (0, 1]."""

SGD: dict[str, Any] = {
    "learning_rate": 0.1,
    "weight_decay": 5e-4,
    "momentum": 0.9,
    "nesterov": False,
    "betas": (),
    "decay_vectors": True,
}
"""Settings of SGD in place of a recipe's for another optimizer: the paper's."""

ADAMW: dict[str, Any] = {
    "learning_rate": 1e-3,
    "weight_decay": 0.05,
    "momentum": None,
    "nesterov": False,
    "betas": (0.9, 0.999),
    "decay_vectors": False,
}
"""Settings of AdamW in place of a recipe's for another optimizer, as vision transformers are trained (Touvron et
al., 2021)."""

OPTIMIZERS = {"sgd": SGD, "adamw": ADAMW}
"""The settings of each optimizer that a recipe may leave out, and that hold if it is for another one."""

GIVEN_OPTIMIZER: dict[str, Any] = {"weight_decay": None, "momentum": None, "nesterov": False}
"""Instead of a recipe's settings, for an optimizer that was handed over with its own."""

RWP: dict[str, dict[str, Any]] = {
    name: {"rwp_steps": 10, "rwp_threshold": 4.0 if name == "cifar100" else 1.7} for name in RECIPES
}
"""Published settings of robust weight perturbation (Yu et al., 2022) by data set, for runs that use it."""


def default_preset(dataset: str) -> str:
    """Returns the recipe for a data set such as `digits` or `cifar100:DIR`; `cifar10` if it has none."""
    kind = dataset.partition(":")[0]
    return kind if kind in RECIPES else "cifar10"
