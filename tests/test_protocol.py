"""Every operation of the protocol against numpy, edges included, on each backend; and that there are no others."""

import inspect
import math
import threading

import numpy as np
import pytest
from harness import load, problem
from hypothesis import given, settings
from hypothesis import strategies as st

import stcore
from stcore import SqueezeConfig
from stcore.errors import DataError, UsageError
from stcore.protocols import Ops

FLOATS = ("float32", "float64")
LOGITS = np.array([[1000.0, 0.0, -1000.0], [0.3, 0.1, -0.4]])


def public_functions(namespace):
    return {name for name, value in vars(namespace).items() if inspect.isroutine(value) and name[0] != "_"}


def test_a_backend_has_the_operations_of_the_protocol_and_no_others(every_backend):
    assert public_functions(every_backend.ops) == public_functions(Ops)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("sign", ([-2.0, -0.0, 0.0, 1e-30],), [-1, 0, 0, 1]),
        ("abs", ([-2.0, -0.0, 3.0],), [2, 0, 3]),
        ("max", (LOGITS,), [1000.0, 0.3]),
        ("max", (np.arange(24.0).reshape(2, 3, 2, 2),), [11, 23]),
        ("exp", ([-1.0, 0.0, 2.0],), np.exp([-1, 0, 2])),
        ("sqrt", ([0.0, 4.0],), [0, 2]),
        ("floor", ([-1.5, 0.0, 2.0, 2.75],), [-2, 0, 2, 2]),
        ("logaddexp", ([1e3, -1e3, 0.0], [1e3, -1e3, 1.0]), np.logaddexp([1e3, -1e3, 0], [1e3, -1e3, 1])),
        ("log_softmax", (LOGITS,), LOGITS - np.logaddexp.reduce(LOGITS, axis=1, keepdims=True)),
        ("clip", ([-2.0, 0.5, 2.0], -1.0, 1.0), [-1, 0.5, 1]),
        ("clip", ([-2.0, 0.5, 2.0], [0.0, 0.0, 0.0], [1.0, 0.25, 3.0]), [0, 0.25, 2]),
        ("clip", ([0.0, 3.0], 1e-30, float("inf")), np.array([1e-30, 3])),
        ("sum", (np.arange(6.0).reshape(2, 3),), [3, 12]),
        ("sum", (np.arange(24.0).reshape(2, 3, 2, 2),), [66, 210]),
        ("mean", ([1.0, 2.0, 6.0],), 3.0),
        ("matmul", ([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [[1.0], [10.0]]), [[21], [43], [65]]),
        ("matmul", ([[1.0, 2.0], [3.0, 4.0]], [[1.0, 0.0, 5.0], [0.0, 1.0, 5.0]], True), [[1, 3, 20], [2, 4, 30]]),
        ("ones_like", (np.zeros((2, 3)),), np.ones((2, 3))),
        ("stop_gradient", ([1.0, 2.0],), [1, 2]),
        ("expand_dims_like", ([1.0, 2.0], np.zeros((2, 3))), [[1], [2]]),
        ("expand_dims_like", ([1.0, 2.0], np.zeros((2, 3, 4, 4))), np.array([1, 2]).reshape(2, 1, 1, 1)),
    ],
)  # fmt: skip
def test_elementwise_and_reducing_operations(every_backend, name, arguments, expected, dtype):
    native = [a if isinstance(a, float | bool) else every_backend.tensor(np.asarray(a, dtype)) for a in arguments]
    result = every_backend.array(getattr(every_backend.ops, name)(*native))
    assert result.dtype == dtype
    assert result.shape == np.shape(expected)
    np.testing.assert_allclose(result, expected, rtol=1e-6 if dtype == "float32" else 1e-14)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("other", [7.0, np.array([7.0, np.nan, 7.0])])
