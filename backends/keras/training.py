"""What a training run needs of Keras beside the learner."""

from __future__ import annotations

from typing import Any

from stcore.backends.keras.learner import KerasLearner
from stcore.backends.keras.sgd import TorchSGD


def make_sgd(model: Any, learning_rate: float, momentum: float, weight_decay: float, nesterov: bool) -> TorchSGD:
    """SGD with coupled weight decay on every tensor, as the paper's recipes use it."""
    return TorchSGD(learning_rate, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov)


def prepare_training(learner: KerasLearner, choice: str) -> KerasLearner:
    """`on` and `auto` run each whole step in one `tf.function`; `off` stays eager."""
    learner.compiled = choice != "off"
    return learner
