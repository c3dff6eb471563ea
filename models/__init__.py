"""Networks: one description each, built in torch or Keras with the same weights.

Also builds third-party networks by name: of timm, of keras.applications, or from a factory of the user.
Importing this package imports no framework; `build` imports the one it needs.
"""

if __name__ != "stcore.models":
    raise ImportError("import this package as stcore.models, after 'pip install -e .' in the repository root")

from stcore.models import normalization
from stcore.models.architectures import describe, known_names
from stcore.models.convert import export_weights, load_weights, trainable_weights
from stcore.models.description import count_parameters
from stcore.models.factory import build, pretrained_normalization
from stcore.models.heads import with_new_head
from stcore.models.origin import (
    LIBRARIES,
    MODELS,
    check_name,
    check_weights,
    is_factory,
    is_given,
    is_third_party,
    name_of,
)

__all__ = [
    "LIBRARIES",
    "MODELS",
    "build",
    "check_name",
    "check_weights",
    "count_parameters",
    "describe",
    "export_weights",
    "is_factory",
    "is_given",
    "is_third_party",
    "known_names",
    "load_weights",
    "name_of",
    "normalization",
    "pretrained_normalization",
    "trainable_weights",
    "with_new_head",
]
