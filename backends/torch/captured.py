"""The search for examples as a CUDA graph: recorded once, then launched as a whole.

A search launches thousands of small kernels, one by one; a graph launches them at once. It reads and writes fixed
addresses: a batch is copied to where the recorded one was, and what was found is copied out. Weights and running
statistics keep their addresses, since optimizers, weight perturbations and restored states all write in place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stcore.backends.torch.learner import TorchLearner
from stcore.backends.torch.snapshots import generator_states
from stcore.core.objective import Objective, Passes, PerExample, numbers_of, remember, told
from stcore.errors import DeviceError, UsageError
from stcore.protocols import Array, Network

WARM_UP = 3
"""Runs before a recording, in which libraries choose their kernels and allocate their workspaces."""


class Graph:
    """What `run` does on the GPU, recorded. `run` takes no arguments and returns the same tensors each time."""

    def __init__(self, run: Callable[[], Any]) -> None:
        # Not the default stream, whose backward passes cannot be recorded.
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        # thread_local: another thread may allocate pinned memory for the next batch meanwhile.
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            self._results = run()

    def replay(self) -> Any:
        """The results, which the next replay overwrites."""
        self._graph.replay()
        return self._results


class CapturedSearch:
    """An objective whose `find` is recorded for the largest batches of the current phase; others are eager.

    The results are those of the objective, bit for bit. Raises DeviceError for a learner that is not on a CUDA
    device; `find` raises UsageError for a network that draws random numbers in a search.
    """

    def __init__(self, objective: Objective, learner: TorchLearner, graph: Any = Graph) -> None:
        if learner.device.type != "cuda" and graph is Graph:
            raise DeviceError(
                f"cuda_graph: expected a CUDA device; received {learner.device}. Leave the option out, or take "
                "another device"
            )
        self._objective, self._learner, self._record = objective, learner, graph
        self._largest = 0
        self._numbers: tuple[Tensor, ...] = ()
        self._recorded: tuple[Any, Any, tuple[Tensor, ...]] = None, None, ()  # for what, the graph, its inputs

    @property
    def noise_laws(self) -> tuple[str, ...]:
        return self._objective.noise_laws

    @property
    def passes(self) -> Passes:
        return self._objective.passes

    def phase(self, epoch: int) -> int:
        return self._objective.phase(epoch)

    def numbers(self, epoch: int, remembered: Array | None) -> tuple[Array, ...]:
        return numbers_of(self._objective, epoch, remembered)

    def told(self, numbers: tuple[Tensor, ...]) -> CapturedSearch:
        self._numbers = numbers
        return self

    def remember(self, remembered: Array | None, tally: Array) -> Array | None:
        return remember(self._objective, remembered, tally)

    def losses(self, model: Network, x: Tensor, y: Tensor, examples: Any, phase: int = 0) -> PerExample:
        return told(self._objective, self._numbers).losses(model, x, y, examples, phase)

    def find(self, model: Network, x: Tensor, y: Tensor, noise: tuple[Tensor, ...], phase: int = 0) -> Any:
        self._largest = max(self._largest, len(x))
        if len(x) < self._largest:
            return told(self._objective, self._numbers).find(model, x, y, noise, phase)
        batch, module = (x, y, *noise, *self._numbers), self._learner.model
        addresses = [tensor.data_ptr() for tensor in (*module.parameters(), *module.buffers())]
        what = phase, [(tensor.shape, tensor.stride(), tensor.dtype) for tensor in batch], addresses
        if what != self._recorded[0]:
            self._recorded = None, None, ()  # frees the graph before
            self._recorded = what, *self._graph(model, batch, phase)
        _, graph, inputs = self._recorded
        for own, given in zip(inputs, batch, strict=True):
            own.copy_(given)
        return _copied(graph.replay())

    def _graph(self, model: Network, batch: tuple[Tensor, ...], phase: int) -> tuple[Any, tuple[Tensor, ...]]:
        x, y, *others = inputs = tuple(tensor.clone() for tensor in batch)
        count = len(self.noise_laws)
        noise, objective = tuple(others[:count]), told(self._objective, tuple(others[count:]))
        before, module = generator_states(), self._learner.model
        statistics = [(buffer, buffer.clone()) for buffer in module.buffers()]
        graph = self._record(lambda: objective.find(model, x, y, noise, phase))
        for buffer, value in statistics:  # a search may write them, and has run to be recorded
            buffer.copy_(value)
        if any(not np.array_equal(state, before[name]) for name, state in generator_states().items()):
            raise UsageError(
                "cuda_graph: expected a network that draws no random numbers in a search; received one whose "
                "layers do. Leave the option out"
            )
        return graph, inputs


def _copied(examples: Any) -> Any:
    """The examples, None or a tensor or a (named) tuple of these, in memory of their own."""
    if isinstance(examples, Tensor):
        return examples.clone()
    if not isinstance(examples, tuple):
        return examples
    copies = map(_copied, examples)
    return type(examples)(*copies) if hasattr(examples, "_fields") else tuple(copies)
