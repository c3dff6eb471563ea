"""What a cascade asks of the network: forwards, ways back to the pixels and to nothing else, and graphs."""

import numpy as np
import pytest
from harness import load
from test_cascade import CLASSES, EPSILON, FEW, Short, assessment, run, task

import stcore
from stcore.attacks.apgd import APGD
from stcore.attacks.fab import FAB

ATTACK = Short(EPSILON, queries=FEW)


def test_the_engine_counts_what_is_computed_and_no_weight_gradient_is():
    """Seen below autograd, where nothing can hide: convolutions of pixels, and what their ways back compute."""
    backend = load("torch")
    from torch.utils._python_dispatch import TorchDispatchMode

    class Watch(TorchDispatchMode):
        forwards = backwards = weights = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            name = function.overloadpacket.__name__
            if name in ("convolution", "mkldnn_convolution", "_convolution", "conv2d") and args[1].shape[1] == 3:
                self.forwards += len(args[0])
            if name == "convolution_backward" and args[2].shape[1] == 3:
                self.backwards += len(args[0])
            if name == "convolution_backward":
                self.weights += any(args[-1][1:])
            return function(*args, **(kwargs or {}))

    of = task(backend)
    work = assessment(backend, ATTACK, of=of, batch_size=9)
    natural = len(of[1])
    with Watch() as watch:
        from stcore.base.progress import Silent

        found = work.run(Silent()).cascades["it"]
    forwards = sum(stage.forwards for stage in found.stages)
    assert natural + forwards <= watch.forwards <= natural + forwards + 64  # a folded copy is tried out
    backwards = sum(stage.backwards for stage in found.stages)
    assert 1000 < backwards <= watch.backwards <= backwards + 16
    assert watch.weights == 0
    assert all(p.grad is None for p in of[0].parameters())


@pytest.mark.parametrize(("attack", "kind"), [("apgd-ce", APGD), ("apgd-t", APGD), ("fab-t", FAB)])
def test_one_graph_serves_lanes_of_any_number(attack, kind, monkeypatch):
    """Python runs a step once, while it is traced: also where lanes leave, and the last batches are short."""
    backend = load("keras")
    traced, sizes, plain = [], set(), kind.step

    def step(self, model, x, *rest):
        traced.append(None)
        return plain(self, model, x, *rest)

    monkeypatch.setattr(kind, "step", step)
    from stcore.autoattack.lanes import _NativeLanes

    original = _NativeLanes.step
    monkeypatch.setattr(
        _NativeLanes, "step", lambda self, body, *rest: sizes.add(len(rest[0])) or original(self, body, *rest)
    )
    run(backend, Short(EPSILON, version="custom", attacks=(attack,)), of=task(backend), batch_size=7)
    assert len(traced) == 1
    assert len(sizes) > 2


def test_no_weight_gradient_is_in_a_steps_graph():
    backend = load("keras")
    import tensorflow as tf
    from test_counts import operations

    from stcore.attacks.counter_random import keys

    model, x, y = task(backend, images=4)
    classifier = backend.classifier(model)
    for attack in (APGD(EPSILON), FAB(EPSILON)):
        noise = tuple(classifier.images(n) for n in attack.noise(keys(np.arange(4)), x.shape[1:]))
        given = classifier.images(x), classifier.labels(y), classifier.labels((y + 1) % CLASSES)
        state = attack.start(classifier.ops, *given, noise)
        pace = {name: classifier.pixels(value) for name, value in attack.pace(np.zeros(4, int)).items()}
        names = sorted(state)

        @tf.function
        def step(*values, attack=attack, given=given, pace=pace, names=names):
            return attack.step(classifier, *given, dict(zip(names, values, strict=True)), pace)

        kinds = operations(step, *(state[name] for name in names))
        assert kinds["Conv2DBackpropInput"] == 2  # the tiny network has two layers
        assert kinds["Conv2DBackpropFilter"] == 0


def test_neither_modes_nor_weights_nor_global_random_state_change(backend, global_random_state):
    from stcore.models import export_weights

    model, x, y = task(backend)
    if backend.name == "torch":
        model.train()
        model.bn1.eval()
    before = export_weights(model)
    own = x if backend.name == "keras" else x.transpose(0, 3, 1, 2)
    stcore.evaluate(model, (own, y), {"aa": ATTACK})
    for name, array in export_weights(model).items():
        np.testing.assert_array_equal(array, before[name])
    if backend.name == "torch":
        assert [model.training, model.bn1.training, model.bn2.training] == [True, False, True]
