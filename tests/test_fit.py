"""The Keras way: `fit` makes the steps of `stcli train`, and Keras' habits hold."""

import dataclasses
import itertools
import json
import warnings
import zipfile

import numpy as np
import pytest
from harness import assert_close, assert_same, load
from small import plan as make_plan
from small import train

import stcore
from stcore import AWP, AdversarialConfig, GairatConfig, SqueezeConfig, StandardConfig
from stcore.attacks import PGD
from stcore.base.noise import sample
from stcore.base.seeding import Stream
from stcore.base.weights_file import load_weights
from stcore.core.objective import training_step
from stcore.data import Batches
from stcore.errors import DataError, UsageError
from stcore.methods import METHODS, make_objective
from stcore.models import build
from stcore.protocols import Mode
from stcore.runs.preparation import set_up
from stcore.training.schedules import make_schedule
from stcore.training.trainer import Schedules

QUICK = {"steps": 2}
SHALLOW = {"model": "factories:keras_few_weights"}
"""A convolution with batch norm before the last layer: tracing the steps is most of the time."""
pytestmark = pytest.mark.filterwarnings("ignore:Your input ran out of data")  # generators do not say their length


@pytest.fixture(scope="module", autouse=True)
def keras():
    load("keras")
    import keras

    return keras


# --- The CLI's run, made again by fit ---


def pixels(batch):
    return batch.images.astype("float32") / 255, batch.labels


def pipeline(batches, first=1):
    """A tf.data pipeline of an epoch's batches each time it is gone through."""
    import tensorflow as tf

    epochs, shape = itertools.count(first), batches.data.images.shape[1:]
    return tf.data.Dataset.from_generator(
        lambda: map(pixels, batches.epoch(next(epochs))),
        output_signature=(tf.TensorSpec((None, *shape)), tf.TensorSpec((None,), "int64")),
    ).prefetch(3)


def batches_of(plan, splits):
    return Batches(splits.train, plan.optimisation.batch_size, plan.seed, plan.data.augment)


def network_of(plan, splits):
    *size, channels = splits.train.image_shape
    counts = {"num_classes": splits.train.num_classes, "in_channels": channels}
    return build(
        plan.model.name, "keras", image_size=tuple(size), seed=plan.seed, dtype=plan.runtime.dtype, **counts
    )


def squeeze_model(plan, splits, **compiling):
    from stcore.backends.keras import SqueezeModel, TorchSGD

    model = SqueezeModel(
        network_of(plan, splits), plan.objective, perturbation=plan.method.perturbation, seed=plan.seed
    )
    model.compile(
        TorchSGD(
            plan.optimisation.learning_rate,
            plan.optimisation.momentum,
            plan.optimisation.weight_decay,
            plan.optimisation.nesterov,
        ),
        **compiling,
    )
    return model


def fit(plan, model, source, callbacks=(), **options):
    import keras

    schedules = Schedules(
        plan.optimisation.epochs,
        plan.optimisation.learning_rate,
        make_schedule(plan.optimisation.schedule, plan.optimisation.drops),
    )
    rate = keras.callbacks.LearningRateScheduler(lambda epoch: schedules.rate(epoch + 1))
    options = {"epochs": plan.optimisation.epochs, "verbose": 0, "shuffle": False} | options
    return model.fit(source, callbacks=[rate, *callbacks], **options).history


def fitted(plan, source=pipeline, compiling=None, **options):
    """The model after the plan's epochs, and its history."""
    splits = set_up(plan).splits
    model = squeeze_model(plan, splits, **(compiling or {}))
    return model, fit(plan, model, source(batches_of(plan, splits)), **options)


def weights(model):
    return stcore.make_classifier(model.net).weights()


@pytest.fixture
def traces(monkeypatch):
    """What each trace of a training step was for."""
    from stcore.backends.keras import fit as module

    seen = []

    def noting(*args):
        seen.append((args[5], args[6] is not None))
        return training_step(*args)

    monkeypatch.setattr(module, "training_step", noting)
    return seen


