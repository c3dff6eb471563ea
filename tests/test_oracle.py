"""Training steps against an independent one, which sees what the backends get wrong alike: they share the core."""

from dataclasses import replace

import numpy as np
import oracle
import pytest
from harness import assert_close, load, problem, worst
from rows import ROWS, found, noise

import stcore
from stcore import AWP, RWP, SqueezeConfig
from stcore.core.entry import check_batch
from stcore.core.objective import bounds_of, training_step
from stcore.methods import METHODS
from stcore.protocols import Mode

TOLERANCE = 1e-10


# --- Squeeze training, step by step, against plain PyTorch ---


def torch_network():
    import torch
    from torch import nn

    class Masks(nn.Module):
        """Dropout by the oracle's masks, which counts."""

        drawn = 0

        def forward(self, hidden):
            if not self.training:
                return hidden
            self.drawn += 1
            return hidden * torch.tensor(oracle.mask(self.drawn - 1, len(hidden)))

    masks = Masks()
    model = nn.Sequential(
        nn.Linear(oracle.FEATURES, oracle.HIDDEN),
        nn.BatchNorm1d(oracle.HIDDEN),
        nn.ReLU(),
        masks,
        nn.Linear(oracle.HIDDEN, oracle.CLASSES),
    ).double()
    model.load_state_dict({n: torch.tensor(a) for n, a in oracle.weights().items()}, strict=False)
    statistics = lambda: {f"1.{n}": b.numpy() for n, b in model[1].named_buffers() if "running" in n}  # noqa: E731
    parameters = lambda: {n: p.detach().numpy() for n, p in model.named_parameters()}  # noqa: E731
    return model, masks, lambda: parameters() | statistics()


def keras_network():
    import keras

    from stcore.models.keras_layers import TorchBatchNormalization

    class Masks(keras.layers.Layer):
        """Dropout by the oracle's masks, which counts; what shows that it draws is what shows it of Keras' own."""

        def __init__(self):
            super().__init__(dtype="float64")
            self.rate, self.seed_generator, self.drawn = 1 - oracle.KEEP, keras.random.SeedGenerator(0), 0

        def call(self, hidden, training=None):
            if not training or not self.rate or isinstance(hidden, keras.KerasTensor):
                return hidden
            self.seed_generator.next()
            self.drawn += 1
            return hidden * keras.ops.convert_to_tensor(oracle.mask(self.drawn - 1, len(hidden)))

    pixels, masks = keras.Input((oracle.FEATURES,), dtype="float64"), Masks()
    first, last = (keras.layers.Dense(n, dtype="float64") for n in (oracle.HIDDEN, oracle.CLASSES))
    normalisation = TorchBatchNormalization(dtype="float64")
    model = keras.Model(pixels, last(masks(keras.ops.relu(normalisation(first(pixels))))))
    weights = oracle.weights()
    first.set_weights([weights["0.weight"].T, weights["0.bias"]])
    last.set_weights([weights["4.weight"].T, weights["4.bias"]])
    normalisation.gamma.assign(weights["1.weight"])
    normalisation.beta.assign(weights["1.bias"])
    variables = {
        "0.weight": first.kernel,
        "0.bias": first.bias,
        "1.weight": normalisation.gamma,
        "1.bias": normalisation.beta,
        "4.weight": last.kernel,
        "4.bias": last.bias,
        "1.running_mean": normalisation.moving_mean,
        "1.running_var": normalisation.moving_variance,
    }
    return model, masks, lambda: {n: np.array(v.value).T for n, v in variables.items()}


NETWORKS = {"torch": torch_network, "keras": keras_network}
K = SqueezeConfig().steps


def trained(backend, config, change=None, batches=oracle.batches, phase=0):
    """The losses of three steps, the state after them, and how often dropout drew.

    change: a forward's number within the step (from 0), its mode and dropout → the mode and dropout it is made in.
    """
    model, masks, state = NETWORKS[backend.name]()
    learner, losses = backend.learner(model), []
    images, labels, _ = next(iter(batches()))
    check_batch(learner, learner, backend.tensor(images), backend.tensor(labels), bounds_of(config), training=True)
    masks.drawn = 0  # of the checks of a new model, whose draws leave no trace in a generator
    logits, numbers = learner.logits, iter(())

    def changed(x, mode, *, dropout=False):
        mode, dropout = change(next(numbers), mode, dropout)
        return logits(x, mode, dropout=dropout)

    if change is not None:
        learner.logits = changed
    for x, y, pair in batches():
        numbers = iter(range(1 + 2 * K + 3))
        given = tuple(map(backend.tensor, pair))
        result = stcore.train_step(learner, config, backend.tensor(x), backend.tensor(y), noise=given, phase=phase)
        losses.append(float(backend.array(result.loss)))
    return losses, state(), masks.drawn


def by_hand():
    network = oracle.Oracle()
    losses = [network.step(*batch) for batch in oracle.batches()]
    return losses, network


def test_three_steps_are_those_of_an_independent_implementation(backend):
    """Losses, weights and running statistics, in float64: statistics move twice a step, dropout draws thrice."""
    losses, network = by_hand()
    ours, state, drawn = trained(backend, SqueezeConfig())
    np.testing.assert_allclose(ours, losses, rtol=TOLERANCE, atol=0)
    assert_close(state, network.state(), TOLERANCE)
    assert (network.written, network.dropped, drawn) == (6, 9, 9)


