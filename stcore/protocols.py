"""The contract between the methods and a framework: `Ops`, `Mode`, `Classifier`, `Learner`.

A tensor is the framework's own and opaque here. Beside the operations below, the core uses only
`+ - * /`, unary `-`, `<` and `>` on tensors (with tensors of the same shape, scalar tensors, or Python floats).
It never indexes, never reads a value or a batch size, never branches on a tensor. The same code therefore runs
eagerly, inside a `tf.function`, under `jax.jit` and under `torch.compile`.

Axis 0 is the batch. The last axis of logits is the classes. Every other axis belongs to the model:
NCHW and NHWC never reach the core.

Notation: B batch, C classes, `(B, …)` any shape that starts with the batch, `()` a scalar tensor. "Host" arrays
are numpy's; host images are (B, H, W, C), or (B, d) for flat input. Pixels are floats in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from enum import Enum
from typing import Any, Protocol, TypeAlias

import numpy as np

Tensor: TypeAlias = Any
"""A tensor of the model's framework."""
Array: TypeAlias = "np.ndarray[Any, Any]"
"""A host array."""
Pullback: TypeAlias = Callable[[Tensor], tuple[Tensor, ...]]
"""Cotangent of an output, of its shape → the gradient with respect to each input, of that input's shape."""
Tap: TypeAlias = Callable[[str, str, Tensor], Tensor]
"""Name of a layer, `input` or `output`, and the tensor there → the tensor that takes its place."""
Metrics: TypeAlias = Mapping[str, Tensor]
"""Tensors to log, by name."""


class Mode(Enum):
    """How normalisation layers behave in one forward. An argument of every forward, never ambient state."""

    EVAL = "eval"
    """Uses running statistics, writes nothing: evaluation, and the attacks inside AT."""
    BATCH = "batch"
    """Uses the batch's own statistics, writes nothing: ST's pair search and collaborative forward."""
    TRAIN = "train"
    """Uses the batch's own statistics, updates running statistics: the outer forwards."""


