"""The single-step methods against their formulas, written by hand in plain PyTorch; what their settings mean."""

import dataclasses

import numpy as np
import oracle
import pytest
import torch
from harness import assert_close, load, problem, worst
from rows import found, noise, to_arrays
from test_oracle import TOLERANCE, trained

from stcore import FastSqueezeConfig, SingleStepConfig
from stcore.methods import make_objective
from stcore.runs.plan import make_plan, stale

EPSILON = 0.1


def batches():
    """The oracle's, with one noise, in [−1, 1]."""
    for x, y, (normal, _) in oracle.batches():
        yield x, y, (np.tanh(normal),)


class Hand(oracle.Oracle):
    """One update by a single step. The methods are those of their papers; the network and SGD are the oracle's."""

    def __init__(self, losses):
        super().__init__(epsilon=EPSILON)
        self.losses = losses

    def step(self, x, y, noise):
        x, y, unit = torch.tensor(x), torch.tensor(y), torch.tensor(noise[0])
        p = {name: one.clone().requires_grad_() for name, one in self.parameters.items()}
        loss = self.losses(self, p, x, y, unit).mean()
        loss.backward()
        self.update(p)
        return loss.item()

    def climb(self, start, y, write):
        """The sign of the gradient of the cross-entropy at a start."""
        point = start.clone().requires_grad_()
        oracle.cross_entropy(self.logits(self.parameters, point, dropout=False, write=write), y).sum().backward()
        return point.grad.sign()


def n_fgsm(hand, p, x, y, unit):
    """de Jorge et al. (2022): η ~ U(−2ε, 2ε), one step of ε, no projection, both forwards in training mode."""
    start = (x + 2 * EPSILON * unit).clamp(0, 1)
    example = (start + EPSILON * hand.climb(start, y, write=True)).clamp(0, 1)
    return oracle.cross_entropy(hand.logits(p, example, dropout=True, write=True), y)


def fgsm_rs(hand, p, x, y, unit):
    """Wong et al. (2020): δ ~ U(−ε, ε), a step of 1.25 ε, δ clipped to the ball."""
    start = (x + EPSILON * unit).clamp(0, 1)
    example = hand.project(start + 1.25 * EPSILON * hand.climb(start, y, write=True), x)
    return oracle.cross_entropy(hand.logits(p, example, dropout=True, write=True), y)


def consistent(hand, p, x, y, unit):
    """LIET's loss: smoothed cross-entropy + λ·JS(p(x0)‖p(x')), λ = 100, smoothing 0.6 spread over all classes."""
    start = (x + EPSILON * unit).clamp(0, 1)
    example = hand.project(start + EPSILON * hand.climb(start, y, write=True), x)
    z = hand.logits(p, example, dropout=True, write=True)
    w = hand.logits(p, start, dropout=True, write=True)
    one, two = torch.softmax(z, 1), torch.softmax(w, 1)
    middle = (one + two) / 2
    gap = 0.5 * (oracle.directed(one, middle) + oracle.directed(two, middle))
    return 0.4 * oracle.cross_entropy(z, y) - 0.6 * torch.log_softmax(z, 1).mean(1) + 100 * gap


def fast_squeeze(hand, p, x, y, unit):
    """The second form: the start is the collaborative example, and the cross-entropy is taken there."""
    start = (x + EPSILON * unit).clamp(0, 1)
    example = hand.project(start + EPSILON * hand.climb(start, y, write=False), x)
    z = [hand.logits(p, point, dropout=True, write=True) for point in (start, example)]
    return oracle.cross_entropy(z[0], y) + 6 * oracle.divergence(*z)


def fast_squeeze_by_descent(hand, p, x, y, unit):
    """The first form: one gradient gives both neighbours; the natural image is the third member (Eq. 6)."""
    start = (x + EPSILON * unit).clamp(0, 1)
    sign = hand.climb(start, y, write=False)
    above, below = (hand.project(start + length * sign, x) for length in (EPSILON, -EPSILON))
    third = hand.logits(p, below, dropout=True, write=False)
    z = [hand.logits(p, point, dropout=True, write=True) for point in (x, above)] + [third]
    highest, lowest = oracle.select(z, y)
    gap = oracle.divergence(oracle.pick(z, lowest), oracle.pick(z, highest))
    return oracle.cross_entropy(z[0], y) + 6 * gap


