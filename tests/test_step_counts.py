"""What a step asks of the device and of the host: its kernels, counted; no value is read in between."""

from collections import Counter

import numpy as np
import pytest
from harness import load, problem

import stcore
from stcore import AWP, RWP, SqueezeConfig
from stcore.core import inspection
from stcore.core.objective import Unwritten, training_step
from stcore.errors import DataError
from stcore.methods import METHODS, fields
from stcore.training.trainer import follow


@pytest.fixture
def counting(benchmark):
    """The script that counts kernels."""
    load("torch")
    return benchmark("kernels")


def test_a_squeeze_step_of_resnet_18_makes_few_kernels_beside_its_passes(counting):
    """4 490; 5 420 before the triplet was one batch."""
    learner, batch = counting.learner_and_batch("resnet18")
    one, two = (counting.kernels(counting.step_of(learner, SqueezeConfig(steps=k), batch)) for k in (1, 2))
    ten = one.total() + 9 * (two.total() - one.total())  # each inner step makes the same
    assert ten <= 4500
    assert two["where"] + two["scalar_tensor"] <= 4  # of images chosen one by one there were 119
    assert 3500 <= counting.passes(learner, batch[0], 24, 30, 3) <= ten - 300  # nothing is left out


def test_averages_and_perturbed_weights_add_few(counting):
    """To the three forwards and backward passes that AWP makes."""
    learner, batch = counting.learner_and_batch("resnet8")
    objective, average = SqueezeConfig(steps=1), learner.copy()
    plain, perturbed = (counting.step_of(learner, objective, batch, given) for given in (None, AWP(0.01)))

    def both():
        perturbed()
        follow(average, learner, 0.999)

    pair, mean = (batch[0], batch[0] + 0.01), learner.ops.mean
    once = lambda: learner.value_and_grad(  # noqa: E731
        lambda: (mean(objective.losses(Unwritten(learner), *batch, stcore.SqueezePair(*pair)).losses), {})
    )
    all_of_it, of_step, of_loss = (counting.kernels(run).total() for run in (both, plain, once))
    assert 0 < all_of_it - of_step - of_loss <= 60


def test_what_reads_a_value_is_found(counting):
    import torch

    with pytest.raises((RuntimeError, NotImplementedError)):
        counting.kernels(lambda: torch.zeros(3, device="meta").sum().item())


@pytest.mark.parametrize(
    ("name", "perturbation"),
    [*((name, None) for name in METHODS), ("st", AWP(0.01)), ("st", RWP(0.01, steps=2))],
)
def test_a_step_reads_no_value(counting, name, perturbation):
    """On the meta device, whose tensors have none: reading one raises."""
    learner, batch = counting.learner_and_batch("tiny", 4)
    method = METHODS[name]
    short = {"steps": 2} if "steps" in fields(name) else {}
    objective = method.config(**method.defaults, **short)
    noise = tuple(batch[0] for _ in objective.noise_laws)
    for epoch in (1, 200):
        step = training_step(learner, objective, *batch, noise, objective.phase(epoch), perturbation)
        follow(learner, learner, 0.9)
    assert {value.device.type for value in (step.loss, *step.metrics.values())} == {"meta"}


# --- The public functions on another device ---


@pytest.fixture
def elsewhere(backend, monkeypatch):
    """A backend whose tensors seem to be on another device, and the copies to the host that are made."""
    copies = Counter()
    model = backend.build("tiny")
    classifier = type(stcore.make_classifier(model))

    def counting(owner, name):
        original = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args: (copies.update([name]), original(*args))[1])

    monkeypatch.setattr(classifier, "on_host", lambda self, x: False)
    monkeypatch.setattr(inspection, "_queues", {})
    counting(classifier, "to_numpy")
    counting(classifier.ops, "to_numpy")
    counting(classifier.ops, "fetch")
    return backend, model, copies


def losses(backend, model, steps, batch=None, noise=None):
    batch = batch or backend.batch(problem())
    for _ in range(steps):
        stcore.squeeze_loss(model, batch.x, batch.y, config=SqueezeConfig(steps=0), noise=noise or batch.noise)


def test_a_loss_on_another_device_copies_nothing_between_two_fetches(elsewhere):
    backend, model, copies = elsewhere
    losses(backend, model, 4)  # the first batch is checked by value, and so are a few spans
    copies.clear()
    losses(backend, model, 20)
    assert copies["fetch"] == 2
    assert copies["to_numpy"] <= copies["fetch"]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("pixels", "x: expected pixels in"),
        ("nan", "x: expected finite"),
        ("labels", "y: expected labels"),
        ("noise", "noise: "),
    ],
)
def test_a_bad_batch_on_another_device_is_found_a_few_calls_later(elsewhere, wrong, says):
    backend, model, _ = elsewhere
    data = problem()
    losses(backend, model, 4)
    inspection._queues.clear()
    losses(backend, model, 2)  # what is checked at once
    spoiled = np.array(data.x)
    spoiled[0, 0, 0, 0] = np.nan if wrong == "nan" else 200
    noise = [np.array(one) for one in data.noise]
    noise[1][0, 0, 0, 0] = np.inf
    given = {
        "pixels": data._replace(x=spoiled),
        "nan": data._replace(x=spoiled),
        "labels": data,
        "noise": data._replace(noise=noise),
    }[wrong]
    if wrong == "labels":  # one more than there are: the last layer takes what the framework makes of it
        classifier = stcore.make_classifier(model)
        from stcore.core.entry import check_batch

        batch = backend.batch(data)
        for _ in range(19):
            check_batch(classifier, model, batch.x, batch.y + 100, (0.0, 1.0))
        with pytest.raises(DataError, match=says):
            check_batch(classifier, model, batch.x, batch.y + 100, (0.0, 1.0))
        return
    with pytest.raises(DataError, match=says):
        losses(backend, model, 11, backend.batch(given))


def test_labels_of_another_kind_are_refused_at_once(elsewhere):
    backend, model, _ = elsewhere
    batch = backend.batch(problem())
    losses(backend, model, 1)
    for y in (batch.y[:-1], batch.x):
        with pytest.raises(DataError, match="y: expected"):
            stcore.squeeze_loss(model, batch.x, y, config=SqueezeConfig(steps=0), noise=batch.noise)
