"""What a step asks of the device and of the host: its kernels, counted; no value is read in between."""

from collections import Counter

import numpy as np
import pytest
from harness import load, problem

import stcore
from stcore import AWP, RWP, SqueezeConfig
from stcore.core import inspection
from stcore.core.objective import training_step
from stcore.errors import DataError
from stcore.methods import METHODS, fields
from stcore.training.trainer import follow

NO_KERNEL = {
    *("view", "_unsafe_view", "reshape", "_reshape_alias", "t", "transpose", "permute", "expand", "unsqueeze"),
    *("squeeze", "slice", "select", "unbind", "split", "as_strided", "alias", "detach", "detach_"),
    *("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided"),
    *("_record_function_enter_new", "_record_function_exit"),
}
"""Views, allocations and marks of a profiler."""


def kernels(run):
    """The operations of PyTorch that a function calls, by name, without those that compute nothing."""
    from torch.utils._python_dispatch import TorchDispatchMode

    counts = Counter()

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            counts[operation.overloadpacket.__name__] += 1
            return operation(*args, **(kwargs or {}))

    with Count():
        run()
    return Counter({name: count for name, count in counts.items() if name not in NO_KERNEL})


@pytest.fixture(scope="module")
def resnet18():
    """A learner as the command line makes it, and a batch; on the meta device, which computes nothing."""
    import torch

    from stcore.backends.torch import make_sgd

    load("torch")
    model = stcore.models.build("resnet18", "torch", num_classes=10, device="meta")
    learner = stcore.make_learner(model, make_sgd(model, 0.1, 0.9, 5e-4, nesterov=False))
    x, y = torch.rand(2, 3, 32, 32, device="meta"), torch.zeros(2, dtype=torch.int64, device="meta")
    return learner, (x, y, (torch.randn_like(x), torch.randn_like(x)))


def passes(learner, x, forwards, to_pixels, to_weights):
    """The kernels of so many forwards and ways back alone."""
    import torch

    def forward():
        return learner.model(leaf).sum()

    leaf = x.clone().requires_grad_()
    one = kernels(forward).total()
    value = forward()
    back = kernels(lambda: torch.autograd.grad(value, leaf)).total()
    value = forward()
    whole = kernels(lambda: torch.autograd.grad(value, list(learner.model.parameters()))).total()
    return forwards * one + to_pixels * back + to_weights * whole


def test_a_squeeze_step_of_resnet_18_makes_few_kernels_beside_its_passes(resnet18):
    """4 490 for 5 420 before the triplet was one batch."""
    learner, batch = resnet18
    training_step(learner, SqueezeConfig(), *batch)
    counts = kernels(lambda: training_step(learner, SqueezeConfig(), *batch))
    assert counts.total() <= 4500
    assert counts["where"] + counts["scalar_tensor"] <= 4  # of images chosen one by one there were 439
    assert counts.total() - passes(learner, batch[0], 24, 30, 3) <= 760


def test_averages_and_perturbed_weights_add_few(resnet18):
    """AWP's own pass through the loss is three forwards and their ways back; all else is counted."""
    learner, batch = resnet18
    average = learner.copy()

    def step(perturbation, averaged):
        training_step(learner, SqueezeConfig(steps=1), *batch, perturbation=perturbation)
        if averaged:
            follow(average, learner, 0.999)

    step(AWP(0.01), True)
    plain, all_of_it = (
        kernels(lambda given=given: step(*given)).total() for given in ((None, False), (AWP(0.01), True))
    )
    loss = learner.ops.mean

    def once():
        pair = SqueezeConfig().start(batch[0], batch[2])
        learner.value_and_grad(lambda: (loss(SqueezeConfig().losses(learner, *batch[:2], pair).losses), {}))

    assert all_of_it - plain - kernels(once).total() <= 60


@pytest.mark.parametrize(
    ("name", "perturbation"),
    [*((name, None) for name in METHODS), ("st", AWP(0.01)), ("st", RWP(0.01, steps=2))],
)
def test_a_step_reads_no_value(name, perturbation):
    """On the meta device, whose tensors have none: reading one raises."""
    load("torch")
    import torch

    from stcore.backends.torch import make_sgd

    method = METHODS[name]
    short = {"steps": 2} if "steps" in fields(name) else {}
    objective = method.config(**method.defaults, **short)
    model = stcore.models.build("tiny", "torch", num_classes=10, device="meta")
    learner = stcore.make_learner(model, make_sgd(model, 0.1, 0.9, 5e-4, nesterov=True))
    x, y = torch.rand(4, 3, 32, 32, device="meta"), torch.zeros(4, dtype=torch.int64, device="meta")
    noise = tuple(torch.randn_like(x) for _ in objective.noise_laws)
    for epoch in (1, 200):
        step = training_step(learner, objective, x, y, noise, objective.phase(epoch), perturbation)
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
