"""Published defences that mask gradients, built small around one trained network, on both frameworks.

Each is stated once, over the few operations of `tools`, as what is done to the pixels, in place of the activation
or to the logits. Pixels are flat, (B, 64): eight rows of eight.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from types import SimpleNamespace

import numpy as np

import stcore

IMAGES = 32
"""The number of test images under attack."""


@cache
def digits():
    splits = stcore.data.load("digits")
    return splits.train, splits.test.head(IMAGES)


def pixels():
    train, _ = digits()
    return train.images.reshape(len(train), -1) / 255


# Networks without a defence: perceptrons, trained by Adam in numpy in a second


def relu(a):
    return a * (a > 0), 1.0 * (a > 0)


def silu(a):
    gate = 1 / (1 + np.exp(-a))
    return a * gate, gate * (1 + a * (1 - gate))


def softplus(a):
    return np.logaddexp(0, a), 1 / (1 + np.exp(-a))


def tanh(a):
    return np.tanh(a), 1 - np.tanh(a) ** 2


def winners(a):
    """The twenty largest activations of an image."""
    kept = 1.0 * (a >= np.partition(a, -20, axis=1)[:, -20:-19])
    return a * kept, kept


def unchanged(x, random):
    return x


def moved(x, random):
    """Images resized to 8, 9 or 10 pixels and padded to 10×10, which the network is trained to expect."""
    stack = placements()
    return np.einsum("bi,bij->bj", x, stack[random.integers(len(stack), size=len(x))])


@cache
def trained(hidden=(64,), activation=relu, seen=unchanged, epochs=25, rate=0.01, adversarial=0.0):
    """Weights [(W, b), …] of a perceptron for the digits.   seen: what is done to the images in training."""
    random, (train, _) = np.random.default_rng(0), digits()
    x, y = pixels(), np.eye(10)[train.labels]
    sizes = (seen(x[:1], random).shape[1], *hidden, 10)
    layers = [[random.normal(0, 0.6 / np.sqrt(i), (i, j)), np.zeros(j)] for i, j in pairwise(sizes)]
    moments = [[(0 * p, 0 * p) for p in layer] for layer in layers]
    steps = 0

    def gradients(x, y):
        inputs, slopes = [x], []
        for w, b in layers[:-1]:
            h, slope = activation(inputs[-1] @ w + b)
            inputs.append(h)
            slopes.append(slope)
        z = inputs[-1] @ layers[-1][0] + layers[-1][1]
        p = np.exp(z - z.max(axis=1, keepdims=True))
        back, found = (p / p.sum(axis=1, keepdims=True) - y) / len(y), []
        for k in reversed(range(len(layers))):
            found.append([inputs[k].T @ back + 1e-4 * layers[k][0], back.sum(axis=0)])
            back = back @ layers[k][0].T
            back = back * slopes[k - 1] if k else back
        return back, found[::-1]

    for _ in range(epochs):
        order = random.permutation(len(x))
        for rows in np.array_split(order, len(x) // 128):
            batch = seen(x[rows], random)
            if adversarial:
                batch = np.clip(batch + adversarial * np.sign(gradients(batch, y[rows])[0]), 0, 1)
            steps += 1
            for layer, moment, found in zip(layers, moments, gradients(batch, y[rows])[1], strict=True):
                for i, g in enumerate(found):
                    mean, square = moment[i]
                    mean, square = 0.9 * mean + 0.1 * g, 0.99 * square + 0.01 * g**2
                    moment[i] = mean, square
                    layer[i] -= rate * (mean / (1 - 0.9**steps)) / (np.sqrt(square / (1 - 0.99**steps)) + 1e-8)
    return layers


# The two frameworks


def tools(backend):
    """The operations in which the defences are written."""
    if backend.name == "torch":
        import torch

        generator = torch.Generator().manual_seed(0)
        t = lambda a: torch.as_tensor(np.asarray(a), dtype=torch.float32)  # noqa: E731
        return SimpleNamespace(
            constant=t,
            flat=lambda x: x.flatten(1),
            round=torch.round,
            sin=torch.sin,
            tanh=torch.tanh,
            exp=torch.exp,
            sign=torch.sign,
            abs=torch.abs,
            clip=torch.clamp,
            softmax=lambda z: torch.softmax(z, 1),
            log_softmax=lambda z: torch.log_softmax(z, 1),
            softplus=torch.nn.functional.softplus,
            where=lambda condition, a, b: torch.where(condition, a, b),
            flag=lambda condition: condition.float(),
            cut=lambda x: x.detach(),
            sum=lambda x: x.sum(1, keepdim=True),
            kth=lambda a, k: a.topk(k, 1).values[:, -1:],
            median=lambda x: x.median(-1).values,
            reshape=lambda x, *shape: x.reshape(-1, *shape),
            swapped=lambda x: x.T,
            concat=lambda xs: torch.cat(xs, 1),
            hottest=lambda z: torch.nn.functional.one_hot(z.argmax(1), 10).float(),
            uniform=lambda like: torch.rand(like.shape, generator=generator),
            normal=lambda like: torch.randn(like.shape, generator=generator),
            choose=lambda stack: t(stack)[torch.randint(len(stack), (), generator=generator)],
        )
    import keras
    from keras import ops

    seeds = keras.random.SeedGenerator(0)
    t = lambda a: ops.convert_to_tensor(np.asarray(a, "float32"))  # noqa: E731
    return SimpleNamespace(
        constant=t,
        flat=lambda x: ops.reshape(x, (-1, 64)),
        round=ops.round,
        sin=ops.sin,
        tanh=ops.tanh,
        exp=ops.exp,
        sign=ops.sign,
        abs=ops.abs,
        clip=ops.clip,
        softmax=ops.softmax,
        log_softmax=ops.log_softmax,
        softplus=ops.softplus,
        where=ops.where,
        flag=lambda condition: ops.cast(condition, "float32"),
        cut=ops.stop_gradient,
        sum=lambda x: ops.sum(x, axis=1, keepdims=True),
        kth=lambda a, k: ops.top_k(a, k)[0][:, -1:],
        median=lambda x: ops.sort(x, axis=-1)[..., x.shape[-1] // 2],
        reshape=lambda x, *shape: ops.reshape(x, (-1, *shape)),
        swapped=ops.transpose,
        concat=lambda xs: ops.concatenate(xs, axis=1),
        hottest=lambda z: ops.one_hot(ops.argmax(z, axis=-1), 10, dtype="float32"),
        uniform=lambda like: keras.random.uniform(ops.shape(like), seed=seeds),
        normal=lambda like: keras.random.normal(ops.shape(like), seed=seeds),
        choose=lambda stack: ops.take(t(stack), keras.random.randint((), 0, len(stack), seed=seeds), axis=0),
    )


def network(backend, layers, **steps):
    """A perceptron with these weights; steps: functions `before` it, as its `activation` and `after` it."""
    o = tools(backend)
    named = [("flatten", o.flat), *((name, steps[name]) for name in ("before",) if name in steps)]
    activation = steps.get("activation", lambda a: o.where(a > 0, a, 0 * a))
    for k, weights in enumerate(layers[:-1]):
        named += [(f"hidden{k}", weights), (f"activation{k}", activation)]
    named += [("head", layers[-1]), *((name, steps[name]) for name in ("after",) if name in steps)]
    if backend.name == "torch":
        import torch

        class Step(torch.nn.Module):
            def __init__(self, function):
                super().__init__()
                self.function = function

            def forward(self, x):
                return self.function(x)

        def dense(w, b):
            made = torch.nn.Linear(*w.shape)
            with torch.no_grad():
                made.weight.copy_(torch.tensor(w.T))
                made.bias.copy_(torch.tensor(b))
            return made

        model = torch.nn.Sequential()
        for name, part in named:
            model.add_module(name, Step(part) if callable(part) else dense(*part))
        return model.eval()
    import keras

    class Step(keras.layers.Layer):
        def __init__(self, function, name):
            super().__init__(name=name)
            self.function = function

        def call(self, x):
            return self.function(x)

    parts = [
        Step(part, name) if callable(part) else keras.layers.Dense(len(part[1]), name=name) for name, part in named
    ]
    model = keras.Sequential([keras.Input((8, 8, 1)), *parts])
    for layer, (_, part) in zip(parts, named, strict=True):
        if not callable(part):
            layer.set_weights(part)
    return model


# The defences


@dataclass(frozen=True)
class Defence:
    """A way to mask a network.

    steps: of `network`, from `tools`.   seen: the checks that warn, among others.   attack: breaks it.
    source: who published it, or the kind.   weights: of the network inside.   layer: where the gradient is lost.
    epsilon: at which the attack breaks it.
    """

    steps: Callable
    seen: tuple[str, ...]
    attack: str
    source: str
    weights: Callable = trained
    layer: str = ""
    epsilon: float = 0.15


LOST = ("gradient of cross-entropy", "gradient of DLR", "gradient explains the loss")
RANDOM = ("same answer each time",)
JUMPS = ("gradient explains the loss",)


def thermometer(o):
    """Ten bits for each pixel: above 0.05, 0.15, …"""
    levels = o.constant(np.arange(0.05, 1, 0.1))
    return lambda x: o.reshape(o.flag(o.reshape(x, 64, 1) > levels), 640)


def ten_times():
    """Weights that take the mean of a pixel's ten bits."""
    (w, b), *others = trained()
    return [(np.repeat(w, 10, axis=0) / 10, b), *others]


