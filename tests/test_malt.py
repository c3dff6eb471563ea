"""MALT's order of targets: distances by hand, on every backend; in a cascade, whatever the batch, and resumed."""

import numpy as np
import pytest
from harness import NAMES, load
from test_apgd import build, near, pixels
from test_attacks import Linear, flat_problem
from test_cascade import CLASSES, EPSILON, FEW, Kept, Short, Stop, assessment, run, same_records, shared

from stcore.attacks.hyperplane import DUAL
from stcore.attacks.malt import MALT
from stcore.autoattack import Cascade
from stcore.autoattack.versions import stages
from stcore.base.progress import Silent
from stcore.errors import UsageError

ORDERS = {"linf": np.inf, "l2": 2, "l1": 1}


def distances(backend, attack, network, x, y):
    """(B, C) for native images."""
    state = attack.start(backend.ops, x, y, y, ())
    return backend.array(attack.step(network, x, y, y, state, attack.pace(np.zeros(1))).pop("distances"))


def by_hand(logits, jacobian, y, norm):
    """One image's (z_y − z_j) / ‖∇(z_j − z_y)‖ in the dual norm."""
    dual = ORDERS[DUAL[norm]]
    apart = [np.linalg.norm((jacobian[j] - jacobian[y]).reshape(-1), dual) for j in range(len(logits))]
    return np.array([np.inf if j == y else (logits[y] - logits[j]) / apart[j] for j in range(len(logits))])


