"""Published ways to mask gradients are caught, each with the attack that breaks it; sound networks pass.

The attack that the audit names leaves at least six of 32 images fewer than plain APGD-CE does.
"""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from harness import load
from masked_networks import DEFENCES, IMAGES, Defence, digits, network, silu, softplus, tanh, tools, trained

import stcore
from stcore.attacks.apgd import APGD
from stcore.attacks.bpda import bpda
from stcore.attacks.square import Square
from stcore.audit import CHECKS, QUICK, audit
from stcore.autoattack.cascade import Cascade
from stcore.autoattack.lanes import lanes_on
from stcore.autoattack.versions import Stage
from stcore.evaluation.evaluator import Evaluator

PAGE = Path(__file__).parents[1] / "docs" / "audit.md"
ATTACKS = {
    "square": ("--attacks square", "Square"),
    "apgd-dlr": ("--attacks apgd-dlr+apgd-t", "APGD-DLR"),
    "autoattack-rand": ("--attacks autoattack-rand", "AutoAttack's rand version (EOT)"),
    "bpda": ("--bpda LAYER", "BPDA"),
    "alone": ("--batch-size 1", "each image in a batch of its own"),
}
"""By name, the words in a finding that name the attack with its command, and the words of the page."""


def masked(backend, defence: Defence):
    return network(backend, defence.weights(), **defence.steps(tools(backend)))


@cache
def quickly(backend, name):
    """The findings of `stcore.evaluate`, by check."""
    _, test = digits()
    classifier = stcore.make_classifier(masked(backend, DEFENCES[name]))
    found = audit(
        classifier, test.images, test.labels, epsilon=DEFENCES[name].epsilon, batch_size=IMAGES, checks=QUICK
    )
    return {finding.check: finding for finding in found}


@pytest.mark.parametrize("name", DEFENCES)
def test_each_defence_is_caught_with_the_attack_that_breaks_it_and_the_layer_that_masks(backend, name):
    defence, found = DEFENCES[name], quickly(backend, name)
    warned = {check for check, finding in found.items() if finding.status == "warn"}
    assert set(defence.seen) <= warned
    command, _ = ATTACKS[defence.attack]
    assert any(command in found[check].meaning for check in defence.seen)
    if defence.layer:
        assert found["gradient of DLR"].value.endswith(f"lost in the layer {defence.layer}")


