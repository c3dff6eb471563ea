"""A third backend, in numpy, that can do nothing beyond the protocol: what runs on it uses the protocol alone.

Its tensors answer `+ - * /`, unary `-`, `<` and `>`, and raise on anything else. Its gradients are central finite
differences, so they are an oracle for the other backends' gradients too. Images are NCHW, everything is float64.
"""

from __future__ import annotations

import copy
import operator
from contextlib import contextmanager, nullcontext
from functools import cache
from types import SimpleNamespace

import numpy as np

from stcore.models import describe
from stcore.models.description import BatchNorm, Conv, GlobalAveragePool, Linear, ReLU, Sequence, Softplus, join
from stcore.protocols import Mode

# Central differences: how far to go, the places in units of it, and the weight of the value there. In a weight two
# places do, good to about 1e-11; four are better in a pixel, where a search may begin with a tiny gradient. Losses
# have kinks, so the step stays short.
_IN_A_WEIGHT = 1e-5, {1: 1 / 2, -1: -1 / 2}
_IN_A_PIXEL = 3e-4, {1: 2 / 3, -1: -2 / 3, 2: -1 / 12, -2: 1 / 12}


class StrictTensor:
    """An opaque tensor."""

    __slots__ = ("__array",)
    __array_ufunc__ = None  # numpy scalars leave arithmetic to us, who refuse them
    __hash__ = None

    def __init__(self, array):
        self.__array = np.array(array)

    def _combine(self, other, function, swap=False):
        one, two = self.__array, _raw(other) if isinstance(other, StrictTensor) else other
        if isinstance(other, StrictTensor):
            assert one.dtype == two.dtype, f"{one.dtype} and {two.dtype} do not mix"
            assert () in (one.shape, two.shape) or _fit(one.shape, two.shape), (
                f"shapes {one.shape} and {two.shape} do not fit; see `expand_dims_like`"
            )
        else:
            assert type(other) in (int, float), f"a tensor does not combine with {type(other)}"
        return StrictTensor(function(two, one) if swap else function(one, two))

    def __neg__(self):
        return StrictTensor(-self.__array)

    def _refuse(self, *_):
        raise TypeError("the protocol's tensors are opaque: use its operations")

    __bool__ = __eq__ = __ne__ = __le__ = __ge__ = __len__ = __iter__ = __getitem__ = __setitem__ = _refuse
    __float__ = __int__ = __index__ = __array__ = __abs__ = __pow__ = __matmul__ = __contains__ = _refuse
    __and__ = __or__ = __invert__ = __mod__ = __floordiv__ = __copy__ = __deepcopy__ = _refuse


def _operator(function, swap=False):
    return lambda self, other: self._combine(other, function, swap)


for _name in ("add", "sub", "mul", "truediv"):
    setattr(StrictTensor, f"__{_name}__", _operator(getattr(operator, _name)))
    setattr(StrictTensor, f"__r{_name}__", _operator(getattr(operator, _name), swap=True))
for _name in ("lt", "gt"):
    setattr(StrictTensor, f"__{_name}__", _operator(getattr(operator, _name)))


def _raw(tensor):
    assert isinstance(tensor, StrictTensor), f"expected a tensor, received {type(tensor)}"
    return tensor._StrictTensor__array


def _fit(one, two):
    """Equal shapes, or one of them as `expand_dims_like` makes it."""
    flat = len(one) == len(two) and one[:1] == two[:1] and 1 in (*one[1:], *two[1:])
    return one == two or (flat and any(set(shape[1:]) == {1} for shape in (one, two)))


def _lift(function):
    return lambda *args: StrictTensor(function(*(_raw(a) if isinstance(a, StrictTensor) else a for a in args)))


# --- The operations of the protocol ---


def _log_softmax(z):
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def _one_hot(labels, logits):
    assert labels.dtype.kind == "i"
    return labels[:, None] == np.arange(logits.shape[-1])


def _where(condition, a, b):
    assert condition.dtype == bool
    assert condition.shape == a.shape or _fit(condition.shape, a.shape)
    assert not isinstance(b, np.ndarray) or b.shape == a.shape
    return np.where(condition, a, b)


