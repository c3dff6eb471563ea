"""Distributed training over the processes of `torchrun`: each has its share of every batch."""

from __future__ import annotations

import atexit
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from stcore.backends.torch import ops as torch_ops
from stcore.backends.torch import snapshots
from stcore.backends.torch.learner import TorchLearner
from stcore.base.ranks import Alone, Ranks, launched
from stcore.base.snapshots import part
from stcore.errors import UsageError
from stcore.protocols import Array, Metrics, Ops

STORE_TIMEOUT = timedelta(seconds=10)
_SYNC_BUFFERS = "forward_sync_buffers"  # newer PyTorch's name of broadcast_buffers
_PARAMETERS = inspect.signature(DistributedDataParallel.__init__).parameters
# `apply_gradients` broadcasts the buffers.
_NO_BUFFER_SYNC: dict[str, Any] = {_SYNC_BUFFERS if _SYNC_BUFFERS in _PARAMETERS else "broadcast_buffers": False}


def join_ranks(device: str) -> Ranks:
    """This process as one of those that the launcher started, or alone. Uses gloo, on GPUs also NCCL."""
    if launched() == 1:
        return Alone()
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo")
    return TorchRanks(dist.get_rank(), dist.get_world_size())


class TorchRanks:
    """`stcore.base.ranks.Ranks` over `torch.distributed`."""

    def __init__(self, rank: int, count: int) -> None:
        self.rank, self.count = rank, count

    def gather(self, value: Any) -> list[Any]:
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def any(self, *flags: bool) -> tuple[bool, ...]:
        reduced = torch.tensor(flags, dtype=torch.uint8)  # on the CPU: no wait for a GPU
        dist.all_reduce(reduced, dist.ReduceOp.MAX)
        return tuple(map(bool, reduced.tolist()))

    def join(self, learner: Any) -> RankedLearner:
        return RankedLearner(learner, self)

    def attend(self) -> None:
        self.generator_states()

    def generator_states(self) -> list[dict[str, Array]]:
        """Every rank's states of the random generators."""
        return self.gather(snapshots.generator_states())

    def lost(self, error: Exception) -> bool:
        message = str(error)
        phrases = ("Connection closed by peer", "Connection reset by peer", "gloo")
        closed = any(phrase in message for phrase in phrases)
        return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and closed)

    def leave(self) -> None:
        # All ranks exit together: the launcher ends the others as soon as one is gone.
        atexit.register(_exit_together)


def _exit_together() -> None:
    dist.barrier()
    dist.destroy_process_group()


def first_to_fail() -> bool:
    """Whether no other rank has failed before, by a counter in the ranks' rendezvous store."""
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    try:
        store: Any = dist.TCPStore(host, port, is_master=False, timeout=STORE_TIMEOUT)  # type: ignore[attr-defined]
        return int(store.add(f"stcore/failed/{attempt}", 1)) == 1
    except RuntimeError:  # without torchrun rank 0 hosts the store, which ends with it
        return False


def synchronised(model: nn.Module, device: str) -> nn.Module:
    """The model with batch norms over the examples of all ranks. Raises UsageError on the CPU."""
    if not device.startswith("cuda"):
        raise UsageError(
            f"sync_batch_norm: expected a CUDA device, which PyTorch's SyncBatchNorm needs; received {device}. "
            "Leave it out: each rank then uses the statistics of its own share, and rank 0's are kept"
        )
    converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return converted


class RankedLearner(TorchLearner):
    """A learner as one of several ranks.

    `DistributedDataParallel` computes the loss and averages the gradients; the search for examples uses the bare
    module. After each update all ranks take the running statistics of rank 0.
    """

    def __init__(self, learner: TorchLearner, ranks: TorchRanks) -> None:
        vars(self).update(vars(learner))  # all its attributes, precision included
        self._ranks = ranks
        self.ops = _with_global_mean(torch_ops)
        # unused: a method may leave weights out of its loss, and None must stay None
        self._loss = DistributedDataParallel(_Loss(self.model), find_unused_parameters=True, **_NO_BUFFER_SYNC)
        self._offset_seed()

    def call_loss(self, loss: Callable[[], tuple[Tensor, Metrics]]) -> tuple[Tensor, Metrics]:
        result: tuple[Tensor, Metrics] = self._loss(loss)
        return result

    def apply_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        super().apply_gradients(gradients)
        buffers = [buffer for buffer in self.model.buffers() if buffer.is_floating_point()]
        for kind in dict.fromkeys(buffer.dtype for buffer in buffers):
            _broadcast([buffer for buffer in buffers if buffer.dtype == kind])

    def snapshot(self) -> dict[str, Array]:
        """Rank 0's snapshot, with the generator states of the other ranks."""
        _, *others = self._ranks.generator_states()
        other_states = {
            f"rank{rank}/{name}": array for rank, states in enumerate(others, 1) for name, array in states.items()
        }
        return super().snapshot() | other_states

    def restore(self, snapshot: Mapping[str, Array]) -> None:
        super().restore(snapshot)
        if self._ranks.rank and (own := part(snapshot, f"rank{self._ranks.rank}/")):
            snapshots.restore_generators(own)
        elif self._ranks.rank:  # the snapshot comes from fewer ranks
            self._offset_seed()

    def _offset_seed(self) -> None:
        """Seeds each rank differently, so that no two have the same dropout masks."""
        if self._ranks.rank:
            torch.manual_seed(torch.initial_seed() + self._ranks.rank)


@torch.no_grad()
def _broadcast(tensors: Sequence[Tensor]) -> None:
    """Sends rank 0's values to all ranks in one message."""
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.broadcast(flat, 0)
    for tensor, values in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(values.reshape(tensor.shape))


class _Loss(nn.Module):
    """The module that `DistributedDataParallel` wraps: a whole loss, which calls the model several times."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, loss: Callable[[], tuple[Tensor, Metrics]]) -> tuple[Tensor, Metrics]:
        return loss()


class _Mean(torch.autograd.Function):
    """The mean over the examples of all ranks; ranks may have different numbers of them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        sum_and_count = torch.stack([x.sum(), x.new_tensor(len(x))])
        dist.all_reduce(sum_and_count)
        total, count = sum_and_count.unbind()
        ctx.share, ctx.count = dist.get_world_size() / count, len(x)  # times the ranks: gradients are averaged
        mean: Tensor = total / count
        return mean

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        per_example: Tensor = (gradient * ctx.share).expand(ctx.count)
        return per_example


@torch.no_grad()
def _means(xs: Sequence[Tensor]) -> Sequence[Tensor]:
    """The means over the examples of all ranks, in one message."""
    own = torch.stack([*xs, torch.ones_like(xs[0])]).sum(1)
    dist.all_reduce(own)
    return (own[:-1] / own[-1]).unbind()


def _with_global_mean(ops: ModuleType) -> Ops:
    """The operations with means over the batch of all ranks."""
    return cast(Ops, SimpleNamespace(**{**vars(ops), "mean": _Mean.apply, "means": _means}))