def test_where_takes_nothing_from_the_branch_not_taken(every_backend, other, dtype):
    one = every_backend.tensor(np.array([np.nan, 2.0, np.inf], dtype))
    two = other if isinstance(other, float) else every_backend.tensor(other.astype(dtype))
    chosen = every_backend.ops.where(every_backend.tensor(np.array([False, True, False])), one, two)
    assert every_backend.array(chosen).dtype == dtype
    np.testing.assert_array_equal(every_backend.array(chosen), [7, 2, 7])


def test_where_with_an_expanded_condition_picks_whole_examples(every_backend):
    condition = every_backend.tensor(np.array([[[True]], [[False]]]))
    one, two = every_backend.tensor(np.ones((2, 2, 3))), every_backend.tensor(np.zeros((2, 2, 3)))
    result = every_backend.array(every_backend.ops.where(condition, one, two))
    np.testing.assert_array_equal(result, np.stack([np.ones((2, 3)), np.zeros((2, 3))]))


def test_the_rank_is_the_number_of_axes(every_backend):
    for array in (np.array([2, 0]), LOGITS, np.zeros((2, 3, 4, 4))):
        assert every_backend.ops.rank(every_backend.tensor(array)) == array.ndim


def test_one_hot_gives_booleans_of_as_many_classes_as_logits(every_backend):
    hot = every_backend.ops.one_hot(every_backend.tensor(np.array([2, 0])), every_backend.tensor(LOGITS))
    np.testing.assert_array_equal(every_backend.array(hot), [[False, False, True], [True, False, False]])
    assert every_backend.array(hot).dtype == bool


def test_the_largest_logits_in_order_ties_included(every_backend):
    found = every_backend.ops.top_k(every_backend.tensor(np.array([[1.0, 3, 3, 2], [0, -1, -2, 5]])), 3)
    np.testing.assert_array_equal([every_backend.array(one) for one in found], [[3, 5], [3, 0], [2, -1]])
    assert len(every_backend.ops.top_k(every_backend.tensor(LOGITS), 4)) == 3


def test_examples_are_taken_in_any_order_and_put_together(every_backend):
    x = np.arange(24.0).reshape(4, 2, 3)
    one, two = (every_backend.ops.take(every_backend.tensor(x), rows) for rows in ([2, 0], [3]))
    np.testing.assert_array_equal(every_backend.array(every_backend.ops.concat([one, two])), x[[2, 0, 3]])


def test_batches_are_separated_again(every_backend):
    x = np.arange(12.0).reshape(6, 2)
    parts = every_backend.ops.split(every_backend.tensor(x), 3)
    np.testing.assert_array_equal([every_backend.array(part) for part in parts], x.reshape(3, 2, 2))


def test_each_examples_entry_at_its_label(every_backend):
    values, labels = every_backend.tensor(LOGITS), every_backend.tensor(np.array([2, 0]))
    found, pullback = every_backend.ops.vjp(lambda v: every_backend.ops.of_label(v, labels), values)
    np.testing.assert_array_equal(every_backend.array(found), LOGITS[[0, 1], [2, 0]])
    (gradient,) = pullback(every_backend.tensor(np.array([3.0, -2.0])))
    np.testing.assert_allclose(every_backend.array(gradient), [[0, 0, 3], [-2, 0, 0]], atol=1e-6)


SCORES = st.lists(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), min_size=4, max_size=4), min_size=1, max_size=4)


@settings(deadline=None, max_examples=30)
@given(scores=SCORES)
def test_the_extremes_of_several_batches_are_the_earliest(every_backend, scores):
    scores, ops = np.array(scores), every_backend.ops
    values = every_backend.tensor(scores.reshape(-1))
    rows = ops.extremes(values, len(scores))
    places = every_backend.tensor(np.repeat(np.arange(len(scores)), 4) * 1.0)
    lowest, highest = (every_backend.array(one) for one in ops.split(ops.take(places, rows), 2))
    np.testing.assert_array_equal(lowest, scores.argmin(0))
    np.testing.assert_array_equal(highest, scores.argmax(0))
    np.testing.assert_array_equal(
        every_backend.array(ops.take(values, rows)), np.concatenate([scores.min(0), scores.max(0)])
    )


