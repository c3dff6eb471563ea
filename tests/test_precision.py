"""bf16, TF32 and XLA: close to float32, with weights, losses and projections that stay in it."""

import json
from dataclasses import asdict, replace
from functools import cache, partial

import numpy as np
import pytest
import small
from harness import assert_close, assert_same, gradients, load, problem, worst
from rows import noise as unit_noise

import stcore
from stcore import AWP, AdversarialConfig, SqueezeConfig, StandardConfig, TradesConfig
from stcore.core.dispatch import load_backend
from stcore.core.objective import training_step
from stcore.errors import DeviceError, UsageError
from stcore.evaluation.evaluator import Evaluator
from stcore.methods import METHODS
from stcore.methods.balls import balls_of
from stcore.protocols import Mode
from stcore.runs.plan import make_plan

CONFIG = SqueezeConfig(epsilon=8 / 255, step_size=2 / 255, steps=2)
OBJECTIVES = (CONFIG, AdversarialConfig(steps=2), TradesConfig(steps=2), StandardConfig())
EPS = 2.0**-8  # of bfloat16: half a unit in the last place of its 8 bits, relative


def learner_in(backend, outer="fp32", inner="fp32", choice="off", *, net="tiny-smooth", lr=0.1, **options):
    model = backend.build(net, dtype=options.pop("dtype", "float32"))
    learner = backend.learner(model, lr, **options)
    return load_backend(backend.name).prepare_training(learner, choice, outer, inner)


def stepped(learner, batch, objective=CONFIG, **options):
    result = training_step(learner, objective, batch.x, batch.y, batch.noise, **options)
    return float(learner.ops.to_numpy(result.loss))


@pytest.fixture
def graphs(backend, monkeypatch):
    """The graphs torch.compile hands out, compiled by nothing: its own compiler takes a minute."""
    found = []
    if backend.name == "torch":
        import torch

        def noted(graph, inputs):
            found.append(graph)
            return graph.forward

        torch._dynamo.reset()
        monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=noted))
    return found


# --- bf16 ---


def one_step(backend, objective, precision, choice):
    """The loss of a step, how far it moved each weight, and the running statistics after it."""
    batch, learner = backend.batch(problem(batch=8), "float32"), learner_in(backend, precision, precision, choice)
    noise = batch.noise[: len(objective.noise_laws)]
    step = learner.compile(lambda x, y, noise: training_step(learner, objective, x, y, noise))
    before = learner.weights()
    loss = float(learner.ops.to_numpy(step(batch.x, batch.y, noise).loss))
    after = learner.weights()
    moved = np.concatenate([(after[n] - before[n]).ravel() for n in before if ".running_" not in n])
    return loss, moved, backend.statistics(learner.model)


@cache
def one_eager_step_in_fp32(backend, objective):
    return one_step(backend, objective, "fp32", "off")


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("choice", ["off", "on"])
def test_a_step_in_bf16_is_near_that_in_fp32_and_not_the_same(backend, objective, choice, graphs):
    """Differing by more than float32's own rounding, and than what compiling makes of that."""
    loss, moved, statistics = one_eager_step_in_fp32(backend, objective)
    rough_loss, rough_moved, rough_statistics = one_step(backend, objective, "bf16", choice)
    assert 0 < abs(rough_loss - loss) <= 16 * EPS * abs(loss)
    assert EPS / 8 < np.linalg.norm(rough_moved - moved) / np.linalg.norm(moved) <= 0.1
    assert_close(rough_statistics, statistics, 8 * EPS)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "standard"])
def test_a_search_in_bf16_stays_in_the_ball_and_in_range(backend, method):
    """To float32's rounding: were the projection in bf16, it would be off by a fifth of a grey level."""
    objective = replace(make_plan({"method": method}).objective, steps=4)
    if hasattr(objective, "project"):
        objective = replace(objective, start_scale=1.0, project=True)
    radius = balls_of(asdict(objective))[0][1]
    given = problem(batch=4)
    given = given._replace(x=np.round(given.x * 255) / 255)
    batch = backend.batch(given, "float32")
    learner = learner_in(backend, "fp32", "bf16")
    noise = tuple(backend.images(one, "float32") for one in unit_noise(objective, given.x.shape))
    found = learner.ops.unrecorded(lambda: objective.find(learner.searching(), batch.x, batch.y, noise, 0))
    for array in arrays(backend, found, batch.x.shape):
        assert array.dtype == np.float32
        assert array.min() >= 0
        assert array.max() <= 1
        distance = np.abs(array.astype("float64") - backend.nhwc(batch.x)).max()
        assert 0.5 * radius <= distance <= radius + 1e-6