def steps_between(backend, before, after):
    """A model that rounds outside of its layers: what its one inner layer takes, or what it returns."""
    o, inner = tools(backend), network(backend, trained())
    rounded = lambda x: o.round(5 * x) / 5  # noqa: E731
    ways = (rounded if before else lambda x: x), (rounded if after else lambda z: z)
    if backend.name == "torch":
        import torch

        class Model(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = inner

            def forward(self, x):
                return ways[1](self.inner(ways[0](x)))

        return Model()
    import keras

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = inner

        def call(self, x, training=False):
            return ways[1](self.inner(ways[0](x)))

    model = Model()
    model(np.zeros((1, 8, 8, 1), "float32"))
    return model


@pytest.mark.parametrize("before", [True, False])
def test_a_step_outside_of_the_layers_is_said_to_be_between_them(backend, before):
    _, test = digits()
    model = steps_between(backend, before, not before)
    found = audit(stcore.make_classifier(model), test.images, test.labels, epsilon=0.15, checks=QUICK)
    (finding,) = (one for one in found if one.check == "gradient of DLR")
    inner = "inner" if backend.name == "torch" else model.inner.name
    place = f"before the layer {inner}" if before else f"behind the layer {inner}"
    assert finding.value.endswith(f"images have none, lost {place}, outside of any layer")


def test_an_operation_of_a_functional_model_is_a_layer():
    import keras

    load("keras")
    pixels = keras.Input((8, 8, 1))
    model = keras.Model(pixels, network(load("keras"), trained())(keras.ops.round(pixels)))
    names = [each.name for each in model.operations]
    (rounding,) = (name for name in names if name.startswith("round"))  # round_1, if it is not the first
    _, test = digits()
    found = audit(stcore.make_classifier(model), test.images, test.labels, epsilon=0.15, checks=QUICK)
    assert [one.value.rpartition(" ")[2] for one in found if one.check == "gradient of DLR"] == [rounding]


def test_taps_see_every_layer_and_leave_none_behind(backend):
    _, test = digits()
    classifier = stcore.make_classifier(network(backend, trained()))
    x, seen = classifier.images(test.images[:2]), []

    def doubled(layer, side, tensor):
        seen.append((layer, side))
        return 2 * tensor if (layer, side) == ("head", "output") else tensor

    before = classifier.eval_logits(x)
    with classifier.tapped(doubled):
        np.testing.assert_array_equal(classifier.eval_logits(x), 2 * before)
    np.testing.assert_array_equal(classifier.eval_logits(x), before)
    layers = ["flatten", "hidden0", "activation0", "head"]
    inner = [(layer, side) for layer in layers for side in ("input", "output")]
    assert [place for place in seen if place[0] in layers] == inner
    assert (seen[0], seen[-1]) == (("", "input"), ("", "output"))


def test_a_network_that_nothing_can_be_differentiated_of_has_gradients_of_zero():
    """Frozen and detached, in torch: no tensor of its forward knows of a gradient."""
    load("torch")
    import torch

    _, test = digits()
    model = network(load("torch"), trained(), before=lambda x: x.detach()).requires_grad_(False)
    scripted = torch.jit.trace(model, torch.zeros(2, 1, 8, 8))
    for each, place in ((model, ", lost in the layer before"), (scripted, "")):
        found = audit(stcore.make_classifier(each), test.images, test.labels, epsilon=0.15, checks=QUICK)
        (finding,) = (one for one in found if one.check == "gradient of DLR")
        assert finding.value == f"30 of 30 images have none{place}"


def test_the_documented_table_is_of_these_defences():
    table = [
        "| defence | published by, or the kind | the audit warns of | the attack that breaks it |",
        "|---|---|---|---|",
    ]
    for name, defence in DEFENCES.items():
        table.append(f"| {name} | {defence.source} | {', '.join(defence.seen)} | {ATTACKS[defence.attack][1]} |")
    assert "\n".join(table) in PAGE.read_text(), "\n".join(table)


# What attacks leave


def left(model, attack, epsilon, samples=1):
    """How many images withstand the attack, by most of `samples` answers."""
    _, test = digits()
    classifier = stcore.make_classifier(model)
    alone = attack == "alone"
    size = 1 if alone else IMAGES

    def classes(points):
        parts = (classifier.images(points[i : i + size]) for i in range(0, len(points), size))
        return np.concatenate([Evaluator(classifier, {}).classes(part) for part in parts])

    steps = APGD(epsilon, "dlr" if attack == "apgd-dlr" else "cross_entropy", 30)
    stage = {
        "square": Stage("square", Square(epsilon, queries=500)),
        "autoattack-rand": Stage("apgd-ce", APGD(epsilon, steps=20, samples=20), samples=20),
    }.get(attack, Stage("apgd-dlr" if attack == "apgd-dlr" else "apgd-ce", steps))
    images = (test.images / 255).astype(np.float32)
    parts = (classifier.images(images[i : i + size]) for i in range(0, IMAGES, size))
    logits = np.concatenate([Evaluator(classifier, {}).logits(part) for part in parts])
    cascade = Cascade(
        classifier,
        [stage],
        images,
        test.labels,
        logits,
        classes,
        batch_size=size,
        lanes=lanes_on(classifier),
    )
    while cascade.advance():
        pass
    if stage.samples > 1:  # it has taken such votes itself
        return int(cascade.records.robust.sum())
    for row, point in cascade.found.items():
        images[row] = point
    wrong = sum((classes(images) != test.labels).astype(int) for _ in range(samples))
    return int((2 * wrong <= samples).sum())


def both(backend, name):
    """What plain APGD-CE leaves, and what the attack that the audit names."""
    defence, samples = DEFENCES[name], 20 if DEFENCES[name].attack == "autoattack-rand" else 1
    plain = left(masked(backend, defence), "apgd-ce", defence.epsilon, samples)
    model = masked(backend, defence)
    if defence.attack != "bpda":
        return plain, left(model, defence.attack, defence.epsilon, samples)
    with bpda(model, [defence.layer or "before"]):
        return plain, left(model, "apgd-ce", defence.epsilon)


ON_KERAS = (
    ("keras", "saturated logits"),
    ("keras", "argmax layer"),
    pytest.param("keras", "quantised input", marks=pytest.mark.slow),  # nine seconds: Square's graphs are traced
    pytest.param("keras", "k winners take all", marks=pytest.mark.slow),  # eight, likewise
)
"""One for each kind of attack; test_cascade_random.py averages over forwards in less than a minute."""


@pytest.mark.parametrize(("framework", "name"), [*(("torch", name) for name in DEFENCES), *ON_KERAS])
def test_the_attack_that_is_named_breaks_the_defence(framework, name):
    plain, broken = both(load(framework), name)
    assert plain - broken >= 0.18 * IMAGES, f"APGD-CE leaves {plain} of {IMAGES}, {DEFENCES[name].attack} {broken}"


# Sound networks


def scaled(layers, factor, shift=0.0):
    """Weights for pixels (x − shift)·factor instead of x."""
    (w, b), *others = layers
    return [(w / factor, b + shift * w.sum(axis=0)), *others]


def louder(layers, factor):
    *others, (w, b) = layers
    return [*others, (factor * w, factor * b)]


SOUND = {
    "relu": lambda o: (trained(), {}),
    "silu": lambda o: (trained((64,), silu), {"activation": lambda a: a / (1 + o.exp(-a))}),
    "softplus": lambda o: (trained((64,), softplus), {"activation": o.softplus}),
    "tanh": lambda o: (trained((64,), tanh), {"activation": o.tanh}),
    "deep": lambda o: (trained((64, 64, 64)), {}),
    "linear": lambda o: (trained(()), {}),
    "adversarially trained": lambda o: (trained(adversarial=0.1), {}),
    "normalised input": lambda o: (scaled(trained(), 1 / 0.37, 0.3), {"before": lambda x: (x - 0.3) / 0.37}),
    "input in 0-255": lambda o: (scaled(trained(), 255.0), {"before": lambda x: x * 255}),
    "large logits": lambda o: (louder(trained(), 2.0), {}),
    "log-probabilities": lambda o: (trained(), {"after": o.log_softmax}),
    "ends in a scale": lambda o: (trained(), {"after": lambda z: 0.1 * z}),
}


def assert_sound(model, epsilon, checks):
    _, test = digits()
    found = audit(stcore.make_classifier(model), test.images, test.labels, epsilon=epsilon, checks=checks)
    assert [(one.check, one.value) for one in found if one.status == "warn"] == []
    assert "pass" in {one.status for one in found if one.check == "gradient explains the loss"}


@pytest.mark.parametrize("epsilon", [0.03, 0.15])
@pytest.mark.parametrize("name", SOUND)
def test_a_sound_network_raises_no_doubt(backend, name, epsilon):
    layers, steps = SOUND[name](tools(backend))
    assert_sound(network(backend, layers, **steps), epsilon, QUICK)


@pytest.mark.parametrize("name", [name for name in stcore.zoo.names() if name.startswith("digits")])
def test_the_networks_of_the_zoo_raise_no_doubt(backend, name):
    model = stcore.load(f"zoo:{name}", backend=backend.name).model
    for epsilon in (0.03, 0.15, 0.3):
        assert_sound(model, epsilon, QUICK)


def convolutional(normalise, activation, dtype):
    """Some steps of training make it a classifier whose running statistics are its images'."""
    import torch
    from torch import nn

    train, _ = digits()
    torch.manual_seed(0)
    model, channels = nn.Sequential(), 1
    for _ in range(3):
        model.extend(
            [nn.Conv2d(channels, 8, 3, padding=1), *([nn.BatchNorm2d(8)] if normalise else []), activation()]
        )
        channels = 8
    model.extend([nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 10)])
    x = torch.tensor(train.images.transpose(0, 3, 1, 2) / 255).float()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for rows in torch.randperm(len(x)).repeat(4).split(128):
        loss = nn.functional.cross_entropy(model(x[rows]), torch.tensor(train.labels)[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval().to(dtype)


@pytest.mark.parametrize("activation", ["ReLU", "GELU", "LeakyReLU"])
@pytest.mark.parametrize("normalise", [True, False])
def test_convolutions_with_and_without_batch_norms_raise_no_doubt(normalise, activation):
    load("torch")
    import torch

    assert_sound(convolutional(normalise, getattr(torch.nn, activation), torch.float32), 0.15, QUICK)


@pytest.mark.parametrize("name", ["relu", "adversarially trained", "tanh"])
def test_nor_do_attacks_on_a_sound_network(name):
    """The whole audit."""
    backend = load("torch")
    layers, steps = SOUND[name](tools(backend))
    assert_sound(network(backend, layers, **steps), 0.08, CHECKS)


def test_the_rounding_of_bfloat16_is_no_masking():
    load("torch")
    import torch

    _, test = digits()
    model = convolutional(True, torch.nn.ReLU, torch.bfloat16)
    found = audit(stcore.make_classifier(model), test.images, test.labels, epsilon=0.01, checks=QUICK)
    assert {one.status for one in found} == {"pass", "skipped"}