def test_an_example_taken_twice_has_the_sum_of_both_gradients(every_backend):
    ops, x = every_backend.ops, every_backend.tensor(np.array([[1.0, 2], [3, 4], [5, 6]]))
    _, pullback = ops.vjp(lambda x: ops.sum(ops.take(x, [2, 0, 2])), x)
    (gradient,) = pullback(every_backend.tensor(np.array([1.0, 10, 100])))
    np.testing.assert_allclose(every_backend.array(gradient), [[10, 10], [0, 0], [101, 101]], atol=1e-7)


@pytest.mark.parametrize("dtype", FLOATS)
def test_several_tensors_at_once(every_backend, dtype):
    """Their norms, their products, their means; and scalars that go to the host together."""
    ops, arrays = every_backend.ops, [np.arange(1.0, 1 + n).astype(dtype) for n in (3, 3, 3)]
    arrays[1] = arrays[1].reshape(3, 1)
    native = [every_backend.tensor(array) for array in arrays]
    norms = ops.norms(native)
    np.testing.assert_allclose(every_backend.array(norms), [np.linalg.norm(a) for a in arrays], rtol=1e-6)
    for factors, by in (
        (norms, every_backend.array(norms)),
        (ops.sum_all(norms), [every_backend.array(norms).sum()] * 3),
    ):
        for scaled, array, factor in zip(ops.scale(native, factors), arrays, by, strict=True):
            np.testing.assert_allclose(every_backend.array(scaled), array * factor, rtol=1e-6)
    means = ops.means([native[0], native[2] + 1.0])
    fetched = ops.fetch(means)
    assert isinstance(fetched, np.ndarray)
    np.testing.assert_allclose(fetched, [2, 3], rtol=1e-6)
    assert fetched.dtype == dtype
    assert not ops.means([])


@pytest.mark.parametrize("dtype", [*FLOATS, "int64"])
def test_the_span_of_a_tensor(every_backend, dtype):
    values = np.array([[3, -2, 7], [0, 5, 1]], dtype)
    span = lambda array: every_backend.array(every_backend.ops.span(every_backend.tensor(array)))  # noqa: E731
    np.testing.assert_array_equal(span(values), [-2, 7])
    assert span(values).dtype == "float32"
    if dtype != "int64":
        for wrong in (np.nan, np.inf, -np.inf):
            values[1, 0] = wrong
            assert not np.isfinite(span(values).sum())


def test_images_go_to_the_model_and_come_back(every_backend):
    classifier = every_backend.classifier(every_backend.build())
    x = np.random.default_rng(0).uniform(size=(2, 4, 5, 3))
    np.testing.assert_array_equal(classifier.host_images(classifier.images(x)), x)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("given", ["uint8", "float32", "float64"])
def test_pixels_are_the_same_on_the_host_as_on_the_device(backend, given, dtype):
    """Bit for bit, whatever they are given as."""
    classifier = backend.classifier(backend.build(dtype=dtype))
    shades = np.arange(256, dtype=np.uint8)
    shades = (shades if given == "uint8" else (shades / 255).astype(given)).reshape(2, 8, 16, 1)
    host = classifier.host_pixels(shades)
    device = backend.ops.to_numpy(classifier.pixels(shades))
    assert host.dtype == device.dtype == dtype
    np.testing.assert_array_equal(host, device)
    assert (host.min(), host.max()) == (0, 1)
    np.testing.assert_array_equal(host, classifier.host_images(classifier.images(shades)))


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_fori_loop_carries_a_tuple_so_many_times(every_backend, steps):
    one = every_backend.tensor(np.array([1.0, 2.0]))
    doubled, count = every_backend.ops.fori_loop(steps, lambda a, n: (a + a, n + 1.0), (one, one - one))
    np.testing.assert_array_equal(every_backend.array(doubled), np.array([1, 2]) * 2**steps)
    np.testing.assert_array_equal(every_backend.array(count), [steps, steps])


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 7])
def test_a_fixed_point_is_what_all_steps_reach(every_backend, steps):
    """Two lanes count down to zero, the second from further up; beside them a number that stays as it is."""
    ops, counts = every_backend.ops, every_backend.tensor(np.array([1.0, 3.0]))
    body = lambda n, still: (ops.clip(n - 1.0, 0.0, math.inf), still)  # noqa: E731
    expected, settled = (loop(steps, body, (counts, counts)) for loop in (ops.fori_loop, ops.fixed_point))
    for one, other in zip(expected, settled, strict=True):
        np.testing.assert_array_equal(every_backend.array(one), every_backend.array(other))