@pytest.mark.parametrize(
    ("settings", "stages"),
    [
        ({"method": "st"}, [(0, False)]),
        ({"method": "trades", "awp": 0.05, **SHALLOW}, [(0, True)]),
        ({"method": "trades", "divergence": "gkl", "beta": 20, **SHALLOW}, [(0, False)]),
        ({"method": "gairat", "begin_epoch": 2, **SHALLOW}, [(0, False), (1, False)]),
        ({"method": "at", "awp": 0.05, "perturbation_warmup": 2, **SHALLOW}, [(0, False), (0, True)]),
    ],
    ids=["st", "trades with awp", "class means", "gairat from epoch 2", "awp from epoch 2"],
)
def test_fit_makes_the_steps_of_the_command_line_bit_for_bit(tmp_path, traces, settings, stages):
    """Two epochs of two batches, the second short; the rate drops; everything in float32."""
    import keras

    from stcore.backends.keras import RobustEvaluation

    settings = {"backend": "keras", "epochs": 2, "attacks": "", **QUICK, **settings}
    said = train(tmp_path / "run", **settings)
    assert said.code == 0, said.err
    plan, best = make_plan(**settings), tmp_path / "best.keras"
    validation = set_up(plan).splits.validation
    data = validation.images.astype("float32") / 255, validation.labels
    callbacks = [
        RobustEvaluation(data, epsilon=plan.evaluation.epsilon, batch_size=plan.evaluation.batch_size),
        keras.callbacks.ModelCheckpoint(best, monitor="val_pgd20", mode="max", save_best_only=True),
    ]
    model, history = fitted(plan, callbacks=callbacks)
    assert_same(weights(model), load_weights(tmp_path / "run" / "last.safetensors")[0])
    assert traces == stages
    assert best.exists()
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for name in ("natural", "pgd20"):
        assert history[f"val_{name}"] == [row[f"{name}_accuracy"] for row in rows]
    for name in set(history) & set(rows[0]) - {"learning_rate"}:
        np.testing.assert_allclose(history[name], [row[name] for row in rows], rtol=2e-6, atol=1e-7, err_msg=name)
    assert history.keys() >= {"loss", "adversarial_loss", "learning_rate"}


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"st", "trades", "gairat", "at"}))
def test_every_other_method_fits(keras, method, traces, global_random_state):
    """One layer and one batch; methods whose weights are compared with the command line's are above."""
    objective = make_objective(method, {})
    if hasattr(objective, "step_size"):
        objective = dataclasses.replace(objective, steps=2, epsilon=0.2, step_size=0.1)
    x, y = problem()
    model = model_of(keras, objective)
    before = model.get_weights()
    history = model.fit(x, y, verbose=0).history
    assert len(traces) == 1
    assert all(np.isfinite(values).all() for values in history.values())
    assert all(np.abs(now - then).max() > 1e-5 for now, then in zip(model.get_weights(), before, strict=True))


# --- Keras' ways to run and to feed it ---

ODD = {"backend": "keras", "method": "at", "epochs": 2, "batch_size": 24, **QUICK, **SHALLOW}
"""Batches of 24, 24 and 16: not a multiple of 2 steps."""


@pytest.fixture(scope="module")
def usual():
    """The weights after each epoch."""
    import keras

    plan, seen = make_plan(**ODD), []
    splits = set_up(plan).splits
    model = squeeze_model(plan, splits)
    note = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: seen.append(weights(model)))
    fit(plan, model, pipeline(batches_of(plan, splits)), callbacks=[note])
    return seen


@pytest.mark.parametrize("compiling", [{"steps_per_execution": 2}, {"run_eagerly": True}], ids=str)
def test_how_the_steps_are_run_changes_nothing(usual, compiling, traces):
    """Eagerly in float64: in float32 the sums of a traced and an eager step differ, and some signs with them.

    And of a network without biases before batch norm, whose gradients are nothing but rounding."""
    eager = "run_eagerly" in compiling
    plan = make_plan(**{**ODD, "model": "tiny", "dtype": "float64"} if eager else ODD)
    received = weights(fitted(plan, compiling=compiling)[0])
    assert len(traces) == (6 if eager else 1)
    assert_close(received, weights(fitted(plan)[0]) if eager else usual[1], 1e-7)


def arrays(batches, epoch=1):
    parts = zip(*map(pixels, batches.epoch(epoch)), strict=True)
    return tuple(np.concatenate(part) for part in parts)