def arrays(backend, found, shape):
    parts = found if isinstance(found, tuple) else vars(found).values()
    flat = [one for part in parts for one in (part if isinstance(part, tuple) else (part,))]
    images = [backend.nhwc(one) for one in flat if getattr(one, "shape", None) == shape]
    assert images
    return images


def test_the_inner_precision_is_the_searchs_alone(backend):
    """What the search finds depends on it, and the gradients for given examples do not; and vice versa."""
    batch = backend.batch(problem(), "float32")
    found, taken = {}, {}
    for outer in ("fp32", "bf16"):
        for inner in ("fp32", "bf16"):
            learner = learner_in(backend, outer, inner, lr=1.0, momentum=0.0, weight_decay=0.0)
            pair = CONFIG.find(learner.searching(), batch.x, batch.y, batch.noise)
            found[outer, inner] = backend.nhwc(pair.adversarial)
            given = (batch.x, batch.x * 0.9 + 0.05)
            taken[outer, inner] = gradients(learner, CONFIG, batch, stcore.SqueezePair(*given)).by_name
    np.testing.assert_array_equal(found["fp32", "bf16"], found["bf16", "bf16"])
    np.testing.assert_array_equal(found["fp32", "fp32"], found["bf16", "fp32"])
    assert np.any(found["fp32", "bf16"] != found["fp32", "fp32"])
    assert_same(taken["bf16", "fp32"], taken["bf16", "bf16"])
    assert_same(taken["fp32", "fp32"], taken["fp32", "bf16"])
    rough, fine = taken["bf16", "fp32"], taken["fp32", "fp32"]
    assert all(worst(rough[name], fine[name]) > EPS / 16 for name in fine)


def test_weights_updates_and_evaluations_stay_in_float32(backend):
    batch = backend.batch(problem(), "float32")
    learner = learner_in(backend, "bf16", "bf16")
    reference = learner_in(backend)
    stepped(learner, batch, perturbation=AWP())
    assert {array.dtype for array in learner.weights().values()} == {np.dtype("float32")}
    optimizers = [a for n, a in learner.snapshot().items() if n.startswith("optimizer") and a.ndim]
    assert {a.dtype for a in optimizers} == {np.dtype("float32")}
    reference.load_weights(learner.weights())
    np.testing.assert_array_equal(learner.eval_logits(batch.x), reference.eval_logits(batch.x))
    pgd = {"pgd": stcore.attacks.PGD(steps=2)}
    for one, other in zip(*(seen(Evaluator(each, pgd), backend) for each in (learner, reference)), strict=True):
        np.testing.assert_array_equal(one, other)


def seen(evaluator, backend):
    from stcore.data import ImageData, in_order

    rng = np.random.default_rng(0)
    data = ImageData(rng.integers(256, size=(9, 8, 8, 3), dtype=np.uint8), rng.integers(3, size=9), 3, "random")
    logits, predicted, examples = evaluator.evaluate_batch(next(iter(in_order(data, 9))))
    return logits, predicted["pgd"], backend.nhwc(examples["pgd"])


def test_the_forwards_of_a_step_are_as_many(backend):
    counts = []
    for precision in ("fp32", "bf16"):
        learner, calls = learner_in(backend, precision, precision), []
        original = type(learner).__mro__[1].logits
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                type(learner).__mro__[1],
                "logits",
                lambda self, x, mode, *, dropout=False, o=original, c=calls: (
                    c.append((mode, dropout)),
                    o(self, x, mode, dropout=dropout),
                )[1],
            )
            stepped(learner, backend.batch(problem(), "float32"))
        counts.append(calls)
    assert counts[0] == counts[1]
    assert counts[0].count((Mode.TRAIN, True)) == 2