class Ops(Protocol):
    """The tensor operations of the core. A backend's `ops.py` implements them as plain functions.

    Elementwise results have the shape and the floating dtype of their first tensor. Every operation is
    differentiable (once) where its mathematics is, except `sign`, `floor`, `flag`, `one_hot` and `stop_gradient`,
    whose gradient is zero. None has a side effect.
    """

    def sign(self, x: Tensor, /) -> Tensor:
        """Elementwise sign: −1, 0 or 1; sign(0) = 0."""

    def abs(self, x: Tensor, /) -> Tensor:
        """Elementwise absolute value."""

    def exp(self, x: Tensor, /) -> Tensor:
        """Elementwise exponential."""

    def log(self, x: Tensor, /) -> Tensor:
        """Elementwise natural logarithm of x > 0."""

    def sqrt(self, x: Tensor, /) -> Tensor:
        """Elementwise square root of x ≥ 0."""

    def logaddexp(self, a: Tensor, b: Tensor, /) -> Tensor:
        """Elementwise log(exp a + exp b), without overflow; a and b of the same shape."""

    def log_softmax(self, logits: Tensor, /) -> Tensor:
        """Log-probabilities over the last axis: (B, C) → (B, C), in nats, without overflow."""

    def floor(self, x: Tensor, /) -> Tensor:
        """Elementwise largest whole number that is not above x; gradient zero."""

    def where(self, condition: Tensor, a: Tensor, b: Tensor | float, /) -> Tensor:
        """Elementwise `a` if `condition` (booleans that broadcast to `a`) holds, else `b`.

        The branch that is not taken has no effect on the value, even if it is NaN.
        """

    def flag(self, condition: Tensor, like: Tensor, /) -> Tensor:
        """1 where `condition` (booleans) holds, else 0: of its shape, in the dtype of `like`; gradient zero."""

    def clip(self, x: Tensor, lower: Tensor | float, upper: Tensor | float, /) -> Tensor:
        """Elementwise min(max(x, lower), upper); the limits are two tensors shaped like x, or two floats."""

    def sum(self, x: Tensor, /) -> Tensor:
        """Sum over all axes but the batch: (B, …) → (B,)."""

    def mean(self, x: Tensor, /) -> Tensor:
        """Mean over the batch: (B,) → ()."""

    def means(self, xs: Sequence[Tensor], /) -> Sequence[Tensor]:
        """Means over the batch of n tensors (B,): → n tensors (). In another order of summation than `mean`."""

    def max(self, x: Tensor, /) -> Tensor:
        """Maximum over all axes but the batch: (B, …) → (B,)."""

    def top_k(self, logits: Tensor, count: int, /) -> tuple[Tensor, ...]:
        """The largest values over the last axis, in descending order: (B, C) → min(count, C) tensors (B,)."""

    def sum_all(self, x: Tensor, /) -> Tensor:
        """Sum over every axis: any shape → ()."""

    def matmul(self, a: Tensor, b: Tensor, transpose_a: bool = False, /) -> Tensor:
        """Matrix product: (N, K), (K, M) → (N, M); with `transpose_a` aᵀb, which sums over the batch of both:
        (B, K), (B, M) → (K, M).
        """

    def norms(self, xs: Sequence[Tensor], /) -> Tensor:
        """Euclidean norm of each of n tensors of any shapes: → (n,)."""

    def scale(self, xs: Sequence[Tensor], factors: Tensor, /) -> Sequence[Tensor]:
        """Multiplies each of n tensors of any shapes by its factor, (n,), or all by one, ()."""

    def rank(self, x: Tensor, /) -> int:
        """The number of axes of x, which is known without its values."""

    def ones_like(self, x: Tensor, /) -> Tensor:
        """Ones of x's shape and dtype."""

    def expand_dims_like(self, vector: Tensor, like: Tensor, /) -> Tensor:
        """Appends axes of size one until `vector` has the rank of `like`: (B,) → (B, 1, …, 1).

        A per-example value then broadcasts over images.
        """

    def one_hot(self, labels: Tensor, logits: Tensor, /) -> Tensor:
        """One-hot booleans: integer labels (B,) in [0, C) → (B, C), with C and the device taken from `logits`."""

    def stop_gradient(self, x: Tensor, /) -> Tensor:
        """x as a constant: the same values, gradient zero."""

    def of_label(self, values: Tensor, labels: Tensor, /) -> Tensor:
        """Selects each example's entry at its label: (B, C), integer labels (B,) in [0, C) → (B,)."""

    def take(self, x: Tensor, rows: Sequence[int] | Tensor, /) -> Tensor:
        """Selects examples, in the given order: (B, …), `rows` in [0, B) → (len(rows), …).

        rows: Python ints, or what `extremes` returns.
        """

    def extremes(self, scores: Tensor, count: int, /) -> Tensor:
        """Finds each example's lowest and highest score among `count` batches that are concatenated.

        scores: (count·B,). Returns rows (2·B,) for `take`: where the lowest scores of the examples are, then where
        the highest are; the earlier of equals.
        """

    def concat(self, xs: Sequence[Tensor], /) -> Tensor:
        """Concatenates along the batch: tensors (B_i, …) → (ΣB_i, …)."""

    def split(self, x: Tensor, count: int, /) -> tuple[Tensor, ...]:
        """Separates `count` batches that are concatenated: (count·B, …) → tensors (B, …)."""

    def fori_loop(
        self, steps: int, body: Callable[..., tuple[Tensor, ...]], carry: tuple[Tensor, ...], /
    ) -> tuple[Tensor, ...]:
        """Applies `carry = body(*carry)` `steps` times and returns the last carry.

        steps: a Python int ≥ 0; 0 returns the carry.   body: keeps the number, shapes and dtypes of its tensors,
        and holds no state of its own: a backend may trace it once.
        """

    def fixed_point(
        self, steps: int, body: Callable[..., tuple[Tensor, ...]], carry: tuple[Tensor, ...], /
    ) -> tuple[Tensor, ...]:
        """Returns what `fori_loop` returns; may stop once `body` has returned its very arguments.

        On a device other than the host it makes all steps: to ask whether a tensor has changed costs more there.
        body: a function of its arguments alone. Not differentiable.
        """

    def vjp(self, fn: Callable[..., Tensor], /, *xs: Tensor) -> tuple[Tensor, Pullback]:
        """Returns `fn(*xs)` and its pullback: a cotangent of the value → the gradients with respect to `xs`.

        Differentiates with respect to `xs` only: no weight gradient is computed or stored. An input that `fn` does
        not use gets zeros. The pullback may be called several times, also inside a `fori_loop`; the value and the
        gradients are constants.
        """

    def unrecorded(self, fn: Callable[..., Any], /, *args: Any) -> Any:
        """Returns `fn(*args)`, hidden from any tape or graph of the caller; the results are constants."""

    def to_numpy(self, x: Tensor, /) -> Array:
        """Copies x to the host, bfloat16 as float32. For logging and tests: never called inside a step."""

    def span(self, x: Tensor, /) -> Tensor:
        """The smallest and the largest entry, NaN if there is one: any shape and dtype → (2,) in float32."""

    def fetch(self, xs: Sequence[Tensor], /) -> Array:
        """Copies n tensors of one shape to the host in one transfer: → (n, …). Never called inside a step."""


