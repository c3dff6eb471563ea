"""Weight perturbations: both backends alike, the published proxies by hand, and nothing left behind."""

import copy
from functools import cache

import numpy as np
import pytest
from harness import assert_close, assert_same, load, problem, worst
from rows import SHORT, found, noise
from test_methods import losses_and_gradients, trained

import stcore
from stcore import AWP, RWP, AdversarialConfig, SqueezeConfig, StandardConfig, TradesConfig
from stcore.core.objective import OuterLoss, training_step
from stcore.errors import UsageError

PERTURBATIONS = {"awp": AWP(gamma=0.05), "rwp": RWP(gamma=0.05, steps=3, threshold=3.0)}
every_perturbation = pytest.mark.parametrize("perturbation", PERTURBATIONS.values(), ids=PERTURBATIONS)
METHODS = ("st", "standard", "at", "trades", "mart2", "gairat", "gair-rst", "bat", "collaborative")


@pytest.fixture(scope="module")
def twins():
    return load("torch"), load("keras")


@every_perturbation
@pytest.mark.parametrize("name", METHODS)
def test_both_backends_make_the_same_three_steps(twins, name, perturbation):
    ours, theirs = (trained(backend, SHORT[name], perturbation=perturbation) for backend in twins)
    assert_close(theirs, ours, 1e-8)
    without = trained(twins[0], SHORT[name])
    assert any(worst(ours[n], without[n]) > 1e-3 for n in ours)


@every_perturbation
def test_the_protocol_alone_makes_the_same_step(backend, perturbation):
    assert_close(small_step(backend.name, perturbation), small_step("strict", perturbation), 1e-8)


@cache
def small_step(name, perturbation):
    backend = load(name)
    learner, batch = backend.learner(backend.build("tiny-smooth", side=3)), backend.batch(problem(3, 3))
    training_step(learner, StandardConfig(), batch.x, batch.y, (), perturbation=perturbation)
    return learner.weights()


def standard(learner, batch):
    """The natural loss of a batch, in one part."""
    return OuterLoss(learner, [(lambda model: StandardConfig().losses(model, batch.x, batch.y, None), 1.0)])


class Still:
    """A learner whose optimizer does nothing: what remains of a step is what the perturbation leaves."""

    def __init__(self, learner):
        self._learner = learner

    def __getattr__(self, name):
        return getattr(self._learner, name)

    def apply_gradients(self, gradients):
        """Leaves the weights alone."""


@every_perturbation
def test_the_move_is_taken_back_to_1e_12(backend, perturbation):
    learner, data = backend.learner(backend.build("resnet8")), problem()
    before, batch = learner.weights(), backend.batch(data)
    drawn = tuple(backend.images(one) for one in noise(TradesConfig(), data.x.shape))
    training_step(Still(learner), TradesConfig(), batch.x, batch.y, drawn, perturbation=perturbation)
    after = learner.weights()
    for name in (n for n in before if ".running_" not in n):
        np.testing.assert_allclose(after[name], before[name], rtol=0, atol=1e-12, err_msg=name)
    assert any(np.any(after[n] != before[n]) for n in before if ".running_" in n)  # the loss's forwards did count


@every_perturbation
def test_biases_batch_norms_and_statistics_stay_while_a_direction_is_found(backend, perturbation):
    learner, data = backend.learner(backend.build("tiny")), problem()
    batch, before = backend.batch(data), learner.weights()
    move = perturbation.perturb(standard(learner, batch))
    after = learner.weights()
    changed = {name for name in before if np.any(before[name] != after[name])}
    assert changed == {"conv1.weight", "conv2.weight", "linear.weight"}
    assert sum(amount is not None for amount in move) == 3


def test_awp_moves_each_tensor_by_gamma_of_its_norm(backend):
    learner, batch = backend.learner(backend.build("tiny")), backend.batch(problem())
    before = learner.weights()
    AWP(gamma=0.05).perturb(standard(learner, batch))
    after = learner.weights()
    for name in ("conv1.weight", "conv2.weight", "linear.weight"):
        share = np.linalg.norm(after[name] - before[name]) / np.linalg.norm(before[name])
        assert share == pytest.approx(0.05, rel=1e-12)