def _extremes(scores, count):
    batches = scores.reshape(count, -1)
    which = np.concatenate([batches.argmin(0), batches.argmax(0)])
    return which * batches.shape[1] + np.tile(np.arange(batches.shape[1]), 2)


def _scale(xs, factors):
    by = np.broadcast_to(_raw(factors), len(xs))
    return [StrictTensor(_raw(x) * factor) for x, factor in zip(xs, by, strict=True)]


def _mean(x):
    assert x.ndim == 1
    return x.mean()


def _fori_loop(steps, body, carry):
    assert type(steps) is int
    for _ in range(steps):
        shapes = [_raw(c).shape for c in carry]
        carry = tuple(body(*carry))
        assert [_raw(c).shape for c in carry] == shapes
    return carry


def _fixed_point(steps, body, carry):
    for _ in range(steps):
        before, carry = carry, _fori_loop(1, body, carry)
        if all(np.array_equal(_raw(a), _raw(b)) for a, b in zip(carry, before, strict=True)):
            break
    return carry


class _Evaluation:
    """One evaluation of a function that is being differentiated: stopped values are noted, or played back."""

    running: list[_Evaluation] = []  # noqa: RUF012

    def __init__(self, notes, replay):
        self.notes, self.replay = notes, iter(notes) if replay else None

    def stop(self, tensor):
        if self.replay is not None:
            return next(self.replay)
        self.notes.append(tensor)
        return tensor


@contextmanager
def _evaluation(notes, replay):
    _Evaluation.running.append(_Evaluation(notes, replay))
    try:
        yield
    finally:
        _Evaluation.running.pop()


def _stop_gradient(x):
    _raw(x)
    return _Evaluation.running[-1].stop(x) if _Evaluation.running else x


def _jacobian(value_of, array, notes, differences):
    """d value / d array, both flattened: (values, entries). `array` is changed in place and put back."""
    (step, places), entries, columns = differences, array.view(), []
    entries.shape = (-1,)  # never a copy
    for i, entry in enumerate(entries):
        total = 0.0
        for place, weight in places.items():
            entries[i] = entry + place * step
            with _evaluation(notes, replay=True):
                total = total + weight * value_of()
        entries[i] = entry
        columns.append(total.reshape(-1) / step)
    return np.stack(columns, axis=1)


def _vjp(fn, *xs):
    notes: list[StrictTensor] = []
    with _evaluation(notes, replay=False):
        value = fn(*xs)
    arrays = [np.array(_raw(x), order="C") for x in xs]
    jacobians = []

    def pullback(cotangent):
        if not jacobians:  # once: the pullback may be called any number of times
            call = lambda: _raw(fn(*map(StrictTensor, arrays)))  # noqa: E731
            jacobians.extend(_jacobian(call, array, notes, _IN_A_PIXEL) for array in arrays)
        flat = _raw(cotangent).reshape(-1)
        return tuple(
            _stop_gradient(StrictTensor((flat @ j).reshape(a.shape)))
            for j, a in zip(jacobians, arrays, strict=True)
        )

    return _stop_gradient(value), pullback


ops = SimpleNamespace(
    sign=_lift(np.sign),
    abs=_lift(np.abs),
    exp=_lift(np.exp),
    log=_lift(np.log),
    sqrt=_lift(np.sqrt),
    floor=_lift(np.floor),
    logaddexp=_lift(np.logaddexp),
    log_softmax=_lift(_log_softmax),
    where=_lift(_where),
    flag=_lift(lambda condition, like: condition.astype(like.dtype)),
    clip=_lift(np.clip),
    sum=_lift(lambda x: x.reshape(len(x), -1).sum(1)),
    mean=_lift(_mean),
    means=lambda xs: [StrictTensor(_mean(_raw(x))) for x in xs],
    span=_lift(lambda x: np.array([x.min(), x.max()], "float32")),
    fetch=lambda xs: np.array([_raw(x) for x in xs]),
    max=_lift(lambda x: x.reshape(len(x), -1).max(1)),
    top_k=lambda x, count: tuple(map(StrictTensor, np.sort(_raw(x))[:, ::-1].T[:count])),
    take=lambda x, rows: StrictTensor(_raw(x)[_raw(rows) if isinstance(rows, StrictTensor) else list(rows)]),
    of_label=_lift(lambda values, labels: values[np.arange(len(values)), labels]),
    extremes=_lift(_extremes),
    concat=lambda xs: StrictTensor(np.concatenate([_raw(x) for x in xs])),
    split=lambda x, count: tuple(map(StrictTensor, np.split(_raw(x), count))),
    matmul=_lift(lambda a, b, transpose_a=False: (a.T if transpose_a else a) @ b),
    norms=lambda xs: StrictTensor([np.linalg.norm(_raw(x)) for x in xs]),
    scale=_scale,
    sum_all=_lift(np.sum),
    ones_like=_lift(np.ones_like),
    rank=lambda x: _raw(x).ndim,
    expand_dims_like=_lift(lambda vector, like: vector.reshape(-1, *[1] * (like.ndim - 1))),
    one_hot=_lift(_one_hot),
    stop_gradient=_stop_gradient,
    fori_loop=_fori_loop,
    fixed_point=_fixed_point,
    vjp=_vjp,
    unrecorded=lambda fn, *args: fn(*args),
    to_numpy=lambda x: np.array(_raw(x)),
)


