"""Distributed training over the processes of `torchrun`: each has its share of every batch."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from stcore.backends.torch import ops as torch_ops
from stcore.backends.torch import snapshots
from stcore.backends.torch.learner import TorchLearner
from stcore.base.ranks import Alone, Ranks, launched
from stcore.base.snapshots import part
from stcore.errors import UsageError
from stcore.protocols import Array, Ops

STORE_TIMEOUT = timedelta(seconds=10)


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

    Means are over all ranks' examples; each rank computes its own share of the gradients, and they are summed once
    for each update. All ranks start with the weights of rank 0, and take its running statistics after each update.
    """

    def __init__(self, learner: TorchLearner, ranks: TorchRanks) -> None:
        vars(self).update(vars(learner))  # all its attributes, precision included
        self._ranks = ranks
        self.ops = _with_global_mean(torch_ops)
        _in_one_message([*self.model.parameters(), *self.model.buffers()], _broadcast)
        self._offset_seed()

    def summed(self, gradients: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        """The sums over all ranks, in one message for each dtype; None if no rank has one."""
        reached = [gradient is not None for gradient in gradients]
        sums = [torch.zeros_like(p) if g is None else g for p, g in zip(self.trainable, gradients, strict=True)]
        counts = torch.tensor(reached, dtype=self.dtype).to(self.device, non_blocking=True)
        _in_one_message([*sums, counts], dist.all_reduce)
        if all(reached):  # then nothing waits for the device
            return sums
        return [total if count else None for total, count in zip(sums, counts.tolist(), strict=True)]

    def apply_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        super().apply_gradients(gradients)
        _in_one_message([buffer for buffer in self.model.buffers() if buffer.is_floating_point()], _broadcast)

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
def _in_one_message(tensors: Sequence[Tensor], collective: Callable[[Tensor], Any]) -> None:
    """Makes the collective operation on the tensors, in place: one message for each dtype."""
    for kind in dict.fromkeys(tensor.dtype for tensor in tensors):
        alike = [tensor for tensor in tensors if tensor.dtype == kind]
        flat = torch.cat([tensor.reshape(-1) for tensor in alike])
        collective(flat)
        for tensor, values in zip(alike, torch.split(flat, [tensor.numel() for tensor in alike]), strict=True):
            tensor.copy_(values.reshape(tensor.shape))


def _broadcast(flat: Tensor) -> None:
    """Sends rank 0's values to all ranks."""
    dist.broadcast(flat, 0)


class _Mean(torch.autograd.Function):
    """The mean over the examples of all ranks; ranks may have different numbers of them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        sum_and_count = torch.stack([x.sum(), x.new_tensor(len(x))])
        dist.all_reduce(sum_and_count)
        total, count = sum_and_count.unbind()
        ctx.share, ctx.count = 1 / count, len(x)
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
