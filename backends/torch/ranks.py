"""The processes that `torchrun` starts: each trains on its share of every batch (`DistributedDataParallel`)."""

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

PATIENCE = timedelta(seconds=10)
_WORD = "forward_sync_buffers"  # newer PyTorch's name of broadcast_buffers
_KNOWN = inspect.signature(DistributedDataParallel.__init__).parameters
# Buffers are sent around by `apply_gradients`.
_OWN_BUFFERS: dict[str, Any] = {_WORD if _WORD in _KNOWN else "broadcast_buffers": False}


def join_ranks(device: str) -> Ranks:
    """This process among those that the launcher started, or alone. They talk by gloo, on GPUs also by NCCL."""
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
        raised = torch.tensor(flags, dtype=torch.uint8)  # on the CPU: no GPU is waited for
        dist.all_reduce(raised, dist.ReduceOp.MAX)
        return tuple(map(bool, raised.tolist()))

    def join(self, learner: Any) -> RankedLearner:
        return RankedLearner(learner, self)

    def lost(self, error: Exception) -> bool:
        said = str(error)
        closed = "Connection closed by peer" in said or "Connection reset by peer" in said or "gloo" in said
        return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and closed)

    def leave(self) -> None:
        # Once each has said its last word: the launcher ends the others as soon as one is gone.
        atexit.register(_leave_together)


def _leave_together() -> None:
    dist.barrier()
    dist.destroy_process_group()


def first_to_fail() -> bool:
    """Whether no other rank has failed before, by a count in the store where the ranks found each other."""
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    try:
        store: Any = dist.TCPStore(host, port, is_master=False, timeout=PATIENCE)  # type: ignore[attr-defined]
        return int(store.add(f"stcore/failed/{attempt}", 1)) == 1
    except RuntimeError:  # without torchrun it is rank 0's, and gone with it
        return False


def synchronised(model: nn.Module, device: str) -> nn.Module:
    """The model with batch norms whose statistics are of all ranks' examples; UsageError on the CPU."""
    if not device.startswith("cuda"):
        raise UsageError(
            f"sync_batch_norm: expected a CUDA device, which PyTorch's SyncBatchNorm needs; received {device}. "
            "Leave it out: each rank then has statistics of its own share, and rank 0's are kept"
        )
    converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return converted


class RankedLearner(TorchLearner):
    """A learner as one of several ranks.

    The loss goes through `DistributedDataParallel`, which averages the gradients; the search for examples is on
    the bare module. After each update rank 0's running statistics are everyone's.
    """

    def __init__(self, learner: TorchLearner, ranks: TorchRanks) -> None:
        vars(self).update(vars(learner))  # precision and all: the same learner, seen as one of several
        self._ranks = ranks
        self.ops = _shared(torch_ops)
        # unused: a method may leave weights out of its loss, and None must stay None
        self._loss = DistributedDataParallel(_Loss(self.model), find_unused_parameters=True, **_OWN_BUFFERS)
        self._draw_apart()

    def through(self, loss: Callable[[], tuple[Tensor, Metrics]]) -> tuple[Tensor, Metrics]:
        result: tuple[Tensor, Metrics] = self._loss(loss)
        return result

    def apply_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        super().apply_gradients(gradients)
        buffers = [buffer for buffer in self.model.buffers() if buffer.is_floating_point()]
        for kind in dict.fromkeys(buffer.dtype for buffer in buffers):
            _broadcast([buffer for buffer in buffers if buffer.dtype == kind])

    def snapshot(self) -> dict[str, Array]:
        """Rank 0's, with what the layers of the others draw from."""
        _, *others = self._ranks.gather(snapshots.of_generators())
        theirs = {
            f"rank{rank}/{name}": array for rank, states in enumerate(others, 1) for name, array in states.items()
        }
        return super().snapshot() | theirs

    def restore(self, snapshot: Mapping[str, Array]) -> None:
        super().restore(snapshot)
        if self._ranks.rank and (own := part(snapshot, f"rank{self._ranks.rank}/")):
            snapshots.into_generators(own)
        elif self._ranks.rank:  # there were fewer
            self._draw_apart()

    def _draw_apart(self) -> None:
        """No two ranks have the same dropout masks."""
        if self._ranks.rank:
            torch.manual_seed(torch.initial_seed() + self._ranks.rank)


@torch.no_grad()
def _broadcast(tensors: Sequence[Tensor]) -> None:
    """Rank 0's values to all, in one message."""
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.broadcast(flat, 0)
    for tensor, values in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(values.reshape(tensor.shape))


class _Loss(nn.Module):
    """What `DistributedDataParallel` wraps: the whole of a loss, in which the model is called several times."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, loss: Callable[[], tuple[Tensor, Metrics]]) -> tuple[Tensor, Metrics]:
        return loss()


class _Mean(torch.autograd.Function):
    """The mean over the examples of all ranks, however many each has."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        both = torch.stack([x.sum(), x.new_tensor(len(x))])
        dist.all_reduce(both)
        ctx.share, ctx.count = dist.get_world_size() / both[1], len(x)  # times the ranks: gradients are averaged
        return both[0] / both[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        shared: Tensor = (gradient * ctx.share).expand(ctx.count)
        return shared


def _shared(ops: ModuleType) -> Ops:
    """The operations, but for the mean over the batch."""
    return cast(Ops, SimpleNamespace(**{**vars(ops), "mean": _Mean.apply}))
