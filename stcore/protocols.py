"""The whole contract between the methods and a framework: `Ops`, `Mode`, `Classifier`, `Learner`.

A tensor is the framework's own and opaque here. Beside the operations below, the core uses only
`+ - * /`, unary `-`, `<` and `>` on tensors (with tensors of the same shape, scalar tensors, or Python floats).
It never indexes, never asks for a value or a batch size, never branches on a tensor: so one and the
same code runs eagerly, inside a `tf.function`, and under `torch.compile`.

Axis 0 is the batch. The last axis of logits is the classes. Every other axis belongs to the model:
NCHW and NHWC never reach the core.

Notation: B batch, C classes, `(B, …)` any shape that starts with the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from enum import Enum
from typing import Any, Protocol, TypeAlias

import numpy as np

Tensor: TypeAlias = Any
Array: TypeAlias = "np.ndarray[Any, Any]"
Pullback: TypeAlias = Callable[[Tensor], tuple[Tensor, ...]]
Metrics: TypeAlias = Mapping[str, Tensor]


class Mode(Enum):
    """How normalisation layers behave in one forward. An argument of every forward, never ambient state."""

    EVAL = "eval"
    """Running statistics are used, nothing is written: evaluation, and the attacks inside AT."""
    BATCH = "batch"
    """The batch's own statistics are used, nothing is written: ST's pair search and collaborative forward."""
    TRAIN = "train"
    """The batch's own statistics are used, running statistics are updated: the outer forwards."""


class Ops(Protocol):
    """The tensor operations of the core; a backend's `ops.py` module is one, as plain functions.

    Elementwise results have the shape and the floating dtype of their first tensor.
    """

    def sign(self, x: Tensor, /) -> Tensor:
        """−1, 0 or 1; sign(0) = 0."""

    def abs(self, x: Tensor, /) -> Tensor:
        """Elementwise absolute value."""

    def exp(self, x: Tensor, /) -> Tensor:
        """Elementwise exponential."""

    def log(self, x: Tensor, /) -> Tensor:
        """Elementwise natural logarithm of x > 0."""

    def sqrt(self, x: Tensor, /) -> Tensor:
        """Elementwise square root of x ≥ 0."""

    def logaddexp(self, a: Tensor, b: Tensor, /) -> Tensor:
        """log(exp a + exp b), without overflow."""

    def log_softmax(self, logits: Tensor, /) -> Tensor:
        """(B, C) → (B, C), over the last axis."""

    def where(self, condition: Tensor, a: Tensor, b: Tensor | float, /) -> Tensor:
        """`a` where the condition holds, else `b`; nothing of the branch not taken leaks, not even NaN."""

    def clip(self, x: Tensor, lower: Tensor | float, upper: Tensor | float, /) -> Tensor:
        """min(max(x, lower), upper); both limits tensors shaped like x, or both floats."""

    def sum(self, x: Tensor, /) -> Tensor:
        """(B, …) → (B,): the sum over all axes but the batch."""

    def mean(self, x: Tensor, /) -> Tensor:
        """(B,) → (): the mean over the batch."""

    def max(self, x: Tensor, /) -> Tensor:
        """(B, …) → (B,): the largest over all axes but the batch."""

    def top_k(self, logits: Tensor, count: int, /) -> tuple[Tensor, ...]:
        """(B, C) → min(count, C) tensors (B,): the largest over the last axis, the second largest, and so on."""

    def sum_all(self, x: Tensor, /) -> Tensor:
        """Any shape → (): the sum over every axis."""

    def ones_like(self, x: Tensor, /) -> Tensor:
        """Ones of the same shape and dtype."""

    def expand_dims_like(self, vector: Tensor, like: Tensor, /) -> Tensor:
        """(B,) → (B, 1, …, 1) with as many axes as `like`: a per-example value beside images."""

    def one_hot(self, labels: Tensor, logits: Tensor, /) -> Tensor:
        """(B,) integers → (B, C) booleans, C taken from the logits."""

    def stop_gradient(self, x: Tensor, /) -> Tensor:
        """x as a constant."""

    def take(self, x: Tensor, rows: Sequence[int], /) -> Tensor:
        """(B, …) → (len(rows), …): these examples, in this order."""

    def concat(self, xs: Sequence[Tensor], /) -> Tensor:
        """Batches one after the other."""

    def fori_loop(
        self, steps: int, body: Callable[..., tuple[Tensor, ...]], carry: tuple[Tensor, ...], /
    ) -> tuple[Tensor, ...]:
        """`carry = body(*carry)`, `steps` times; shapes are fixed and the body keeps no state."""

    def vjp(self, fn: Callable[..., Tensor], /, *xs: Tensor) -> tuple[Tensor, Pullback]:
        """The value of `fn(*xs)` and its pullback: cotangent of the value → gradients with respect to `xs`.

        Only inputs are differentiated: no gradient of a weight is computed or stored. The pullback may be
        called any number of times, also inside a `fori_loop`; its results are constants.
        """

    def unrecorded(self, fn: Callable[..., Any], /, *args: Any) -> Any:
        """`fn(*args)`, hidden from any differentiation the caller has under way; results are constants."""

    def to_numpy(self, x: Tensor, /) -> Array:
        """A host copy, for logging and tests; never called inside a step."""