class Network(Protocol):
    """A network as the methods and attacks see it: operations and a forward."""

    @property
    def ops(self) -> Ops:
        """The operations of the model's framework."""

    def logits(self, x: Tensor, mode: Mode, *, dropout: bool = False) -> Tensor:
        """One forward: pixels (B, …) in the model's own layout → logits (B, C), in float32 or float64.

        mode: which statistics normalisation layers use; only TRAIN writes (the running statistics). The model's
        own modes are restored after the call.
        dropout: turns dropout-like layers on, as in the outer forwards; searches for examples leave it off.
        Raises UsageError for a network in float16, whose search gradients underflow.
        """


class Classifier(Network, Protocol):
    """A model as evaluation and the public functions see it: forwards, conversions, weights."""

    def shape(self, x: Tensor) -> tuple[int | None, ...]:
        """Returns (B, H, W, C) for images in the model's layout, or x's own shape for flat input.

        B is None while a graph with a free batch size is traced.
        Raises TypeError unless x is a tensor of the model's framework and dtype.
        """

    def signature(self) -> Hashable:
        """Returns the shapes of the trainable weights: a network with a new head has another signature."""

    def is_tracing(self, x: Tensor) -> bool:
        """Whether a graph is traced, in which tensors have no values. Copies nothing."""

    def on_host(self, x: Tensor) -> bool:
        """Whether x is in the host's memory, so that to read it waits for no other device."""

    def to_numpy(self, x: Tensor) -> Array | None:
        """Copies x to the host, or returns None while a graph is traced."""

    def same_draws(self) -> AbstractContextManager[None]:
        """Context of a step's outer forwards: layers that augment images draw once for all of them.

        A divergence then compares an image with its neighbours, not with another crop of it. Dropout draws anew.
        """

    def eval_logits(self, x: Tensor) -> Array | None:
        """Returns the logits (B, C) of one EVAL forward on the host, or None while a graph is traced.

        Nothing is recorded for differentiation.
        """

    def trial_logits(self, x: Tensor) -> Array | None:
        """Returns the logits (B, C) of one forward in training mode, dropout included, or None as `eval_logits`.

        It leaves no trace: neither statistics nor random state change.
        """

    def pixels(self, array: Array) -> Tensor:
        """Converts a host array in the model's own layout to its dtype and device; divides uint8 by 255."""

    def host_pixels(self, array: Array) -> Array:
        """The values of `pixels` as a host array of the same layout, without the device."""

    def staged(self, array: Array) -> Any:
        """Prepares host images (B, H, W, C) for `images`, in any thread: where it helps, in pinned memory."""

    def images(self, array: Any) -> Tensor:
        """Converts host images (B, H, W, C), or flat (B, d), to the model's layout, dtype and device.

        uint8 is divided by 255. array: a host array, or what `staged` returns.
        """

    def host_images(self, x: Tensor | Array) -> Array:
        """Copies pixels (B, …), a tensor or a host array, to host images (B, H, W, C), or flat, in their dtype.

        The inverse of `images`.
        """

    def resident(self, images: Array) -> Callable[[Array, Any], Callable[[slice], Tensor]]:
        """Copies uint8 images (N, H, W, C) to the device once, and returns a function that orders them.

        The function takes an epoch's row numbers (n,), and a `stcore.data.crop_flip.CropFlip` for them or None,
        and copies these to the device. It returns another, which takes a slice of the epoch, copies nothing, and
        returns what `images` would return for these rows, augmented.
        """

    def labels(self, array: Array) -> Tensor:
        """Converts host labels to the device: integers (B,) to int64, soft ones (B, C) to the logits' dtype."""

    def compile(self, fn: Callable[..., Any], *, rowwise: bool = False) -> Callable[..., Any]:
        """Compiles `fn`, a function of tensors with any batch size, if the framework can; otherwise returns `fn`.

        rowwise: each example's results depend on that example only, so that a framework which compiles for one
        batch size at a time may pad a batch.
        """

    def tapped(self, tap: Tap) -> AbstractContextManager[None]:
        """Context in which floating tensors between the layers of the model pass through `tap`.

        For forwards outside of compiled functions. In the order of the computation: what a layer takes first, then
        what it returns. The name is that of `named_modules` or of the Keras layer; that of the model is empty.
        """

    def weights(self) -> dict[str, Array]:
        """Returns weights and running statistics by name, as host arrays in the framework-neutral layout."""

    def load_weights(self, weights: Mapping[str, Array]) -> None:
        """Sets the weights and running statistics that `weights()` of an equal network returned.

        Raises UsageError if names or shapes do not fit; the model is then unchanged.
        """

    def state(self) -> Sequence[Tensor]:
        """Returns the floating-point weights and running statistics, in a fixed order."""

    def blend(self, values: Sequence[Tensor], share: float) -> None:
        """Moves what `state()` returns towards as many values, in its order and shapes: w + share·(value − w)."""

    def snapshot(self) -> dict[str, Array]:
        """Returns everything the next step depends on, bit for bit, as host arrays under framework-specific names.

        That is every variable of the model; a learner adds its optimizer's and the state of random generators.
        """

    def restore(self, snapshot: Mapping[str, Array]) -> None:
        """Restores a snapshot of a classifier with the same settings. Raises UsageError if it does not fit."""

    def copy(self) -> Classifier:
        """Returns a classifier with the same network and its own copy of the weights."""

    def folded(self, x: Tensor) -> Classifier:
        """Returns a faster classifier for EVAL forwards, equal up to rounding; itself if there is none.

        Batch norms are folded into the convolutions before them. x: a few images (B, …) on which logits and input
        gradients of both are compared. The copy keeps the weights of this moment: fold again after an update.
        """