BY_HAND = {
    "n-fgsm": ({}, n_fgsm),
    "fgsm-rs": ({}, fgsm_rs),
    "fgsm-consistency": ({}, consistent),
    "fast-st": ({}, fast_squeeze),
    "fast-st by descent": ({"collaborative": "descent", "natural": "image"}, fast_squeeze_by_descent),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_three_steps_are_those_of_the_formula(backend, name):
    settings, losses = BY_HAND[name]
    objective = make_objective(name.partition(" ")[0], {**settings, "epsilon": EPSILON})
    hand = Hand(losses)
    expected = [hand.step(*batch) for batch in batches()]
    ours, state, _ = trained(backend, objective, batches=batches)
    np.testing.assert_allclose(ours, expected, rtol=TOLERANCE, atol=0)
    assert_close(state, hand.state(), TOLERANCE)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("n-fgsm", {"search_mode": "batch"}),
        ("n-fgsm", {"project": True}),
        ("fgsm-rs", {"start_scale": 0.5}),
        ("fgsm-rs", {"step_scale": 1.0}),
        ("fgsm-consistency", {"consistency": 10.0}),
        ("fast-st", {"search_mode": "train"}),
        ("fast-st", {"natural": "image"}),
        ("fast-st", {"collaborative": "descent"}),
        ("fast-st", {"steps": 2}),
    ],
    ids=str,
)
def test_every_setting_changes_the_step(name, other):
    objective = make_objective(name, {"epsilon": EPSILON})
    changed = dataclasses.replace(objective, **other)
    (_, one, _), (_, two, _) = (trained(load("torch"), each, batches=batches) for each in (objective, changed))
    assert max(worst(one[weight], two[weight]) for weight in one) > 1e-5


# --- What is found ---


def places(backend, config):
    data = problem(batch=16)
    (unit,) = noise(config, data.x.shape)
    return data.x, unit, to_arrays(backend, found(backend, backend.build("tiny-smooth"), config, data))


def test_n_fgsm_leaves_the_ball_but_not_the_range(backend):
    x, unit, (example,) = places(backend, SingleStepConfig(epsilon=EPSILON))
    start = np.clip(x + 2 * EPSILON * unit, 0, 1)
    assert np.abs(example - x).max() > 2 * EPSILON
    assert np.abs(example - start).max() <= EPSILON * (1 + 1e-12)
    assert example.min() >= 0
    assert example.max() <= 1


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_both_neighbours_are_in_the_ball_on_two_sides_of_the_start(backend, norm):
    config = FastSqueezeConfig(epsilon=EPSILON, norm=norm, collaborative="descent")
    x, unit, (above, below, start) = places(backend, config)
    np.testing.assert_allclose(start, np.clip(x + EPSILON * unit, 0, 1), rtol=1e-12)
    size = (lambda a: np.abs(a).max((1, 2, 3))) if norm == "linf" else lambda a: np.sqrt((a**2).sum((1, 2, 3)))
    for example in (above, below):
        assert size(example - x).max() <= EPSILON * (1 + 1e-9)
    if norm == "linf":  # in l2 the projection moves every pixel
        assert ((above - start) * (below - start) <= 1e-15).all()


def test_a_start_at_the_image_takes_no_noise():
    assert SingleStepConfig(start_scale=0.0).noise_laws == ()
    assert SingleStepConfig().noise_laws == ("uniform",)
    assert SingleStepConfig(norm="l2").noise_laws == ("ball",)


# --- The plan ---


def test_a_recipe_gives_the_ball_and_the_method_its_steps():
    for method in ("n-fgsm", "fgsm-rs", "fgsm-consistency", "fast-st"):
        plan = make_plan({"method": method, "dataset": "digits"})
        assert (plan.method.settings["epsilon"], plan.method.settings["steps"]) == (0.2, 1)
    assert make_plan({"method": "n-fgsm", "epsilon": 0.1}).method.settings["epsilon"] == 0.1


def test_a_change_of_method_takes_its_steps_with_it():
    plan = make_plan({"method": "n-fgsm", "epsilon": 0.1})
    assert "steps" in stale(plan.flat(), {"method": "st"})
    assert "steps" in stale(make_plan({"steps": 3}).flat(), {"method": "n-fgsm"})
    assert "steps" not in stale(make_plan({"steps": 3}).flat(), {"method": "at"})
    assert "epsilon" not in stale(plan.flat(), {"method": "st"})