class Network(Protocol):
    """A model as the methods see it."""

    @property
    def ops(self) -> Ops:
        """The operations of the model's framework."""

    def logits(self, x: Tensor, mode: Mode, *, dropout: bool = False) -> Tensor:
        """One forward: pixels (B, …) in the model's own layout → logits (B, C).

        `dropout` turns dropout-like layers on (the outer forwards); the searches for examples leave it off.
        """


class Classifier(Network, Protocol):
    """A model as evaluation and the facade see it."""

    def shape(self, x: Tensor) -> tuple[int | None, ...]:
        """(B, H, W, C) of images in the model's layout, or x's own shape where it is flat; B is None while open.

        TypeError for what is not a tensor of the model's framework and dtype.
        """

    def signature(self) -> Hashable:
        """Changes when the network does: the shapes of its weights."""

    def to_numpy(self, x: Tensor) -> Array | None:
        """The values on the host, or None while a graph is being traced and there are none."""

    def eval_logits(self, x: Tensor) -> Array | None:
        """The logits of one EVAL forward on the host, to check a model by; None while a graph is being traced."""

    def pixels(self, array: Array) -> Tensor:
        """A host array in the model's own layout as its tensor; uint8 becomes [0, 1]."""

    def host_pixels(self, array: Array) -> Array:
        """The values of `pixels` as a host array of the same layout, without the device."""

    def images(self, array: Array) -> Tensor:
        """Host images (B, H, W, C), or flat input, as the model's tensor; uint8 becomes [0, 1]."""

    def host_images(self, x: Tensor | Array) -> Array:
        """What `images` takes: pixels in the model's layout, a tensor or a host array, as (B, H, W, C) or flat."""

    def resident(self, images: Array) -> Callable[[Array, Any], Tensor]:
        """Puts uint8 images (N, H, W, C) on the device, once. What it returns chooses some of them by their places
        (b,), augments them as `stcore.data.augment.CropFlip` or None says, and gives what `images` would."""

    def labels(self, array: Array) -> Tensor:
        """Host labels (B,) as the model's integer tensor."""

    def compile(self, fn: Callable[..., Any], *, rowwise: bool = False) -> Callable[..., Any]:
        """`fn` of tensors (batch size free), made fast as a whole where the framework can; else `fn` itself.

        rowwise: each example's results depend on that example alone, so that a framework which compiles for one
        batch size at a time may fill a batch up.
        """

    def weights(self) -> dict[str, Array]:
        """Weights and running statistics by name, as host arrays in the framework-neutral layout."""

    def load_weights(self, weights: Mapping[str, Array]) -> None:
        """Puts such weights into the model; UsageError, and nothing changed, where they do not fit."""

    def state(self) -> Sequence[Tensor]:
        """Weights and running statistics, in a fixed order; what is no floating number is left out."""

    def assign(self, values: Sequence[Tensor]) -> None:
        """Puts such values in their place."""

    def snapshot(self) -> dict[str, Array]:
        """All that the next step depends on, bit for bit, by names of the framework's own: every variable, a
        learner's optimizer too, and the state of what random layers draw from."""

    def restore(self, snapshot: Mapping[str, Array]) -> None:
        """Takes up a snapshot of a classifier made alike; UsageError where it does not fit."""

    def copy(self) -> Classifier:
        """A classifier with the same network and weights of its own, equal for now."""

    def folded(self, x: Tensor) -> Classifier:
        """A classifier for EVAL forwards alone, faster and equal but for rounding; itself where there is none.

        Batch norms are folded into the convolutions before them. x: a few images (B, …) on which logits and their
        gradients are compared. It keeps the weights as they are now: later ones need a folding of their own.
        """


class Learner(Classifier, Protocol):
    """A classifier together with its optimizer."""

    def value_and_grad(
        self, loss: Callable[[], tuple[Tensor, Metrics]]
    ) -> tuple[tuple[Tensor, Metrics], Sequence[Tensor | None]]:
        """The scalar loss with its metrics, and its gradients with respect to the trainable weights.

        None stands for a weight the loss does not reach; it is neither updated nor decayed.
        """

    def apply_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        """One optimizer update."""

    def matrix_weights(self) -> Sequence[Tensor | None]:
        """The trainable weights in the gradients' order; None for those of one axis (biases, batch norms)."""

    def shift(self, amounts: Sequence[Tensor | None]) -> None:
        """Adds to the trainable weights, past the optimizer; None leaves one where it is."""

    def searching(self) -> Network:
        """The network as the search for examples sees it, which may reckon in another precision."""

    def regularization_loss(self) -> Tensor | None:
        """What the model itself adds to every loss, such as Keras' weight regularisers; None where nothing."""

    def set_learning_rate(self, rate: float) -> None:
        """The learning rate of the updates to come."""
