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


def test_the_documented_table_is_of_these_defences():
    table = [
        "| defence | published by, or the kind | the audit warns of | the attack that breaks it |",
        "|---|---|---|---|",
    ]
    for name, defence in DEFENCES.items():
        table.append(f"| {name} | {defence.source} | {', '.join(defence.seen)} | {ATTACKS[defence.attack][1]} |")
    assert "\n".join(table) in PAGE.read_text(), "\n".join(table)


# What attacks leave


def left(model, attack, epsilon, *, stand_in=None, samples=1):
    """How many images withstand the attack on the stand-in, by the model's own answers, of most of `samples`."""
    _, test = digits()
    classifier = stcore.make_classifier(model)
    target = stcore.make_classifier(stand_in) if stand_in is not None else classifier
    alone = attack == "alone"
    size = 1 if alone else IMAGES

    def classes(of, points):
        parts = (of.images(points[i : i + size]) for i in range(0, len(points), size))
        return np.concatenate([Evaluator(of, {}).classes(part) for part in parts])

    steps = APGD(epsilon, "dlr" if attack == "apgd-dlr" else "cross_entropy", 30)
    stage = {
        "square": Stage("square", Square(epsilon, queries=500)),
        "autoattack-rand": Stage("apgd-ce", APGD(epsilon, steps=20, samples=20), samples=20),
    }.get(attack, Stage("apgd-dlr" if attack == "apgd-dlr" else "apgd-ce", steps))
    images = (test.images / 255).astype(np.float32)
    parts = (target.images(images[i : i + size]) for i in range(0, IMAGES, size))
    logits = np.concatenate([Evaluator(target, {}).logits(part) for part in parts])
    cascade = Cascade(
        target,
        [stage],
        images,
        test.labels,
        logits,
        lambda points: classes(target, points),
        batch_size=size,
        lanes=lanes_on(target),
    )
    while cascade.advance():
        pass
    if stage.samples > 1:  # it has taken such votes itself
        return int(cascade.records.robust.sum())
    for row, point in cascade.found.items():
        images[row] = point
    wrong = sum((classes(classifier, images) != test.labels).astype(int) for _ in range(samples))
    return int((2 * wrong <= samples).sum())


def both(backend, name):
    """What plain APGD-CE leaves, and what the attack that the audit names."""
    defence, samples = DEFENCES[name], 20 if DEFENCES[name].attack == "autoattack-rand" else 1
    plain = left(masked(backend, defence), "apgd-ce", defence.epsilon, samples=samples)
    stand_in = network(backend, defence.weights()) if defence.attack == "bpda" else None
    return plain, left(
        masked(backend, defence), defence.attack, defence.epsilon, stand_in=stand_in, samples=samples
    )


ON_KERAS = (
    ("keras", "saturated logits"),
    ("keras", "argmax layer"),
    ("keras", "votes of the batch"),
    pytest.param("keras", "quantised input", marks=pytest.mark.slow),  # nine seconds: Square's graphs are traced
    pytest.param("keras", "k winners take all", marks=pytest.mark.slow),  # eight, likewise
)
"""One for each kind of attack but the average over forwards, whose minute test_cascade_random.py does without."""


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
