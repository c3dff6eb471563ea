"""Square on a device that is not the host: the same records, and what crosses between the two."""

from collections import Counter

import numpy as np
import pytest
from harness import problem
from test_cascade import EPSILON, Kept, assessment, run, same_records, task

from stcore.attacks import counter_random
from stcore.attacks.apgd import APGD
from stcore.attacks.square import Square
from stcore.autoattack import AutoAttack
from stcore.autoattack.lanes import lanes_of
from stcore.autoattack.windowed import WindowedLanes
from stcore.base.progress import Silent

SQUARE = AutoAttack(EPSILON, version="custom", attacks=("square",), queries=45)


@pytest.fixture
def elsewhere(backend, monkeypatch):
    """A call that makes every tensor look as if it were on another device."""
    kind = type(backend.classifier(backend.build("tiny", side=8)))
    return lambda: monkeypatch.setattr(kind, "on_host", lambda self, x: False)


def same_examples(one, other):
    assert one.keys() == other.keys()
    assert one
    for row, point in one.items():
        np.testing.assert_array_equal(point, other[row])


@pytest.mark.parametrize(("backend", "dtype"), [("torch", "float64"), ("keras", "float32")], indirect=["backend"])
def test_the_records_are_those_of_the_host(backend, elsewhere, dtype):
    """Few lanes at one time: others begin while some are under way, at other steps."""
    of = task(backend, dtype=dtype)
    host, examples = run(backend, SQUARE, of=of, batch_size=9)
    elsewhere()
    device, others = run(backend, SQUARE, of=of, batch_size=9)
    same_records(host, device)
    same_examples(examples, others)


@pytest.mark.parametrize("backend", ["torch"], indirect=True)
def test_either_continues_from_the_others_state(backend, elsewhere):
    of = task(backend)
    whole, examples = run(backend, SQUARE, of=of)
    begun = Kept()
    steps = iter(range(20))
    assert (
        assessment(backend, SQUARE, keep=True, of=of).run(Silent(), begun, lambda: next(steps, None) is None)
        is None
    )
    elsewhere()
    steps = iter(range(20))
    assert (
        assessment(backend, SQUARE, keep=True, of=of).run(Silent(), begun, lambda: next(steps, None) is None)
        is None
    )
    found = assessment(backend, SQUARE, keep=True, of=of).run(Silent(), begun)
    same_records(whole, found.cascades["it"])
    same_examples(examples, begun.examples["it"])


@pytest.mark.parametrize("shape", [(8, 8, 3), (9, 5, 1), (1, 7, 2), (12,)])
def test_proposals_are_those_of_the_host(backend, elsewhere, shape):
    """Of any shape, at any step: lanes at their starts, sides that change, a run of steps that ends."""
    x, y = np.random.default_rng(0).uniform(size=(3, *shape)).astype("float32"), np.array([0, 1, 2])
    model = backend.build("tiny", dtype="float32")
    classifier, attack = backend.classifier(model), Square(0.1, queries=70)
    keys, seen = counter_random.keys(0, np.arange(3)), []

    def logits(points, mode):
        seen.append(classifier.host_images(points))
        flat = seen[-1].reshape(3, -1).astype("float64")
        return classifier.pixels(np.stack([flat.sum(1), (flat**2).sum(1), flat[:, 0]], 1))

    classifier.logits, classifier.compile = logits, lambda fn, rowwise: fn
    elsewhere()
    lanes, state = lanes_of(attack, classifier), attack.start(x, keys)
    assert isinstance(lanes, WindowedLanes)
    body = lanes.fresh(x, y, y, keys)
    for step in range(69):
        number = np.array([step + 2, step, max(step - 5, 0)])
        points = attack.propose(x, state, number, keys).copy()
        body = lanes.step(body, number, keys)
        np.testing.assert_array_equal(seen[-1], points)
        answers = classifier.ops.to_numpy(logits(classifier.images(points), None))
        state = attack.judge(state, points, answers, y)
        for name in ("margin", "success"):
            np.testing.assert_array_equal(body[name], state[name])
        np.testing.assert_array_equal(lanes.adversarial(body, [0, 1, 2]), state["adversarial"])


@pytest.mark.parametrize("attack", [Square(0.1, queries=300), APGD(0.1, steps=40)], ids=["square", "apgd"])
def test_what_crosses_in_a_query(backend, elsewhere, attack, monkeypatch):
    """Out: the logits, or the claims. In: for Square which points are kept, and windows every 32 queries."""
    elsewhere()
    classifier = backend.classifier(backend.build("tiny", dtype="float32"))
    x, y = problem(batch=4).x.astype("float32"), np.zeros(4, int)
    keys, crossed, inside = counter_random.keys(0, np.arange(4)), Counter(), []

    def counted(on, name, what):
        call = getattr(on, name)

        def wrapped(array):
            if not inside:  # one conversion may call another
                crossed[what] += 1
                crossed[f"{what}, numbers"] += int(np.prod(np.shape(array)))
            inside.append(name)
            try:
                return call(array)
            finally:
                inside.pop()

        monkeypatch.setattr(on, name, wrapped)

    lanes = lanes_of(attack, classifier)
    body = lanes.fresh(x, y, y, keys)
    for name in ("images", "pixels", "labels"):
        counted(classifier, name, "in")
    counted(classifier.ops, "to_numpy", "out")
    steps = 32
    for step in range(steps):
        body = lanes.step(body, np.full(4, step), keys)
        lanes.success(body)
    assert crossed["out"] == steps
    assert 0 < crossed["in"] <= steps + 5
    assert crossed["in, numbers"] < steps * x.size / 4
