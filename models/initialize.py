"""Initial weights, drawn in numpy so that both frameworks start from the same numbers.

The distributions are those of methods.md section 5; the description names the one of each layer.
"""

from math import prod, sqrt

import numpy as np
from numpy.typing import NDArray

from stcore.base.seeding import Stream, generator
from stcore.models.description import BatchNorm, Conv, Leaf, Linear, Node, join, leaf_shapes, leaves

Array = NDArray[np.float64]


def initial_weights(node: Node, seed: int) -> dict[str, Array]:
    """Initial weights of `node` in the canonical layout, float64; a pure function of `node` and `seed`.

    uniform_fan_in is torch's default U(−1/√fan_in, 1/√fan_in), for biases too; normal_fan_out is N(0, σ)
    with σ = √(2 / (kernel² · out_channels)); batch norm starts as the identity.
    Raises UsageError for a seed outside [0, 2^64).
    """
    rng = generator(seed, Stream.WEIGHTS)
    return {join(path, name): array for path, leaf in leaves(node) for name, array in _draw(leaf, rng).items()}


def _draw(leaf: Leaf, rng: np.random.Generator) -> dict[str, Array]:
    shapes = leaf_shapes(leaf)
    match leaf:
        case Conv(law="normal_fan_out"):
            deviation = sqrt(2 / (leaf.kernel**2 * leaf.out_channels))
            weights = {"weight": rng.normal(0.0, deviation, shapes["weight"])}
            return weights | {"bias": np.zeros(shapes["bias"])} if leaf.bias else weights
        case Conv() | Linear():
            bound = 1 / sqrt(prod(shapes["weight"][1:]))
            weights = {name: rng.uniform(-bound, bound, shape) for name, shape in shapes.items()}
            if isinstance(leaf, Linear) and leaf.bias_law == "zeros":
                weights["bias"] = np.zeros(shapes["bias"])
            return weights
        case BatchNorm():
            ones, zeros = ("weight", "running_var"), ("bias", "running_mean")
            return {n: np.ones(shapes[n]) for n in ones} | {n: np.zeros(shapes[n]) for n in zeros}
        case _:
            return {}