# --- Models ---


class StrictModel:
    """The network of a description, interpreted."""

    def __init__(self, name, weights, *, num_classes, in_channels):
        self.description = describe(name, num_classes, in_channels)
        self.weights = {key: np.array(value, np.float64, order="C") for key, value in weights.items()}

    def __call__(self, x, mode):
        found = self._apply(self.description, x.transpose(0, 2, 3, 1), "", mode)
        return found.transpose(0, 3, 1, 2) if found.ndim == 4 else found

    def _apply(self, node, x, path, mode):
        """Channels are last in here: sums over all else are then those of a matrix's rows."""
        match node:
            case Sequence(steps):
                for name, step in steps:
                    x = self._apply(step, x, join(path, name), mode)
                return x
            case Conv(stride=stride, bias=False):
                return _convolve(x, self.weights[f"{path}.weight"], stride)
            case BatchNorm(epsilon=epsilon, update=update):
                return self._normalise(x, path, mode, epsilon, update)
            case ReLU():
                return np.maximum(x, 0)
            case Softplus():
                return np.logaddexp(x, 0)
            case GlobalAveragePool():
                return x.reshape(len(x), -1, x.shape[-1]).mean(1)
            case Linear():
                return x @ self.weights[f"{path}.weight"].T + self.weights[f"{path}.bias"]
            case _:
                raise NotImplementedError(node)

    def _normalise(self, x, path, mode, epsilon, update):
        scale, shift, mean, variance = (
            self.weights[f"{path}.{name}"] for name in ("weight", "bias", "running_mean", "running_var")
        )
        if mode is not Mode.EVAL:
            rows = x.reshape(-1, x.shape[-1])
            centre, count = np.add.reduce(rows) / len(rows), len(rows)
            squares = np.add.reduce((rows - centre) ** 2)
            if mode is Mode.TRAIN and not any(
                one.replay for one in _Evaluation.running
            ):  # once, not per difference
                mean += update * (centre - mean)
                variance += update * (squares / (count - 1) - variance)
            mean, variance = centre, squares / count
        return (x - mean) / np.sqrt(variance + epsilon) * scale + shift


def _convolve(x, weight, stride):
    """Every window's pixels as a row, times the weights as a matrix."""
    batch, height, width, channels = x.shape
    margin = weight.shape[-1] // 2
    padded = np.zeros((batch, height + 2 * margin, width + 2 * margin, channels))
    padded[:, margin : margin + height, margin : margin + width] = x
    windows = _windows(padded.shape[1:], weight.shape[-1], stride)
    rows = padded.reshape(batch, -1).take(windows.reshape(-1), axis=1)
    found = rows.reshape(-1, windows.shape[-1]) @ weight.reshape(len(weight), -1).T
    return found.reshape(batch, *windows.shape[:2], len(weight))


@cache
def _windows(shape, size, stride):
    """(rows, columns, pixels): where in a flat padded image each window's pixels are, in the weights' order."""
    places = np.arange(np.prod(shape)).reshape(shape)
    windows = np.lib.stride_tricks.sliding_window_view(places, (size, size), axis=(0, 1))[::stride, ::stride]
    return windows.reshape(*windows.shape[:2], -1)