COLLABORATIVE, NATURAL, ADVERSARIAL = range(1 + 2 * K, 1 + 2 * K + 3)
ELSEWISE = {
    "the collaborative forward writes": lambda n, mode, on: (Mode.TRAIN if n == COLLABORATIVE else mode, on),
    "the natural forward writes nothing": lambda n, mode, on: (Mode.BATCH if n == NATURAL else mode, on),
    "the adversarial forward writes nothing": lambda n, mode, on: (Mode.BATCH if n == ADVERSARIAL else mode, on),
    "collaborative without dropout": lambda n, mode, on: (mode, on and n != COLLABORATIVE),
    "natural without dropout": lambda n, mode, on: (mode, on and n != NATURAL),
    "adversarial without dropout": lambda n, mode, on: (mode, on and n != ADVERSARIAL),
    "the search writes": lambda n, mode, on: (Mode.TRAIN if n == 0 else mode, on),
    "the search drops": lambda n, mode, on: (mode, on or n == 0),
    "the search by running statistics": lambda n, mode, on: (Mode.EVAL if n < COLLABORATIVE else mode, on),
}


@pytest.mark.parametrize("change", ELSEWISE.values(), ids=ELSEWISE)
def test_the_independent_implementation_tells_other_forwards_apart(change):
    """What the comparison above is worth."""
    _, network = by_hand()
    _, state, _ = trained(load("torch"), SqueezeConfig(), change)
    assert max(worst(state[name], value) for name, value in network.state().items()) > 1e-3


# --- Every method: the forwards of one whole step, as a literal table ---

# A forward is what goes in, the mode and dropout: x natural, s an iterate of the search, a b c the examples found,
# m a point between; E running statistics, B the batch's, T the batch's and written; + with dropout, - without.
FORWARDS = {  # of a search of two steps
    "st": "xB- sB- sB- sB- sB- cB+ xT+ aT+",
    "standard": "xT+",
    "at": "sE- sE- aT+",
    "at2": "sE- sE- sE- sE- aT+ bT+",
    "trades": "xE- sE- sE- xT+ aT+ xT+",
    "trades sharing natural": "xE- sE- sE- xT+ aT+",
    "trades adversarial first": "xE- sE- sE- aT+ xT+ xT+",
    "trades as in rst": "xE- sE- sE- aT+ xT+",
    "trades2": "xE- sE- sE- sE- sE- xT+ aT+ bT+ xT+",
    "mart": "sE- sE- xT+ aT+",
    "mart2": "sE- sE- sE- sE- xT+ aT+ bT+",
    "collaborative": "sE- sE- xT+ cT+",
    "gairat": "sE- sE- aT+",
    "gairat before its weights": "sE- sE- aT+",
    "gair-rst": "xE- sE- sE- sE- sE- aT+ bT+ xT+",
    "gair-rst before its weights": "xE- sE- sE- aT+ xT+",
    "bat": "sE- sE- xT+ mT+ aT+",
    "bat in three strides up the kl": "xE- sE- sE- xT+ mT+ mT+ aT+",
    "e-at": "xE- sE- sE- aT+",
    "fast-st": "bB- sB- bT+ aT+",
    "fast-st of the image": "bB- sB- bB+ xT+ aT+",
    "fast-st by descent": "sB- sB- bB+ xT+ aT+",
    "fast-st by descent from the start": "cB- sB- bB+ cT+ aT+",
    "n-fgsm": "sT- sT- aT+",
    "fgsm": "xE- sE- aT+",
    "fgsm-rs": "sT- sT- aT+",
    "fgsm-consistency": "bT- sT- aT+ bT+",
}
LETTERS = {"st": "ac", "collaborative": "c", "fast-st by descent from the start": "abc"}
"""What the examples are called, in their order, if not a and b."""
PERTURBED = {
    "st": (AWP(), "xB- sB- sB- sB- sB- cB+ xB+ aB+ cB+ xT+ aT+"),
    "at": (AWP(), "sE- sE- aB+ aT+"),
    "trades": (RWP(steps=2), "xE- sE- sE- xB+ aB+ xB+ xB+ aB+ xB+ xT+ aT+ xT+"),
    "standard": (RWP(steps=3), "xB+ xB+ xB+ xT+"),
}


def forwards(backend, name, perturbation=None):
    """The forwards of one training step, written as in the table."""
    objective = ROWS[name] if name == "standard" else replace(ROWS[name], steps=2)
    data, phase = problem(), objective.phase(1)
    batch, learner = backend.batch(data), backend.learner(backend.build("tiny"))
    drawn = tuple(backend.images(one) for one in noise(objective, data.x.shape))
    examples = found(backend, learner.model, objective, data)
    images = [e for e in examples or () if len(e.shape) == 4]
    called = [("x", batch.x), *zip(LETTERS.get(name, "ab"), images, strict=False)]
    known = [(letter, backend.array(one)) for letter, one in called]
    seen, logits = [], learner.logits

    def noted(x, mode, *, dropout=False):
        point = backend.array(x)
        between = "m" if dropout else "s"
        letter = next((letter for letter, one in known if np.array_equal(point, one)), between)
        seen.append(letter + {Mode.EVAL: "E", Mode.BATCH: "B", Mode.TRAIN: "T"}[mode] + "-+"[dropout])
        return logits(x, mode, dropout=dropout)

    learner.logits = noted
    training_step(learner, objective, batch.x, batch.y, drawn, phase, perturbation)
    return " ".join(seen)


@pytest.mark.parametrize("name", FORWARDS)
def test_the_forwards_of_a_step(backend, name):
    assert forwards(backend, name) == FORWARDS[name]


@pytest.mark.parametrize("name", PERTURBED)
def test_the_forwards_of_a_step_at_perturbed_weights(backend, name):
    """The direction is found by the outer forwards, but writes nothing; the examples are found once, before it."""
    perturbation, expected = PERTURBED[name]
    assert forwards(backend, name, perturbation) == expected


def test_every_method_has_its_forwards():
    assert {type(ROWS[name]) for name in FORWARDS} == {method.config for method in METHODS.values()}
