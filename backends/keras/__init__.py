"""The Keras 3 backend, on TensorFlow or JAX as KERAS_BACKEND selects."""

if __name__ != "stcore.backends.keras":
    raise ImportError(
        "import this package as stcore.backends.keras, after 'pip install -e .' in the repository root"
    )

from stcore.backends.keras.bpda import bpda, named_layers
from stcore.backends.keras.callbacks import RobustEvaluation
from stcore.backends.keras.engine import native
from stcore.backends.keras.fit import SqueezeModel
from stcore.backends.keras.layers import read_layers
from stcore.backends.keras.learner import KerasClassifier as make_classifier
from stcore.backends.keras.learner import KerasLearner as make_learner
from stcore.backends.keras.learner import build, check_range
from stcore.backends.keras.optimizers import TorchAdamW, TorchSGD, make_optimizer, rate_of
from stcore.backends.keras.precision import evaluating, in_precision
from stcore.backends.keras.resident import free_memory
from stcore.backends.keras.training import join_ranks, prepare_training

devices, use_device, use_replicas = native.devices, native.use_device, native.use_replicas
threads, use_threads, use_determinism = native.threads, native.use_threads, native.use_determinism
versions = native.versions

__all__ = [
    "RobustEvaluation",
    "SqueezeModel",
    "TorchAdamW",
    "TorchSGD",
    "bpda",
    "build",
    "check_range",
    "devices",
    "evaluating",
    "free_memory",
    "in_precision",
    "join_ranks",
    "make_classifier",
    "make_learner",
    "make_optimizer",
    "named_layers",
    "prepare_training",
    "rate_of",
    "read_layers",
    "threads",
    "use_determinism",
    "use_device",
    "use_replicas",
    "use_threads",
    "versions",
]