class StrictClassifier:
    """`stcore.protocols.Classifier` over a StrictModel."""

    ops = ops

    def __init__(self, model):
        self.model = model

    def logits(self, x, mode, *, dropout=False):
        return StrictTensor(self.model(_raw(x), mode))

    def shape(self, x):
        batch, *rest = _raw(x).shape
        return (batch, *rest[1:], rest[0]) if len(rest) == 3 else (batch, *rest)

    def signature(self):
        return tuple((name, array.shape) for name, array in self.model.weights.items())

    def is_tracing(self, x):
        return False

    def on_host(self, x):
        return True

    def to_numpy(self, x):
        return ops.to_numpy(x)

    def eval_logits(self, x):
        return ops.to_numpy(self.logits(x, Mode.EVAL))

    def trial_logits(self, x):
        return ops.to_numpy(self.logits(x, Mode.BATCH))

    def staged(self, array):
        return array

    def images(self, array):
        return StrictTensor(np.asarray(array, np.float64).transpose(0, 3, 1, 2))

    def host_pixels(self, array):
        return np.asarray(array, np.float64)

    def host_images(self, x):
        return ops.to_numpy(x).transpose(0, 2, 3, 1)

    def labels(self, array):
        return StrictTensor(np.asarray(array, np.float64 if array.dtype.kind == "f" else np.int64))

    def compile(self, fn, *, rowwise=False):
        return fn

    def state(self):
        return [StrictTensor(array) for array in self.model.weights.values()]

    def blend(self, values, share):
        for array, value in zip(self.model.weights.values(), values, strict=True):
            array += share * (_raw(value) - array)

    def same_draws(self):
        return nullcontext()

    def copy(self):
        return StrictClassifier(copy.deepcopy(self.model))

    def tapped(self, tap):
        return nullcontext()  # one function of the pixels, without layers between which a tensor could be taken

    def folded(self, x):
        return self


class StrictLearner(StrictClassifier):
    """`stcore.protocols.Learner`: torch's SGD, and gradients by finite differences in every weight."""

    def __init__(self, model, *, lr, momentum=0.0, weight_decay=0.0):
        super().__init__(model)
        self.lr, self.momentum, self.weight_decay = lr, momentum, weight_decay
        self.trainable = [name for name in model.weights if ".running_" not in name]
        self.velocity = {name: np.zeros_like(model.weights[name]) for name in self.trainable}

    def value_and_grad(self, loss):
        notes: list[StrictTensor] = []
        with _evaluation(notes, replay=False):
            value, metrics = loss()
        statistics = {n: a.copy() for n, a in self.model.weights.items() if ".running_" in n}
        gradients = [
            StrictTensor(_jacobian(lambda: _raw(loss()[0]), weight, notes, _IN_A_WEIGHT).reshape(weight.shape))
            for weight in map(self.model.weights.get, self.trainable)
        ]
        for name, before in statistics.items():  # only the first evaluation counts
            self.model.weights[name][:] = before
        return (value, metrics), gradients

    def summed(self, gradients):
        return gradients

    def apply_gradients(self, gradients):
        for name, gradient in zip(self.trainable, gradients, strict=True):
            weight, velocity = self.model.weights[name], self.velocity[name]
            velocity *= self.momentum
            velocity += _raw(gradient) + self.weight_decay * weight
            weight -= self.lr * velocity

    def matrix_weights(self):
        weights = [self.model.weights[name] for name in self.trainable]
        return [StrictTensor(w) if w.ndim > 1 else None for w in weights]

    def perturbed(self):
        return nullcontext()

    def shift(self, amounts, times=1.0):
        for name, amount in zip(self.trainable, amounts, strict=True):
            if amount is not None:
                self.model.weights[name] += times * _raw(amount)

    def searching(self):
        return self

    def regularization_loss(self):
        return None

    def set_learning_rate(self, rate):
        self.lr = rate

    def weights(self):
        return {name: array.copy() for name, array in self.model.weights.items()}

    def load_weights(self, weights):
        for name, array in self.model.weights.items():
            array[:] = weights[name]