@pytest.mark.parametrize("source", ["arrays", "PyDataset", "generator"])
def test_what_the_batches_come_from_changes_nothing(keras, usual, source):
    plan = make_plan(**ODD)
    splits = set_up(plan).splits
    batches = batches_of(plan, splits)
    items = list(map(pixels, batches.epoch(1)))

    class Sequence(keras.utils.PyDataset):
        def __len__(self):
            return len(items)

        def __getitem__(self, index):
            return items[index]

    model = squeeze_model(plan, splits)
    if source == "arrays":
        x, y = arrays(batches)
        fit(plan, model, x, y=y, batch_size=plan.optimisation.batch_size, epochs=1)
    else:
        fit(plan, model, Sequence() if source == "PyDataset" else (item for item in items), epochs=1)
    assert_same(weights(model), usual[0])


def test_training_goes_on_from_saved_weights(usual, tmp_path):
    """With the optimizer's velocity, and the noise and the rate of the epoch that comes."""
    plan = make_plan(**ODD)
    splits = set_up(plan).splits
    batches, first, second = batches_of(plan, splits), squeeze_model(plan, splits), squeeze_model(plan, splits)
    fit(plan, first, pipeline(batches), epochs=1)
    first.save_weights(tmp_path / "state.weights.h5")
    second.load_weights(tmp_path / "state.weights.h5")
    assert_same(weights(second), weights(first))
    fit(plan, second, pipeline(batches, first=2), initial_epoch=1)
    assert_same(weights(second), usual[1])


def test_the_network_loads_the_weights_alone_and_its_own_are_loaded(keras, tmp_path):
    """They are Keras' files of the network, compiled with the optimizer or not."""
    x, y = problem()
    trained, path = model_of(keras), tmp_path / "it.weights.h5"
    trained.fit(x, y, verbose=0)
    trained.save_weights(path)
    assert trained.net.optimizer is None  # as before
    alone = network(keras)
    alone.load_weights(path)
    alone.save_weights(path)
    other = model_of(keras, rate=0.1)
    with warnings.catch_warnings(action="ignore"):  # Keras says that the file has no optimizer
        other.load_weights(path)
    for expected, *loaded in zip(*(each.get_weights() for each in (trained, alone, other)), strict=True):
        np.testing.assert_array_equal(loaded, [expected] * 2)
    assert float(other.optimizer.learning_rate.numpy()) == 0.1


def subclassed(keras):
    """`network`, which only knows its layers until it sees an image."""

    class Plain(keras.Model):
        def __init__(self):
            super().__init__()
            kernel = keras.initializers.RandomNormal(0.0, 0.5, seed=1)
            self.body = keras.Sequential(
                [keras.layers.Flatten(), keras.layers.Dense(3, kernel_initializer=kernel)]
            )

        def call(self, x, training=None):
            return self.body(x, training=training)

    return Plain()


@pytest.mark.parametrize("source", ["arrays", "tf.data", "a callback's"])
def test_a_network_is_built_on_the_first_batch(keras, source):
    import tensorflow as tf

    from stcore.backends.keras import RobustEvaluation

    (x, y), objective = problem(), AdversarialConfig(steps=1, epsilon=0.2, step_size=0.1)
    net, expected = subclassed(keras), one_epoch(model_of(keras, objective), x, y)
    assert not net.built
    model = model_of(keras, objective, net=net)
    if source == "tf.data":
        model.fit(tf.data.Dataset.from_tensors((x, y)), verbose=0)
    else:
        robust = [RobustEvaluation((x, y), ["fgsm"])] if source == "a callback's" else []
        one_epoch(model, x, y, callbacks=robust)
    for one, other in zip(net.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_network_cannot_be_built_on_images_of_unknown_size(keras):
    import tensorflow as tf

    x, y = problem()
    pipeline = tf.data.Dataset.from_generator(
        lambda: [(x, y)],
        output_signature=(tf.TensorSpec((None, None, None, 1)), tf.TensorSpec((None,), "int64")),
    )
    with pytest.raises(UsageError, match=r"known shape.*received \(None, None, 1\).*ensure_shape"):
        model_of(keras, net=subclassed(keras)).fit(pipeline, verbose=0)
    with pytest.raises(UsageError, match="its forward raised"):
        model_of(keras, net=keras.Sequential([keras.layers.Conv2D(3, 9)])).fit(x, y, verbose=0)


def test_keras_own_optimizers_and_callbacks_work(keras):
    from stcore.backends.keras import SqueezeModel

    x, y = problem()
    model = SqueezeModel(network(keras), AdversarialConfig(steps=1))
    model.compile("adam")
    plateau = keras.callbacks.ReduceLROnPlateau(monitor="loss", factor=0.5, patience=1, min_delta=1e9)
    history = model.fit(x, y, epochs=3, verbose=0, callbacks=plateau).history
    assert history["learning_rate"] == pytest.approx([1e-3, 1e-3, 5e-4])


# --- Losses: weights of the examples, regularisers ---


def network(keras, regularizer=None, **last):
    kernel = keras.initializers.RandomNormal(0.0, 0.5, seed=1)
    return keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(3, kernel_initializer=kernel, kernel_regularizer=regularizer, **last),
        ]
    )