@cache
def placements():
    """(n, 64, 100): for each size and place, the matrix from pixels to the resized, padded image."""
    found = []
    for size in (8, 9, 10):
        rows = np.arange(size) * 8 // size
        for top in range(11 - size):
            for left in range(11 - size):
                matrix = np.zeros((64, 100))
                for i, row in enumerate(rows):
                    for j, column in enumerate(rows):
                        matrix[8 * row + column, 10 * (top + i) + left + j] = 1
                found.append(matrix)
    return np.array(found)


def pruned(o, draws=20):
    """Keeps each activation with a probability that grows with it, and rescales those that are kept."""

    def step(a):
        h = o.where(a > 0, a, 0 * a)
        share = h / (o.sum(h) + 1e-12)
        kept = 1 - o.exp(draws * -share)  # of `draws` draws at least one; (1 − p)ⁿ for small p
        return h * o.flag(o.uniform(h) < kept) / (kept + 1e-12)

    return step


def dropped(o, rate=0.5):
    def step(a):
        return o.where(a > 0, a, 0 * a) * o.flag(o.uniform(a) > rate) / (1 - rate)

    return step


def sparsified(o):
    """Pixels, the activations of layer zero, within 0.8 standard deviations of their mean become that mean."""
    mean, deviation = o.constant(pixels().mean(axis=0)), o.constant(pixels().std(axis=0))
    return lambda x: o.where(o.abs(x - mean) < 0.8 * deviation, mean + 0 * x, x)