@pytest.mark.parametrize("norm", ORDERS)
def test_distances_of_a_linear_network_are_those_to_its_boundaries(every_backend, norm):
    x, _, _ = flat_problem(4 if every_backend.name == "strict" else 40)
    net = Linear(every_backend)
    y = net.host(x).argmax(1)
    found = distances(every_backend, MALT(norm, 3), net, every_backend.tensor(x), every_backend.tensor(y))
    expected = [by_hand(z, net.w.T, label, norm) for z, label in zip(net.host(x), y, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-9 if every_backend.name != "strict" else 1e-6)
    order, by_logit = np.argsort(expected, axis=1), np.argsort(-net.host(x), axis=1)[:, 1:]
    assert (order[:, :3] != by_logit).any() or every_backend.name == "strict"


def test_distances_of_a_network_are_those_of_torchs_own_gradients():
    import torch

    x = pixels()
    model = build(load("torch"))
    y, _ = near(model, x)
    native = torch.tensor(x.transpose(0, 3, 1, 2).copy())
    expected = []
    for image, label in zip(native, y, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda image: model(image[None])[0], image).numpy()
        expected.append(by_hand(model(image[None])[0].detach().numpy(), jacobian, label, "linf"))
    for name in NAMES:
        backend = load(name)
        classifier = backend.classifier(build(backend))
        found = distances(backend, MALT("linf", 4), classifier, backend.images(x), backend.tensor(y))
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_candidates_are_the_likeliest_classes_and_equal_ones_share_a_distance(backend):
    x, net = np.zeros((1, 12)), Linear(backend)
    net.b = np.array([9.0, 5.0, 5.0, 1.0])
    y = backend.tensor(np.array([0]))
    two, one = (distances(backend, MALT("l2", n), net, backend.tensor(x), y)[0] for n in (2, 1))
    assert np.isfinite(one).tolist() == [False, True, True, False]
    assert one[1] == one[2]
    assert np.isfinite(two).tolist() == [False, True, True, True]
    assert two[3] == pytest.approx(8 / np.linalg.norm(net.w[:, 3] - net.w[:, 0]))
    more = distances(backend, MALT("l2", 50), net, backend.tensor(x), y)[0]
    np.testing.assert_allclose(more, two)
    net.b[2] = -np.inf  # masked
    masked = distances(backend, MALT("l2", 3), net, backend.tensor(x), y)[0]
    np.testing.assert_allclose(masked, [np.inf, 4 / np.linalg.norm(net.w[:, 1] - net.w[:, 0]), np.inf, two[3]])


# In a cascade


def cascade(backend, names=("malt", "apgd-t"), *, batch_size=64, norm="linf"):
    evaluator, x, y = shared(backend.name)
    classifier = evaluator.classifier
    logits = classifier.eval_logits(classifier.images(x))
    members = stages("custom", norm, EPSILON, CLASSES, attacks=names, queries=FEW)

    def predict(points):
        return classifier.eval_logits(classifier.images(points)).argmax(1)

    made = Cascade(classifier, members, x, y, logits, predict, batch_size=batch_size, lanes=evaluator.lanes)
    return made, np.flatnonzero(logits.argmax(1) == y)


def ordered(made):
    while made.stage == 0:
        made.advance()
    return made


def test_targets_are_tried_in_the_order_of_their_distances(backend):
    made, robust = cascade(backend)
    by_logit = made._targets.copy()
    ordered(made)
    evaluator, x, y = shared(backend.name)
    classifier = evaluator.classifier
    native, labels = classifier.images(x), classifier.labels(y)
    measured = distances(backend, MALT("linf", CLASSES - 1), classifier, native, labels)
    for row in range(len(x)):
        expected = np.argsort(measured[row], kind="stable")[:-1] if row in robust else by_logit[row]
        np.testing.assert_array_equal(made._targets[row], expected)
    assert (made._targets[robust] != by_logit[robust]).any()
    assert made.forwards[0] == len(robust)
    assert made.backwards[0] == len(robust) * (CLASSES - 1)
    assert made.records.robust.sum() == len(robust)


def test_the_order_does_not_depend_on_the_batch_and_is_saved(backend):
    whole = ordered(cascade(backend)[0])
    for batch_size in (1, 7):
        np.testing.assert_array_equal(ordered(cascade(backend, batch_size=batch_size)[0])._targets, whole._targets)
    begun, robust = cascade(backend, batch_size=5)
    begun.advance()
    begun.advance()
    assert begun.stage == 0
    assert (begun._targets != cascade(backend)[0]._targets).any()
    resumed = cascade(backend, batch_size=5)[0]
    resumed.load(begun.save())
    np.testing.assert_array_equal(ordered(resumed)._targets[robust], whole._targets[robust])
    assert "targets" not in cascade(backend, ("apgd-t", "square"))[0].save()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_verdicts_with_it_are_those_of_the_other_backend(norm):
    load("keras")
    attack = Short({"linf": 1, "l2": 10, "l1": 50}[norm] * EPSILON, norm, "fast")
    (one, _), (other, _) = (run(load(name), attack, images=10) for name in ("torch", "keras"))
    same_records(one, other, but=("distance",))
    assert [stage.name for stage in one.stages] == ["apgd-ce", "malt", "apgd-t"]
    assert 0 < one.stages[-1].robust.correct < (one.records.natural == one.records.label).sum()


@pytest.mark.parametrize("share", [0.4, 0.75])
def test_stopped_in_a_cascade_of_new_members_it_goes_on_bit_for_bit(backend, share):
    attack = Short(EPSILON, version="custom", attacks=("pma", "malt", "fab-t"))
    stop, store = Stop(), Kept()
    whole = assessment(backend, attack, images=6, batch_size=4).run(Silent(), None, stop).cascades["it"]
    limit = Stop(int(share * stop.count))
    assert assessment(backend, attack, images=6, batch_size=4).run(Silent(), store, limit) is None
    on = assessment(backend, attack, images=6, batch_size=4).run(Silent(), store).cascades["it"]
    same_records(on, whole)
    assert [(s.forwards, s.backwards) for s in on.stages] == [(s.forwards, s.backwards) for s in whole.stages]


@pytest.mark.parametrize("wrong", [{"norm": "l0"}, {"candidates": 0}], ids=str)
def test_wrong_settings(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        MALT(**wrong)
