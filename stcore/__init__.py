"""Squeeze training (Li et al., ICLR 2023) and its family, written once, run by PyTorch and Keras.

Importing this imports numpy and no framework.
"""

from stcore import attacks, presets
from stcore.adversarial import AdversarialConfig
from stcore.api import (
    SqueezeLoss,
    TrainingLoss,
    find_squeeze_pair,
    squeeze_loss,
    squeeze_step,
    train_step,
    training_loss,
)
from stcore.bridged import BatConfig
from stcore.collaborative import CollaborativeConfig
from stcore.dispatch import available_backends, make_classifier, make_learner
from stcore.evaluation import evaluate
from stcore.gair_rst import GairRstConfig
from stcore.gairat import GairatConfig
from stcore.mart import MartConfig
from stcore.perturbation import AWP, RWP
from stcore.squeeze import SqueezeConfig
from stcore.squeeze_search import SqueezePair
from stcore.standard import StandardConfig
from stcore.trades import TradesConfig

__version__ = "0.1.0"

__all__ = [
    "AWP",
    "RWP",
    "AdversarialConfig",
    "BatConfig",
    "CollaborativeConfig",
    "GairRstConfig",
    "GairatConfig",
    "MartConfig",
    "SqueezeConfig",
    "SqueezeLoss",
    "SqueezePair",
    "StandardConfig",
    "TradesConfig",
    "TrainingLoss",
    "attacks",
    "available_backends",
    "evaluate",
    "find_squeeze_pair",
    "make_classifier",
    "make_learner",
    "presets",
    "squeeze_loss",
    "squeeze_step",
    "train_step",
    "training_loss",
]