def voting(o):
    """An image gets the answer of those images in its batch whose answers are like its own; alone, its own."""

    def step(z):
        own = o.softmax(z)
        like = o.cut(own @ o.swapped(own))
        others = like * (1 - o.flag(like >= o.kth(like, 1)))
        total = o.sum(others)
        return o.where(total > 0, o.cut((others @ z) / (total + 1e-9)), z)

    return step


def median(o):
    """Of 3×3 pixels, as a library outside of the framework computes it."""
    at = np.arange(64).reshape(8, 8)
    around = np.pad(at, 1, mode="edge")
    windows = np.stack([around[i : i + 8, j : j + 8].ravel() for i in range(3) for j in range(3)], axis=1)
    gather = o.constant(np.eye(64)[:, windows.ravel()])
    return lambda x: o.cut(o.median(o.reshape(x @ gather, 64, 9)))


def compressed(o):
    """JPEG of one block: the cosine transform, rounded."""
    k, n = np.mgrid[:8, :8]
    cosine = np.cos(np.pi * (2 * n + 1) * k / 16) * np.where(k == 0, np.sqrt(1 / 8), 0.5)
    there = np.kron(cosine, cosine).T
    forth, back = o.constant(there), o.constant(there.T)
    return lambda x: 0.4 * (o.round((x @ forth) / 0.4) @ back)


def partly(o):
    """Passes on no gradient to the upper half of the image."""
    upper = o.constant(np.arange(64) < 32)
    return lambda x: upper * o.cut(x) + (1 - upper) * x