def test_a_fixed_point_is_left_at_the_first_step_that_changes_nothing(every_backend):
    """Counted where Python runs each step; a NaN differs from itself, so that its loop runs to the end."""
    ops, steps = every_backend.ops, []

    def halt(n):
        steps.append(None)
        return (ops.clip(n - 1.0, 0.0, math.inf),)

    ops.fixed_point(9, halt, (every_backend.tensor(np.array([1.0, 3.0])),))
    assert len(steps) == 4
    ops.fixed_point(9, halt, (every_backend.tensor(np.array([0.0, math.nan])),))
    assert len(steps) == 4 + 9


def test_the_host_array_is_a_copy(every_backend):
    tensor = every_backend.tensor(np.array([1.0, 2.0]))
    host = every_backend.ops.to_numpy(tensor)
    if host.flags.writeable:
        host[:] = 0
    np.testing.assert_array_equal(every_backend.array(tensor), [1, 2])


def test_bfloat16_can_be_brought_to_the_host():
    backend = load("torch")
    import torch

    tensor = torch.tensor([1.5, -0.25], dtype=torch.bfloat16)
    np.testing.assert_array_equal(backend.ops.to_numpy(tensor), [1.5, -0.25])


# --- Models that do not fit ---


def test_a_head_with_fewer_classes_is_noticed_at_the_next_call(backend):
    """PyTorch: the module is replaced in a model that was looked at already. Keras: another model."""
    model, (x, _, noise) = backend.build("tiny"), backend.batch(problem())
    y = backend.tensor(np.array([0, 1, 2, 2, 1, 0]))
    find = lambda: stcore.find_squeeze_pair(model, x, y, SqueezeConfig(steps=1), noise=noise)  # noqa: E731
    find()
    if backend.name == "torch":
        import torch

        model.linear = torch.nn.Linear(model.linear.in_features, 2).double()
    else:
        model = backend.build("tiny", classes=2)
    for _ in range(2):
        with pytest.raises(DataError, match=r"labels in \[0, 2\).*received \[0, 2\]"):
            find()


def test_a_model_of_one_logit_has_two_classes(backend):
    """It trains and is attacked as one of logits (0, z)."""
    from stcore.models import load_weights

    one, two = (backend.build("tiny-smooth", classes=classes) for classes in (1, 2))
    single = export(backend, one)
    head = {name: array for name, array in single.items() if array.shape[:1] == (1,) and name.startswith("linear")}
    assert len(head) == 2
    load_weights(two, single | {name: np.concatenate([0 * array, array]) for name, array in head.items()})
    x, y, noise = backend.batch(problem(classes=2))
    losses = [stcore.training_loss(model, SqueezeConfig(steps=2), x, y, noise=noise).total for model in (one, two)]
    assert float(backend.array(losses[0])) == pytest.approx(float(backend.array(losses[1])), rel=1e-10)
    scores = [stcore.evaluate(model, (x, y), ["pgd20"], seed=0) for model in (one, two)]
    assert scores[0]["pgd20"] == scores[1]["pgd20"]
    with pytest.raises(DataError, match=r"labels in \[0, 2\)"):
        stcore.training_loss(one, SqueezeConfig(steps=2), x, y + 1, noise=noise)


def export(backend, model):
    from stcore.models import export_weights

    return export_weights(model)