class Learner(Classifier, Protocol):
    """A classifier together with its optimizer."""

    def noise(
        self, laws: tuple[str, ...], keys: Array, positions: Array, shape: tuple[int, ...]
    ) -> tuple[Tensor, ...]:
        """Draws noise on the device, an array shaped like `images` of host images (B, *shape) for each law.

        keys: as `stcore.base.device_noise.keys` returns them, one for each law.   positions: (B,).
        """

    def value_and_grad(
        self, loss: Callable[[], tuple[Tensor, Metrics]]
    ) -> tuple[tuple[Tensor, Metrics], Sequence[Tensor | None]]:
        """Calls `loss` once; returns its scalar loss and metrics, and the gradients of the trainable weights.

        The gradients come in a fixed order; None stands for a weight that the loss does not reach: it is neither
        updated nor decayed. All results are constants. On one of several ranks the gradients are its own share.
        """

    def summed(self, gradients: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        """Sums gradients over the ranks, in place or not, once all parts of a batch have been added up."""

    def apply_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        """Makes one optimizer update with gradients in the order of `value_and_grad`."""

    def matrix_weights(self) -> Sequence[Tensor | None]:
        """Returns the trainable weights in the gradients' order; None if of rank 1 (biases, batch norms)."""

    def shift(self, amounts: Sequence[Tensor | None], times: float = 1.0) -> None:
        """Adds `times` · `amounts` to the trainable weights, without the optimizer; None leaves one unchanged."""

    def perturbed(self) -> AbstractContextManager[None]:
        """Context for the gradients at shifted weights: what a forward assigns to a trainable weight is undone."""

    def searching(self) -> Network:
        """Returns the network that the search for examples uses; its forwards may compute in another precision."""

    def regularization_loss(self) -> Tensor | None:
        """Returns the scalar that the model adds to every loss, such as Keras' weight regularisers, or None.

        Raises UsageError for a model with other losses of its own (activity regularisers, `add_loss`).
        """

    def set_learning_rate(self, rate: float) -> None:
        """Sets the learning rate, at least 0, of the updates that follow."""
