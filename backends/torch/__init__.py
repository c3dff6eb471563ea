"""The PyTorch backend."""

if __name__ != "stcore.backends.torch":
    raise ImportError(
        "import this package as stcore.backends.torch, after 'pip install -e .' in the repository root"
    )

from stcore.backends.torch.bpda import bpda, named_layers
from stcore.backends.torch.captured import CapturedSearch
from stcore.backends.torch.devices import (
    devices,
    threads,
    use_determinism,
    use_device,
    use_threads,
    versions,
)
from stcore.backends.torch.layers import read_layers
from stcore.backends.torch.learner import TorchClassifier as make_classifier
from stcore.backends.torch.learner import TorchLearner as make_learner
from stcore.backends.torch.optimizers import make_optimizer, rate_of
from stcore.backends.torch.precision import evaluating, in_precision
from stcore.backends.torch.ranks import join_ranks, synchronised
from stcore.backends.torch.resident import free_memory
from stcore.backends.torch.training import prepare_training

__all__ = [
    "CapturedSearch",
    "bpda",
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
    "synchronised",
    "threads",
    "use_determinism",
    "use_device",
    "use_threads",
    "versions",
]