def test_an_unbuilt_keras_model_is_refused():
    backend = load("keras")
    import keras

    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)])
    batch = backend.batch(problem(), "float32")
    with pytest.raises(UsageError, match="expected a built keras"):
        stcore.find_squeeze_pair(model, batch.x, batch.y, noise=batch.noise)
    with pytest.raises(UsageError, match="expected a built keras"):
        stcore.make_learner(model, backend.optimizer(model))
    model(batch.x)
    stcore.find_squeeze_pair(model, batch.x, batch.y, SqueezeConfig(steps=1), noise=batch.noise)


@pytest.mark.parametrize("how", ["torch", "keras", "mixed"])
def test_float16_is_refused(how):
    backend = load("torch" if how == "torch" else "keras")
    if how == "torch":
        model = backend.build("tiny").half()
    else:
        import keras

        pixels, dtype = keras.Input((8, 8, 3)), "float16" if how == "keras" else "mixed_float16"
        model = keras.Model(pixels, keras.layers.Dense(3, dtype=dtype)(keras.layers.Flatten()(pixels)))
    batch = backend.batch(problem(), "float32")
    with pytest.raises(UsageError, match=r"received float16.*Convert the model to float32"):
        stcore.find_squeeze_pair(model, batch.x, batch.y, noise=batch.noise)


def test_float16_by_autocast_is_refused_too():
    backend = load("torch")
    import torch

    model, batch = backend.build("tiny", dtype="float32"), backend.batch(problem(), "float32")
    with (
        torch.autocast("cpu", torch.float16),
        pytest.raises(UsageError, match=r"received float16.*leave autocast"),
    ):
        stcore.find_squeeze_pair(model, batch.x, batch.y, noise=batch.noise)


# --- vjp ---


def two_inputs(ops):
    """Nonlinear in both inputs, with a branch, a clip and a stopped factor; (2, 3), (2, 3) → (2,)."""

    def fn(a, b):
        chosen = ops.where(a > 0.25, a * b, ops.exp(b))
        soft = ops.log_softmax(chosen + ops.stop_gradient(a))
        return ops.sum(soft * ops.clip(b, -1.0, 1.0) * ops.stop_gradient(b) + ops.logaddexp(a, b))

    return fn


A = np.array([[0.5, -1.0, 2.0], [0.1, 0.3, -0.7]])
B = np.array([[0.2, 1.5, -0.3], [-0.6, 0.9, 0.4]])
COTANGENT = np.array([1.0, -2.0])


def by_finite_differences(cotangent=COTANGENT):
    strict = pytest.importorskip("stcore.testing.strict")
    value, pullback = strict.ops.vjp(two_inputs(strict.ops), strict.StrictTensor(A), strict.StrictTensor(B))
    return strict.ops.to_numpy(value), [strict.ops.to_numpy(g) for g in pullback(strict.StrictTensor(cotangent))]


def test_finite_differences_honour_stop_gradient():
    """The oracle itself, by hand: d/da Σ a·stop(a)·a = 2a·a, not 3a²."""
    strict = pytest.importorskip("stcore.testing.strict")
    a = strict.StrictTensor(A)
    _, pullback = strict.ops.vjp(lambda a: strict.ops.sum(a * strict.ops.stop_gradient(a) * a), a)
    (gradient,) = pullback(strict.StrictTensor(np.ones(2)))
    np.testing.assert_allclose(strict.ops.to_numpy(gradient), 2 * A * A, atol=1e-9)


def test_vjp_is_the_derivative_and_its_pullback_can_be_called_again(backend):
    expected_value, expected = by_finite_differences()
    value, pullback = backend.ops.vjp(two_inputs(backend.ops), backend.tensor(A), backend.tensor(B))
    np.testing.assert_allclose(backend.array(value), expected_value, rtol=1e-14)
    first = pullback(backend.tensor(COTANGENT))
    pullback(backend.tensor(-COTANGENT))
    again = pullback(backend.tensor(COTANGENT))
    for one, other, oracle in zip(first, again, expected, strict=True):
        np.testing.assert_array_equal(backend.array(one), backend.array(other))
        np.testing.assert_allclose(backend.array(one), oracle, atol=1e-9)


