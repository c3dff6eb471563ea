"""The Keras 3 backend, on TensorFlow."""

if __name__ != "stcore.backends.keras":
    raise ImportError(
        "import this package as stcore.backends.keras, after 'pip install -e .' in the repository root"
    )

from stcore.backends.keras.learner import KerasClassifier as make_classifier
from stcore.backends.keras.learner import KerasLearner as make_learner
from stcore.backends.keras.sgd import TorchSGD

__all__ = ["TorchSGD", "make_classifier", "make_learner"]
