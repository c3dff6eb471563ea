"""The networks: one description each, twins in torch and Keras, and the weight bridge between them.

Importing this imports no framework; `build` imports the one it is asked for.
"""

if __name__ != "stcore.models":
    raise ImportError("import this package as stcore.models, after 'pip install -e .' in the repository root")

from stcore.models.architectures import describe, known_names
from stcore.models.convert import export_weights, load_weights
from stcore.models.description import count_parameters
from stcore.models.factory import build

__all__ = ["build", "count_parameters", "describe", "export_weights", "known_names", "load_weights"]