def test_rwp_moves_all_tensors_together_by_gamma_of_their_norm(backend):
    learner, batch = backend.learner(backend.build("tiny")), backend.batch(problem())
    before = learner.weights()
    RWP(gamma=0.05).perturb(standard(learner, batch))
    after, names = learner.weights(), ("conv1.weight", "conv2.weight", "linear.weight")
    moves = [np.linalg.norm(after[n] - before[n]) for n in names]
    assert np.linalg.norm(moves) == pytest.approx(
        0.05 * np.linalg.norm([np.linalg.norm(before[n]) for n in names])
    )
    shares = [m / np.linalg.norm(before[n]) for m, n in zip(moves, names, strict=True)]
    assert max(shares) > 1.1 * min(shares)  # unlike AWP, which gives each its own


def test_awp_climbs(backend):
    learner, batch = backend.learner(backend.build("tiny")), backend.batch(problem())
    losses = lambda model: StandardConfig().losses(model, batch.x, batch.y, None)  # noqa: E731
    mean = lambda: backend.array(losses(learner).losses).mean()  # noqa: E731
    before = mean()
    AWP(gamma=0.01).perturb(OuterLoss(learner, [(losses, 1.0)]))
    assert mean() > before + 1e-4


# --- The published procedures, by hand in plain PyTorch: a proxy network and its SGD ---


def proxied(steps, threshold, per_tensor, gamma=0.05, rate=0.01):
    """One update of TRADES with its weights perturbed through a proxy, as the released code goes about it."""
    backend = load("torch")
    import torch
    from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

    model, data = backend.build("tiny"), problem()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    x, y, _ = backend.batch(data)
    (adversarial,) = found(backend, model, TradesConfig(), data)

    def each(net):
        natural = net(x)
        gap = kl_div(log_softmax(net(adversarial), 1), softmax(natural, 1), reduction="none").sum(1)
        return cross_entropy(natural, y, reduction="none") + 6.0 * gap

    kernels = [name for name, p in model.named_parameters() if p.ndim > 1]
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    total = {name: torch.zeros_like(weights[name]) for name in kernels}
    move = {name: torch.zeros_like(weights[name]) for name in kernels}
    for _ in range(steps):
        proxy = copy.deepcopy(model).train()
        for name, parameter in proxy.named_parameters():
            parameter.data = weights[name] + move.get(name, 0)
        start = {name: p.detach().clone() for name, p in proxy.named_parameters()}
        losses = each(proxy)
        (-((losses < threshold) * losses).mean()).backward()
        torch.optim.SGD(proxy.parameters(), lr=rate).step()
        for name, parameter in proxy.named_parameters():
            if name in total:
                total[name] += parameter.detach() - start[name]
        if per_tensor:
            move = {n: gamma * weights[n].norm() / (total[n].norm() + 1e-20) * total[n] for n in kernels}
        else:
            size = [torch.cat([t[n].flatten() for n in kernels]).norm() for t in (weights, total)]
            move = {n: gamma * size[0] / (size[1] + 1e-20) * total[n] for n in kernels}
    for name, parameter in model.named_parameters():
        parameter.data += move.get(name, 0)
    optimizer.zero_grad()
    each(model).mean().backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        parameter.data -= move.get(name, 0)
    return backend.learner(model).weights()


@pytest.mark.parametrize(
    ("perturbation", "arguments"),
    [
        (AWP(gamma=0.05), {"steps": 1, "threshold": np.inf, "per_tensor": True}),
        (RWP(gamma=0.05, steps=10, threshold=2.0), {"steps": 10, "threshold": 2.0, "per_tensor": False}),
        (RWP(gamma=0.05, steps=2, threshold=1.2), {"steps": 2, "threshold": 1.2, "per_tensor": False}),
    ],
    ids=["awp", "rwp", "rwp with a low threshold"],
)
def test_a_step_is_that_of_the_published_proxy(perturbation, arguments):
    ours = trained(load("torch"), TradesConfig(share_natural=True), steps=1, perturbation=perturbation)
    assert_close(ours, proxied(**arguments), 1e-11)