DEFENCES = {
    "quantised input": Defence(
        lambda o: {"before": lambda x: o.round(7 * x) / 7}, LOST, "square", "Xu et al., 2018", layer="before"
    ),
    "thermometer encoding": Defence(
        lambda o: {"before": thermometer(o)}, LOST, "square", "Buckman et al., 2018", ten_times, "before"
    ),
    "JPEG": Defence(lambda o: {"before": compressed(o)}, LOST, "square", "Guo et al., 2018", layer="before"),
    "median filter": Defence(lambda o: {"before": median(o)}, LOST, "square", "Xu et al., 2018", layer="before"),
    "detached input": Defence(
        lambda o: {"before": o.cut}, LOST, "bpda", "`detach`, `stop_gradient`", layer="before"
    ),
    "binarised activations": Defence(
        lambda o: {"activation": o.sign}, LOST, "square", "Galloway et al., 2018", layer="activation0"
    ),
    "random resizing and padding": Defence(
        lambda o: {"before": lambda x: x @ o.choose(placements())},
        RANDOM,
        "autoattack-rand",
        "Xie et al., 2018",
        lambda: trained((128,), relu, moved, 40),
        epsilon=0.1,
    ),
    "stochastic activation pruning": Defence(
        lambda o: {"activation": pruned(o)}, RANDOM, "autoattack-rand", "Dhillon et al., 2018", epsilon=0.1
    ),
    "dropout in evaluation": Defence(
        lambda o: {"activation": dropped(o)}, RANDOM, "autoattack-rand", "Feinman et al., 2017", epsilon=0.12
    ),
    "k winners take all": Defence(
        lambda o: {"activation": lambda a: a * o.flag(a >= o.kth(a, 20))},
        JUMPS,
        "square",
        "Xiao et al., 2020",
        lambda: trained((256, 256), winners, epochs=6, rate=0.003),
        epsilon=0.12,
    ),
    "mean-sparsified activations": Defence(
        lambda o: {"before": sparsified(o)}, JUMPS, "square", "Amini et al., 2024"
    ),
    "shattered gradients": Defence(
        lambda o: {"before": lambda x: x + 0.02 * o.sin(5000 * x)}, JUMPS, "square", "Athalye et al., 2018"
    ),
    "another gradient": Defence(
        lambda o: {"before": lambda x: 2 * o.cut(x) - x}, JUMPS, "bpda", "a gradient of the wrong sign"
    ),
    "half a gradient": Defence(lambda o: {"before": partly(o)}, JUMPS, "bpda", "one of two paths detached"),
    "saturated logits": Defence(
        lambda o: {"after": lambda z: 1000 * z},
        ("gradient of cross-entropy",),
        "apgd-dlr",
        "Carlini and Wagner, 2017",
    ),
    "defensive distillation": Defence(
        lambda o: {},
        ("gradient of cross-entropy",),
        "apgd-dlr",
        "Papernot et al., 2016",
        lambda: [*trained()[:-1], [100 * part for part in trained()[-1]]],  # fits at T = 100 what others do at 1
    ),
    "rescaled logits": Defence(
        lambda o: {"after": lambda z: 1e-6 * z},
        ("logits that differ",),
        "apgd-dlr",
        "a temperature of a million",
        epsilon=0.13,
    ),
    "squashed logits": Defence(
        lambda o: {"after": o.tanh}, ("graded logits",), "apgd-dlr", "a tanh or sigmoid at the end"
    ),
    "clipped logits": Defence(
        lambda o: {"after": lambda z: o.clip(z, -0.5, 0.5)}, ("graded logits",), "square", "a clip at the end"
    ),
    "rounded logits": Defence(
        lambda o: {"after": lambda z: o.round(10 * z) / 10}, LOST, "square", "decimals cut off", layer="after"
    ),
    "argmax layer": Defence(
        lambda o: {"after": o.hottest}, ("graded logits", *LOST[:2]), "bpda", "labels alone", layer="after"
    ),
    "votes of the batch": Defence(
        lambda o: {"after": voting(o)}, ("each image by itself",), "alone", "transductive defences"
    ),
}
