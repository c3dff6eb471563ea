"""Squeeze training (Li et al., ICLR 2023) and its family, written once, run by PyTorch and Keras.

Importing this imports numpy and no framework.
"""

from stcore import attacks
from stcore.adversarial import AdversarialConfig
from stcore.api import SqueezeLoss, find_squeeze_pair, squeeze_loss, squeeze_step, train_step
from stcore.dispatch import available_backends, make_classifier, make_learner
from stcore.evaluation import evaluate
from stcore.squeeze import SqueezeConfig
from stcore.squeeze_search import SqueezePair
from stcore.standard import StandardConfig

__version__ = "0.1.0"

__all__ = [
    "AdversarialConfig",
    "SqueezeConfig",
    "SqueezeLoss",
    "SqueezePair",
    "StandardConfig",
    "attacks",
    "available_backends",
    "evaluate",
    "find_squeeze_pair",
    "make_classifier",
    "make_learner",
    "squeeze_loss",
    "squeeze_step",
    "train_step",
]
