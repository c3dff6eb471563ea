"""Squeeze training (Li et al., ICLR 2023) and related adversarial training, for PyTorch and Keras.

The public names: whole runs, losses and steps for one's own loop, training methods, attacks, evaluation, analysis.
Importing this package imports numpy and no framework.
"""

from stcore import attacks, presets
from stcore.analysis.api import analyze
from stcore.api.callbacks import Callback
from stcore.api.evidence import replay
from stcore.api.loading import LoadedNetwork
from stcore.api.run import Run, load
from stcore.api.steps import (
    SqueezeLoss,
    TrainingLoss,
    find_squeeze_pair,
    squeeze_loss,
    squeeze_step,
    train_step,
    training_loss,
)
from stcore.api.training import train
from stcore.audit.bracket import bracket
from stcore.audit.evaluation import evaluate
from stcore.base.version import __version__ as __version__
from stcore.bounds.smoothing import Smoothing
from stcore.core.dispatch import available_backends, make_classifier, make_learner
from stcore.core.perturbation import AWP, RWP
from stcore.evaluation.corruptions import Corruptions
from stcore.evaluation.unions import Union
from stcore.methods.adversarial import AdversarialConfig
from stcore.methods.bridged import BatConfig
from stcore.methods.class_wise import ClassWise
from stcore.methods.collaborative import CollaborativeConfig
from stcore.methods.extreme_norms import EatConfig
from stcore.methods.fast_squeeze import FastSqueezeConfig
from stcore.methods.gair_rst import GairRstConfig
from stcore.methods.gairat import GairatConfig
from stcore.methods.guided import Agreement, Guided, Targets
from stcore.methods.mart import MartConfig
from stcore.methods.single_step import SingleStepConfig
from stcore.methods.squeeze import SqueezeConfig
from stcore.methods.squeeze_search import SqueezePair
from stcore.methods.standard import StandardConfig
from stcore.methods.trades import TradesConfig

__all__ = [
    "AWP",
    "RWP",
    "AdversarialConfig",
    "Agreement",
    "BatConfig",
    "Callback",
    "ClassWise",
    "CollaborativeConfig",
    "Corruptions",
    "EatConfig",
    "FastSqueezeConfig",
    "GairRstConfig",
    "GairatConfig",
    "Guided",
    "LoadedNetwork",
    "MartConfig",
    "Run",
    "SingleStepConfig",
    "Smoothing",
    "SqueezeConfig",
    "SqueezeLoss",
    "SqueezePair",
    "StandardConfig",
    "Targets",
    "TradesConfig",
    "TrainingLoss",
    "Union",
    "analyze",
    "attacks",
    "available_backends",
    "bracket",
    "evaluate",
    "find_squeeze_pair",
    "load",
    "make_classifier",
    "make_learner",
    "presets",
    "replay",
    "squeeze_loss",
    "squeeze_step",
    "train",
    "train_step",
    "training_loss",
]
