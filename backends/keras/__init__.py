"""The Keras 3 backend, on TensorFlow."""

if __name__ != "stcore.backends.keras":
    raise ImportError(
        "import this package as stcore.backends.keras, after 'pip install -e .' in the repository root"
    )

import keras

from stcore.errors import UsageError

if keras.backend.backend() != "tensorflow":
    raise UsageError(
        f"backend keras: expected Keras on tensorflow; received {keras.backend.backend()}. "
        "Set KERAS_BACKEND=tensorflow before Keras is imported"
    )

from stcore.backends.keras.callbacks import RobustEvaluation
from stcore.backends.keras.fit import SqueezeModel
from stcore.backends.keras.learner import KerasClassifier as make_classifier
from stcore.backends.keras.learner import KerasLearner as make_learner
from stcore.backends.keras.sgd import TorchSGD
from stcore.backends.keras.tensorflow import (
    devices,
    threads,
    use_determinism,
    use_device,
    use_threads,
    versions,
)
from stcore.backends.keras.training import make_sgd, prepare_training

__all__ = [
    "RobustEvaluation",
    "SqueezeModel",
    "TorchSGD",
    "devices",
    "make_classifier",
    "make_learner",
    "make_sgd",
    "prepare_training",
    "threads",
    "use_determinism",
    "use_device",
    "use_threads",
    "versions",
]