# --- Identities and edges ---


@pytest.mark.parametrize("objective", [SqueezeConfig(), AdversarialConfig(), TradesConfig()])
@pytest.mark.parametrize("nothing", [AWP(gamma=0.0), RWP(gamma=0.0, steps=2)], ids=["awp", "rwp"])
def test_a_perturbation_of_size_zero_is_none(backend, objective, nothing):
    assert_same(
        losses_and_gradients(backend, objective, perturbation=nothing), losses_and_gradients(backend, objective)
    )


def test_where_no_example_is_below_the_threshold_the_weights_stay(backend):
    nothing = RWP(gamma=0.05, steps=2, threshold=0.0)
    one = losses_and_gradients(backend, StandardConfig(), perturbation=nothing)
    assert_same(one, losses_and_gradients(backend, StandardConfig()))


@pytest.mark.parametrize("perturbation", [AWP(gamma=0.05), RWP(gamma=0.05, steps=2, threshold=9.0)])
@pytest.mark.parametrize("everything", [True, False])
def test_frozen_weights_are_not_moved(backend, perturbation, everything):
    """Where the user froze the convolutions and linear layers, or some of them."""
    model = backend.build("tiny")
    names = ["conv1", "conv2", "linear"] if everything else ["conv1"]
    for name in names:
        if backend.name == "torch":
            getattr(model, name).requires_grad_(False)
        else:
            model.get_layer(name).trainable = False
    learner, batch = backend.learner(model), backend.batch(problem())
    before = learner.weights()
    stcore.train_step(learner, StandardConfig(), batch.x, batch.y, perturbation=perturbation)
    after = learner.weights()
    for name in names:
        np.testing.assert_array_equal(after[f"{name}.weight"], before[f"{name}.weight"])
    assert np.any(after["bn1.weight"] != before["bn1.weight"])


def test_the_perturbation_acts_from_its_epoch_on():
    for kind in (AWP, RWP):
        assert [kind(warmup=3).active(epoch) for epoch in (1, 2, 3, 4)] == [False, False, True, True]
        assert kind().active(1)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: AWP(gamma=-0.1),
        lambda: AWP(warmup=-1),
        lambda: RWP(gamma=-0.1),
        lambda: RWP(warmup=-1),
        lambda: RWP(steps=0),
        lambda: RWP(threshold=float("nan")),
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError, match="expected"):
        wrong()


def test_a_traced_step_is_the_eager_one():
    backend = load("keras")
    results = []
    for compiled in (False, True):
        learner = backend.learner(backend.build("tiny"))
        learner.compiled = compiled
        step = learner.compile(
            lambda x, y, n, learner=learner: training_step(
                learner, TradesConfig(steps=2), x, y, n, perturbation=RWP(gamma=0.05, steps=2)
            )
        )
        for seed in range(2):
            data = problem(seed=seed)
            batch = backend.batch(data)
            step(batch.x, batch.y, (backend.images(noise(TradesConfig(), data.x.shape, seed)[0]),))
        results.append(learner.weights())
    assert_close(*results, 1e-12)


def test_the_facade_takes_a_perturbation(backend):
    learner, batch = backend.learner(backend.build("tiny")), backend.batch(problem())
    result = stcore.train_step(learner, StandardConfig(), batch.x, batch.y, perturbation=AWP())
    assert np.isfinite(backend.array(result.loss))


def test_a_layer_that_is_unfrozen_later_is_perturbed_too():
    torch, backend = pytest.importorskip("torch"), load("torch")
    model = backend.build("tiny-smooth")
    model.linear.weight.requires_grad_(False)
    learner = backend.learner(model)
    moved = {}
    for frozen in (True, False):
        model.linear.weight.requires_grad_(not frozen)
        before = learner.weights()["linear.weight"].copy()
        AWP(gamma=0.05).perturb(standard(learner, backend.batch(problem())))
        moved[frozen] = not np.array_equal(learner.weights()["linear.weight"], before)
    assert moved == {True: False, False: True}
    assert isinstance(learner.trainable[0], torch.nn.Parameter)