@pytest.mark.parametrize("backend", ["torch"], indirect=True)
def test_a_compiled_torch_model_has_no_more_graphs_in_bf16(backend, graphs):
    """The search, the collaborative forward, the TRAIN forwards; and EVAL, in fp32. None is made again."""
    learner = learner_in(backend, "bf16", "bf16", "on")
    counts = []
    for size in (6, 4, 6, 4):
        batch = backend.batch(problem(size), "float32")
        stepped(learner, batch)
        learner.ops.unrecorded(lambda x: learner.logits(x, Mode.EVAL), batch.x)
        counts.append(len(graphs))
    assert counts == [4, 4, 4, 4]


def test_a_model_comes_back_as_it_was(backend):
    """Also where the forward fails in the middle."""
    learner = learner_in(backend, "bf16", "bf16")
    batch = backend.batch(problem(), "float32")
    stepped(learner, batch)
    five_axes = backend.tensor(np.zeros((1, *batch.x.shape), "float32"))
    with pytest.raises((RuntimeError, ValueError), match=r"5|xpected"):
        learner.value_and_grad(lambda: (learner.logits(five_axes, Mode.TRAIN), {}))
    logits = learner.logits(batch.x, Mode.EVAL)
    np.testing.assert_array_equal(backend.array(logits), learner_like(learner, backend, batch))


def learner_like(learner, backend, batch):
    other = learner_in(backend)
    other.load_weights(learner.weights())
    return backend.array(other.logits(batch.x, Mode.EVAL))


def test_a_users_own_autocast_reaches_the_step():
    backend = load("torch")
    import torch

    batch = backend.batch(problem(), "float32")
    results = []
    for region in (False, True):
        learner = learner_in(backend)
        with torch.autocast("cpu", torch.bfloat16, enabled=region):
            results.append(stepped(learner, batch))
    assert 0 < abs(results[0] - results[1]) <= 16 * EPS * abs(results[0])


def test_pixels_are_normalised_before_they_are_rounded():
    """In Keras the layers that prepare pixels keep float32, as torch's autocast has it."""
    load("keras")
    import keras

    from stcore.backends.keras import precision

    seen = {}

    def note(name):
        return keras.layers.Lambda(lambda x: (seen.__setitem__(name, x.dtype.name), x)[1], name=name)

    pixels = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(2.0)(pixels)
    x = keras.layers.Conv2D(4, 3)(x)
    logits = keras.layers.Dense(3)(keras.layers.Flatten()(note("inside")(x)))
    model = keras.Model(pixels, logits)
    values = []
    for layer in model.layers:
        if isinstance(layer, keras.layers.Rescaling):
            layer.call = lambda x, own=layer.call: (values.append(x.dtype.name), own(x))[1]
    out = precision.as_logits(precision.in_bfloat16(model, model)(np.zeros((1, 8, 8, 3), "float32")), "float32")
    assert (values[-1], seen["inside"], out.dtype.name) == ("float32", "bfloat16", "float32")
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}


# --- TF32 ---


def test_tf32_asks_for_a_gpu_that_has_it(backend):
    for outer, inner in (("tf32", "fp32"), ("fp32", "tf32")):
        with pytest.raises(DeviceError, match=r"8\.0 or more for tf32"):
            learner_in(backend, outer, inner)