def problem(size=8):
    rng = np.random.default_rng(0)
    return rng.uniform(size=(size, 4, 4, 1)).astype("float32"), np.arange(size) % 3


def model_of(keras, objective=StandardConfig(), rate=0.5, net=None, **compiling):  # noqa: B008
    from stcore.backends.keras import SqueezeModel, TorchSGD

    model = SqueezeModel(net or network(keras), objective)
    model.compile(TorchSGD(rate, momentum=0.0), **compiling)
    return model


def one_epoch(model, x, y, **options):
    model.fit(x, y, **{"batch_size": len(x), "shuffle": False, "verbose": 0} | options)
    return [np.array(weight) for weight in model.get_weights()]


def test_an_example_of_weight_zero_is_out_of_the_loss(keras):
    x, y = problem()
    factors = np.array([2.0, 2, 2, 2, 0, 0, 0, 0], "float32")
    weighted = one_epoch(model_of(keras), x, y, sample_weight=factors)
    alone = one_epoch(model_of(keras), x[:4], y[:4])
    plain = one_epoch(model_of(keras), x, y)
    for one, other in zip(weighted, alone, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert np.abs(weighted[0] - plain[0]).max() > 1e-3


def test_weights_are_those_of_a_training_step(keras):
    from stcore.backends.keras import TorchSGD

    (x, y), objective = problem(), AdversarialConfig(steps=2, epsilon=0.2, step_size=0.1)
    factors = np.linspace(0, 2, len(x)).astype("float32")
    received = one_epoch(model_of(keras, objective), x, y, sample_weight=factors)
    learner = stcore.make_learner(network(keras), TorchSGD(0.5, momentum=0.0))
    noise = sample(objective.noise_laws, 0, Stream.NOISE, np.arange(len(x)), x.shape[1:], epoch=1)
    noise = tuple(map(learner.images, noise))
    given = learner.images(x), learner.labels(y), noise
    training_step(learner, objective, *given, weights=keras.ops.convert_to_tensor(factors))
    for one, other in zip(received, learner.model.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_class_weights_are_the_weights_of_their_examples(keras):
    x, y = problem()
    by_class = one_epoch(model_of(keras), x, y, class_weight={0: 1.0, 1: 0.0, 2: 3.0})
    by_example = one_epoch(model_of(keras), x, y, sample_weight=np.array([1.0, 0, 3])[y])
    for one, other in zip(by_class, by_example, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("objective", [StandardConfig(), SqueezeConfig(steps=1)], ids=["standard", "st"])
def test_a_regulariser_counts_once_a_step(keras, objective):
    """The examples' losses away, w ← (1 − 2ηλ)·w is left."""
    x, y = problem()
    model = model_of(keras, objective, net=network(keras, keras.regularizers.L2(0.1)))
    model.evaluate(x, y, verbose=0)
    (before, *_), nothing = model.get_weights(), np.zeros(len(x))
    after, *_ = one_epoch(model, x, y, sample_weight=nothing)
    np.testing.assert_allclose(after, (1 - 2 * 0.5 * 0.1) * before, rtol=1e-6)
    assert model.history.history["loss"][0] == pytest.approx(0.1 * np.square(before).sum(), rel=1e-6)


# --- Networks of 0–255 pixels ---


def of_bytes(keras, white=255):
    """`network` in float64 behind a division, and the plain one."""
    plain = keras.Sequential([keras.Input((4, 4, 1), dtype="float64"), *dense(keras)])
    scaled = keras.Sequential(
        [
            keras.Input((4, 4, 1), dtype="float64"),
            keras.layers.Rescaling(1 / white, dtype="float64"),
            *dense(keras),
        ]
    )
    return scaled, plain


def dense(keras):
    kernel = keras.initializers.RandomNormal(0.0, 0.5, seed=1)
    return [
        keras.layers.Flatten(dtype="float64"),
        keras.layers.Dense(3, kernel_initializer=kernel, dtype="float64"),
    ]


def test_a_network_of_bytes_trains_as_its_plain_twin(keras):
    """In its own units. White is 256: Keras rounds a scale to float32, and hands images over in it."""
    x, y = problem()
    scaled, plain = of_bytes(keras, 256)
    small = SqueezeConfig(epsilon=0.2, step_size=0.1, steps=2)
    large = SqueezeConfig(
        epsilon=256 * 0.2, step_size=256 * 0.1, steps=2, noise_std=256 * small.noise_std, bounds=(0, 256)
    )
    x = x.astype("float64")
    received = one_epoch(model_of(keras, large, net=scaled), 256 * x, y, epochs=3)
    for one, other in zip(received, one_epoch(model_of(keras, small, net=plain), x, y, epochs=3), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)
    x, y = keras.ops.convert_to_tensor(x), keras.ops.convert_to_tensor(y)
    steps = zip(
        stcore.squeeze_step(scaled, 256 * x, y, config=large, rng=0),
        stcore.squeeze_step(plain, x, y, config=small, rng=0),
        strict=True,
    )
    for one, other in steps:
        np.testing.assert_allclose(one / 256, other, atol=1e-12)


def test_behind_a_multiplication_it_is_evaluated_as_its_plain_twin(keras):
    from stcore.backends.keras import RobustEvaluation

    x, y = problem(64)
    scaled, plain = of_bytes(keras)
    within = keras.Sequential(
        [keras.Input((4, 4, 1), dtype="float64"), keras.layers.Rescaling(255.0, dtype="float64"), scaled]
    )
    attacks = {"attacks": ["fgsm", "pgd20"], "epsilon": 0.1}
    one, other = (stcore.evaluate(net, (x.astype("float64"), y), **attacks) for net in (within, plain))
    assert [one[name].value for name in one] == [other[name].value for name in other]

    model = model_of(
        keras, SqueezeConfig(epsilon=51, step_size=25, steps=1, bounds=(0, 255)), rate=0.0, net=scaled
    )
    history = model.fit(255 * x, y, verbose=0, callbacks=[RobustEvaluation((x, y), **attacks)]).history
    assert [history[f"val_{name}"] for name in other] == [[other[name].value] for name in other]


def test_pixels_are_in_the_range_that_the_network_takes(keras):
    (x, y), (scaled, _) = problem(), of_bytes(keras)
    large = SqueezeConfig(epsilon=51, step_size=25, bounds=(0, 255))
    with pytest.raises(
        UsageError, match=r"received one whose Rescaling leaves a range of 0.0039.*Rescaling\(255\)"
    ):
        model_of(keras, net=scaled)
    with pytest.raises(UsageError, match="whose Rescaling leaves"):
        stcore.train(scaled, (x, y), validation=(x, y))
    refused(model_of(keras, large, net=scaled), (255 * x).astype("uint8"), y, DataError, "uint8. Convert them")
    refused(model_of(keras, large, net=scaled), 256 * x + 100, y, DataError, r"in \[0, 255\].*Give bounds")


# --- What is refused, before anything is trained ---


def refused(model, x, y, error, match, **options):
    before = model.get_weights()
    with pytest.raises(error, match=match):
        model.fit(x, y, verbose=0, **options)
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


HOT = np.eye(3, dtype="float32")
FORMS = {
    "(N, 1)": lambda y: y[:, None],
    "one-hot": lambda y: HOT[y],
    "one-hot integers": lambda y: HOT[y].astype(int),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_labels_of_other_forms_train_as_integers(keras, form):
    """And Keras' metrics by name know them."""
    (x, y), logs = problem(), []
    for labels in (y, form(y)):
        model = model_of(keras, metrics=["accuracy"])
        model.net.set_weights(
            [np.full_like(w, 0.1) * (1 + np.arange(w.size)).reshape(w.shape) for w in model.net.get_weights()]
        )
        weights = one_epoch(model, x, labels)
        logs.append((weights, model.evaluate(x, labels, verbose=0, return_dict=True)))
    for one, other in zip(*(weights for weights, _ in logs), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    assert logs[0][1] == pytest.approx(logs[1][1], rel=1e-5)
    assert logs[0][1].keys() == {"loss", "accuracy"}


def test_soft_labels_train_by_their_expectation(keras):
    """Of standard training's gradient: that of one label's, weighted."""
    (x, y), net = problem(), network(keras)
    start, other = net.get_weights(), (y + 1) % 3
    moved = []
    for labels in (y, other, 0.75 * HOT[y] + 0.25 * HOT[other]):
        net.set_weights(start)
        weights = one_epoch(model_of(keras, net=net), x, labels)
        moved.append([after - before for after, before in zip(weights, start, strict=False)])
    for first, second, mixed in zip(*moved, strict=True):
        np.testing.assert_allclose(mixed, 0.75 * first + 0.25 * second, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_pixels_and_labels_out_of_range_are_refused(keras, run_eagerly):
    import tensorflow as tf

    (x, y), model = problem(), model_of(keras, run_eagerly=run_eagerly)
    refused(model, x * 255, y, DataError, r"x: expected pixels in \[0, 1\].*Divide")
    refused(model, (x * 255).astype("uint8"), y, DataError, "received uint8. Divide")
    refused(model, tf.data.Dataset.from_tensors((x * 255, y)), None, DataError, "x: expected pixels")
    refused(model, x, y + 1, DataError, r"y: expected labels in \[0, 3\)")
    refused(model, x, y[:, None, None], DataError, r"y: expected (integer )?labels of shape \(B,\)")
    refused(model, x, y * 1.0, DataError, r"y: expected integer labels of shape \(B,\)")
    refused(model, x, None, UsageError, "data: expected images and labels")
    refused(model, x, y, UsageError, "sample_weight: expected shape", sample_weight=np.ones((len(x), 1)))
    with pytest.raises(DataError, match="x: expected pixels"):
        model.evaluate(x * 255, y, verbose=0)
    model.fit(x, y, verbose=0)  # and it is as good as new


def test_soft_labels_out_of_range_are_refused(keras):
    x, y = problem()
    hot = np.eye(4, dtype="float32")[y]
    for labels, message in ((hot, r"of shape \(B, 3\), the model's classes"), (2 * hot[:, :3], r"in \[0, 1\]")):
        refused(model_of(keras), x, labels, DataError, f"y: expected .*class probabilities {message}")


def test_labels_whose_shape_a_pipeline_does_not_say_are_integers(keras):
    import tensorflow as tf

    def pipeline(labels):
        signature = tf.TensorSpec((None, 4, 4, 1)), tf.TensorSpec(None, labels.dtype)
        return tf.data.Dataset.from_generator(lambda: [(x, labels)], output_signature=signature)

    (x, y), model = problem(), model_of(keras)
    for integers in (y, y[:, None]):
        model.fit(pipeline(integers), verbose=0)
    refused(model, pipeline(HOT[y]), None, DataError, r"not say the labels' shape; received \(8, 3\). Declare")


def test_batches_to_evaluate_on_are_looked_at_before_training(keras):
    import tensorflow as tf

    from stcore.backends.keras import RobustEvaluation

    (x, y), model = problem(), model_of(keras)
    for wrong, message in (((x * 255, y), "x: expected pixels"), ((x, y + 5), "y: expected labels")):
        robust = RobustEvaluation(tf.data.Dataset.from_tensors(wrong))
        refused(model, x, y, DataError, message, callbacks=[robust])


def test_networks_that_do_not_fit_are_refused(keras):
    x, y = problem()
    activity = network(keras, activity_regularizer=keras.regularizers.L2(0.1))
    refused(
        model_of(keras, net=network(keras, activation="softmax")), x, y, UsageError, "Remove the final softmax"
    )
    refused(model_of(keras, net=activity), x, y, UsageError, "received activity regularisers or add_loss")
    with pytest.raises(UsageError, match=r"net: expected a keras\.Model; received str"):
        model_of(keras, net="small-cnn")


def test_settings_that_do_not_fit_are_refused(keras):
    from stcore.backends.keras import RobustEvaluation, SqueezeModel

    model, (x, y) = model_of(keras), problem()
    with pytest.raises(UsageError, match=r"loss: expected none.*received 'mse'.*SqueezeModel\(net, objective\)"):
        model.compile("sgd", "mse")
    with pytest.raises(UsageError, match=r"jit_compile: expected False; received True.*Leave it out"):
        model.compile("sgd", jit_compile=True)
    model.compile("sgd", jit_compile="auto")
    assert model.jit_compile is False
    with pytest.raises(UsageError, match=r"objective: expected a method's settings.*received 'st'"):
        SqueezeModel(model.net, "st")
    with pytest.raises(UsageError, match="seed"):
        SqueezeModel(model.net, seed=-1)
    for data, error, match in [
        ((x * 255, y), DataError, "x: expected pixels"),
        ((x, y[1:]), UsageError, "as many labels as images; received 7 and 8"),
    ]:
        with pytest.raises(error, match=match):
            RobustEvaluation(data)
    for wrong in ({"every": 0}, {"batch_size": 0}, {"attacks": ["pgd"]}):
        with pytest.raises(UsageError):
            RobustEvaluation((x, y), **wrong)
    refused(model, x, y, DataError, "y: expected labels", callbacks=RobustEvaluation((x, y + 1)))


# --- Evaluation, prediction, checkpoints ---


class Counting(PGD):
    """An attack that counts how often it is traced."""

    traced = 0

    def find(self, *args):
        type(self).traced += 1
        return super().find(*args)


def test_robust_accuracy_is_there_for_the_callbacks_behind_it(keras, tmp_path):
    import tensorflow as tf

    from stcore.backends.keras import RobustEvaluation

    x, y = problem(64)
    model = model_of(keras, AdversarialConfig(steps=1), rate=0.0)
    given = {"pgd20": stcore.attacks.preset("pgd20", 0.1), "counted": Counting(0.1, steps=2)}
    robust = RobustEvaluation(tf.data.Dataset.from_tensor_slices((x, y)).batch(24), given)
    path = tmp_path / "best.keras"
    history = model.fit(
        x,
        y,
        epochs=5,
        verbose=0,
        callbacks=[
            robust,
            keras.callbacks.ModelCheckpoint(path, monitor="val_pgd20", mode="max", save_best_only=True),
            keras.callbacks.EarlyStopping(monitor="val_pgd20", mode="max", patience=1),
        ],
    ).history
    assert len(history["val_pgd20"]) == len(history["loss"]) == 2  # nothing moves, so nothing gets better
    expected = stcore.evaluate(model.net, (x, y), given)
    for name in ("natural", "pgd20", "counted"):
        assert history[f"val_{name}"] == [expected[name].value] * 2
    Counting.traced = 0
    model.fit(x, y, epochs=3, verbose=0, callbacks=[robust])
    assert Counting.traced == 0  # it was traced by the first fit
    model.fit(x, y, epochs=3, verbose=0, callbacks=[RobustEvaluation((x, y), given, batch_size=24)])
    assert Counting.traced == 1

    with zipfile.ZipFile(path) as file:
        assert b"stcore" not in file.read("config.json")
    plain = keras.models.load_model(path)
    assert type(plain) is keras.Sequential
    np.testing.assert_array_equal(plain.predict(x, verbose=0), model.predict(x, verbose=0))


def test_epochs_without_evaluation_have_no_entry(keras):
    from stcore.backends.keras import RobustEvaluation

    x, y = problem()
    names = []
    note = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: names.append("robust_fgsm" in logs))
    robust = RobustEvaluation((x, y), ["fgsm"], every=2, prefix="robust_")
    model_of(keras).fit(x, y, epochs=4, verbose=0, callbacks=[robust, note])
    assert names == [False, True, False, True]


def test_robust_evaluation_serves_any_model(keras):
    from stcore.backends.keras import RobustEvaluation

    x, y = problem()
    net = network(keras)
    net.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert "val_fgsm" in net.fit(x, y, verbose=0, callbacks=[RobustEvaluation((x, y), ["fgsm"])]).history


def test_evaluate_and_predict_are_the_networks_own(keras, global_random_state):
    plan = make_plan(backend="keras", method="standard")
    splits = set_up(plan).splits
    x, y = splits.test.images.astype("float32") / 255, splits.test.labels
    model = squeeze_model(plan, splits, metrics=["accuracy"])
    fit(plan, model, pipeline(batches_of(plan, splits)))  # so the statistics are not the batch's
    logits = model.net.predict(x, verbose=0)
    np.testing.assert_array_equal(model.predict(x, verbose=0), logits)
    np.testing.assert_allclose(model(x), logits, rtol=1e-5, atol=1e-6)
    result = model.evaluate(x, y, batch_size=20, verbose=0, return_dict=True)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert result["loss"] == pytest.approx(-log_p[np.arange(len(y)), y].mean(), rel=1e-5)
    assert result["accuracy"] == pytest.approx((logits.argmax(1) == y).mean())
    assert result.keys() == {"loss", "accuracy"}
    assert stcore.evaluate(model, (x, y), [])["natural"].value == pytest.approx(result["accuracy"])


def test_compiled_metrics_are_of_natural_images(keras):
    x, y = problem()
    model = model_of(keras, metrics=["accuracy"])
    assert "accuracy" not in model.fit(x, y, verbose=0).history
    history = model.fit(x, y, epochs=2, verbose=0, validation_data=(x, y)).history
    assert history.keys() == {"loss", "natural_loss", "val_loss", "val_accuracy"}
    for name, value in model.evaluate(x, y, verbose=0, return_dict=True).items():
        assert history[f"val_{name}"][-1] == pytest.approx(value)


def test_stages_that_come_back_are_not_traced_anew(keras, traces):
    from stcore.backends.keras import SqueezeModel

    x, y = problem()
    model = SqueezeModel(network(keras), GairatConfig(begin_epoch=2, **QUICK), perturbation=AWP(warmup=3))
    model.compile("sgd")
    for _ in range(2):
        model.fit(x, y, epochs=4, verbose=0)
    assert traces == [(0, False), (1, False), (1, True)]


def test_batches_by_hand(keras):
    """`train_on_batch`, told where an epoch begins, is `fit`."""
    x, y = problem()
    objective = SqueezeConfig(steps=1, epsilon=0.2, step_size=0.1)
    fitted = one_epoch(model_of(keras, objective), x, y, batch_size=4, epochs=2)
    model = model_of(keras, objective, run_eagerly=True)
    for epoch in (1, 2):
        model.begin_epoch(epoch)
        for where in (slice(4), slice(4, 8)):
            logs = model.train_on_batch(x[where], y[where], return_dict=True)
    assert logs.keys() >= {"loss", "divergence"}
    for one, other in zip(model.get_weights(), fitted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    logits = stcore.make_classifier(model.net).logits(keras.ops.convert_to_tensor(x), Mode.EVAL)
    np.testing.assert_allclose(model.predict_on_batch(x), logits, atol=1e-6)


def test_what_is_exported_predicts_as_the_network(tmp_path):
    """By TensorFlow alone."""
    backend = load("keras")
    import tensorflow as tf

    from stcore.backends.keras import SqueezeModel

    model = SqueezeModel(backend.build("tiny", dtype="float32"), SqueezeConfig(steps=1))
    model.compile(optimizer="sgd")
    model.export(tmp_path / "it", verbose=False)
    x = np.random.default_rng(0).uniform(size=(4, 8, 8, 3)).astype("float32")
    loaded = tf.saved_model.load(tmp_path / "it")
    np.testing.assert_allclose(loaded.serve(tf.constant(x)).numpy(), model.predict(x, verbose=0), atol=1e-6)