def climb(ops, a, b, cotangent, steps=3):
    """A pullback from outside the loop called in it, beside a vjp of the loop's own."""
    _, outside = ops.vjp(two_inputs(ops), a, b)

    def body(point):
        value, inside = ops.vjp(lambda p: two_inputs(ops)(p, b), point)
        return (point + 0.01 * inside(ops.ones_like(value))[0] + 0.01 * outside(cotangent + value)[1],)

    return ops.fori_loop(steps, body, (a,))[0]


def test_pullbacks_work_inside_a_loop(backend):
    strict = pytest.importorskip("stcore.testing.strict")
    expected = strict.ops.to_numpy(climb(strict.ops, *map(strict.StrictTensor, (A, B, COTANGENT))))
    result = climb(backend.ops, *map(backend.tensor, (A, B, COTANGENT)))
    np.testing.assert_allclose(backend.array(result), expected, atol=1e-9)


def test_pullbacks_work_inside_a_traced_loop():
    backend = load("keras")
    import tensorflow as tf

    arguments = [backend.tensor(v) for v in (A, B, COTANGENT)]
    eager = climb(backend.ops, *arguments)
    traced = tf.function(lambda *tensors: climb(backend.ops, *tensors))
    np.testing.assert_allclose(traced(*arguments), eager, rtol=1e-14)
    open_batch = [tf.TensorSpec([None, *v.shape[1:]], v.dtype) for v in arguments]
    np.testing.assert_allclose(traced.get_concrete_function(*open_batch)(*arguments), eager, rtol=1e-14)


def test_an_input_the_function_ignores_has_gradient_zero(every_backend):
    ops = every_backend.ops
    value, pullback = ops.vjp(lambda a, b: ops.sum(a * a), every_backend.tensor(A), every_backend.tensor(B))
    gradients = [every_backend.array(g) for g in pullback(ops.ones_like(value))]
    np.testing.assert_allclose(gradients, [2 * A, 0 * B], atol=1e-9)


def test_vjp_returns_constants(backend):
    def outer(a):
        value, pullback = backend.ops.vjp(lambda a: backend.ops.sum(a * a), a)
        return value + backend.ops.sum(pullback(backend.ops.ones_like(value))[0]) + backend.ops.sum(a)

    _, pullback = backend.ops.vjp(outer, backend.tensor(A))
    np.testing.assert_array_equal(backend.array(pullback(backend.tensor(np.ones(2)))[0]), np.ones_like(A))


# --- unrecorded ---


def test_unrecorded_returns_constants_in_the_structure_of_the_function(backend):
    def outer(a):
        first, (second, nothing) = backend.ops.unrecorded(lambda: (a * a, (a + a, None)))
        assert nothing is None
        return backend.ops.sum(first * second * a)

    _, pullback = backend.ops.vjp(outer, backend.tensor(A))
    gradient = backend.array(pullback(backend.tensor(np.ones(2)))[0])
    np.testing.assert_allclose(gradient, 2 * A**3, rtol=1e-14)


def test_what_goes_wrong_unrecorded_is_raised_here(backend):
    class Mishap(BaseException):
        pass

    def fail():
        raise Mishap("this")

    threads = threading.active_count()
    with pytest.raises(Mishap, match="this"):
        backend.ops.unrecorded(fail)
    assert threading.active_count() == threads


@pytest.mark.parametrize("strange", ["big-endian", "mirrored", "strided"])
def test_host_arrays_of_any_layout_become_the_same_tensors(backend, strange):
    images = problem().x.astype("float32")
    classifier = backend.classifier(backend.build(dtype="float32"))
    given = {
        "big-endian": images.astype(">f4"),
        "mirrored": np.ascontiguousarray(images[:, ::-1])[:, ::-1],
        "strided": np.repeat(images, 2, axis=0)[::2],
    }[strange]
    assert np.array_equal(given, images)
    np.testing.assert_array_equal(backend.nhwc(classifier.images(given)), images)
    labels = np.arange(6, dtype=">i8")[::-1]
    np.testing.assert_array_equal(backend.array(classifier.labels(labels)), labels)