def test_torch_multiplies_in_float32_but_in_the_passes_that_are_to_be_tf32(monkeypatch):
    """The switches are the process's: they are on in these forwards and ways back, and off in between."""
    backend = load("torch")
    import torch

    from stcore.backends.torch import use_device

    def switches():
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)  # torch's own default; put back afterwards
    use_device("cpu")
    assert switches() == (False, False)
    seen = {"forward": [], "back": []}

    class Note(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            seen["forward"].append(switches())
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            seen["back"].append(switches())
            return g

    class Noted(torch.nn.Sequential):
        def forward(self, x):
            return Note.apply(super().forward(x))

    for outer, inner in (("tf32", "fp32"), ("fp32", "tf32"), ("tf32", "tf32")):
        learner = backend.learner(Noted(torch.nn.Flatten(), torch.nn.Linear(192, 3)))
        learner.precision, learner.inner_precision = outer, inner
        batch = backend.batch(problem(), "float32")
        on = {"fp32": (False, False), "tf32": (True, True)}
        for notes in seen.values():
            notes.clear()
        CONFIG.find(learner.searching(), batch.x, batch.y, batch.noise)
        assert {*seen["forward"], *seen["back"]} == {on[inner]}
        for notes in seen.values():
            notes.clear()
        gradients(learner_of(learner), CONFIG, batch, stcore.SqueezePair(batch.x, batch.x))
        assert {*seen["forward"], *seen["back"]} == {on[outer]}
        learner.eval_logits(batch.x)
        assert switches() == seen["forward"][-1] == (False, False)


def learner_of(learner):
    """`gradients` reads weights by canonical names, which a user's own network need not have."""
    learner.weights = dict
    return learner


def test_tensorflow_switches_tf32_on_around_training_steps_alone(monkeypatch):
    backend = load("keras")
    import tensorflow as tf

    from stcore.backends.keras import tensorflow, use_device

    enabled = tf.config.experimental.tensor_float_32_execution_enabled
    use_device("cpu")
    assert not enabled()
    monkeypatch.setattr(tensorflow, "has_tensor_float_32", lambda: True)
    learner = learner_in(backend, "tf32", "tf32")
    assert learner.compile(lambda: enabled())()
    assert not learner.compile(lambda: enabled(), rowwise=True)()
    assert not enabled()
    with pytest.raises(UsageError, match="for both"):
        learner_in(backend, "tf32", "fp32")
    learner_in(backend, "tf32", "bf16")  # bf16 asks for no switch


# --- XLA ---


@pytest.mark.parametrize(("objective", "sizes"), [(CONFIG, (4,)), (StandardConfig(), (6, 4))])
def test_steps_by_xla_are_the_eager_ones(objective, sizes):
    """Also of two sizes, each compiled for itself."""
    backend = load("keras")
    results = []
    for choice in ("off", "xla"):
        learner = learner_in(backend, choice=choice, net="tiny", dtype="float64")
        assert learner.xla == (choice == "xla")
        step = learner.compile(lambda x, y, noise, to=learner: training_step(to, objective, x, y, noise))
        for count in sizes:
            batch = backend.batch(problem(count))
            step(batch.x, batch.y, batch.noise[: len(objective.noise_laws)])
        results.append(learner.weights())
    assert_close(*results, 1e-12)


# --- Runs ---


def test_a_learner_in_bf16_goes_on_from_its_snapshot_bit_for_bit(backend):
    batches = [backend.batch(problem(seed=seed), "float32") for seed in range(2)]
    whole, resumed = (learner_in(backend, "bf16", "bf16") for _ in range(2))
    stepped(whole, batches[0])
    resumed.restore(whole.snapshot())
    for learner in (whole, resumed):
        stepped(learner, batches[1])
    assert_same(resumed.snapshot(), whole.snapshot())


def test_a_run_in_bf16_says_so_and_keeps_float32_weights(backend, tmp_path):
    settings = {"backend": backend.name, "precision": "bf16", "epochs": 2}
    said = small.train(tmp_path / "whole", **settings)
    assert said.code == 0, said.err
    assert 'precision = "bf16"' in (tmp_path / "whole/config.toml").read_text()
    rows = [json.loads(line) for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    plain = small.trained(backend.name)
    assert rows[0]["loss"] == pytest.approx(plain.metrics[0]["loss"], rel=0.05)
    assert rows[0]["loss"] != plain.metrics[0]["loss"]
    weights = stcore.base.weights_file.load_weights(tmp_path / "whole/last.safetensors")[0]
    assert {array.dtype for array in weights.values()} == {np.dtype("float32")}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "fp16"}, "precision: expected one of fp32, tf32, bf16"),
        ({"inner_precision": "half"}, "inner_precision: expected one of"),
        ({"dtype": "float64", "precision": "bf16"}, "expected float32 with bf16; received float64"),
        ({"dtype": "float64", "inner_precision": "bf16"}, "expected float32 with bf16"),
        ({"compile": "xla"}, "received xla, Keras' own"),
        ({"compile": "jit"}, "compile: expected one of auto, on, off, xla"),
        ({"compile": "on", "gradient_checkpointing": True}, "gradient_checkpointing: expected none"),
    ],
)
def test_what_does_not_go_together_is_said(settings, message):
    with pytest.raises(UsageError, match=message):
        make_plan(settings)


def test_the_search_reckons_as_the_outer_forwards_unless_told_otherwise():
    assert make_plan({"precision": "bf16"}).runtime.search_precision == "bf16"
    assert make_plan({"precision": "bf16", "inner_precision": "fp32"}).runtime.search_precision == "fp32"
    assert make_plan({}).runtime.search_precision == "fp32"
