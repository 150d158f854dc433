"""CUDA graphs for repeated computations of one shape: one launch for many kernels.

A graph reads and writes the memory of its recording. So inputs are copied in, except outputs of another recording, and
the next call of the same key overwrites the outputs. A recorded computation may not wait for the device nor depend on
values in host memory.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dfs_ros.system.tracebacks import keep_traceback

if TYPE_CHECKING:
    from torch import Tensor

Tensors = tuple["Tensor", ...]
Compute = Callable[..., Tensors]
Record = Callable[[Compute, Tensors], "Recorded"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recorded:
    """Recording on fixed memory: fill `inputs`, call `replay`, read `outputs`."""

    inputs: Tensors
    outputs: Tensors
    replay: Callable[[], None]


class CudaGraphs:
    """Cache of recorded computations, the `most` recently used ones.

    The first call of a key computes directly, which creates all that is created once; the second records; later ones
    replay. Without CUDA, or after a failure to record (logged once), all calls compute. `record` replaces CUDA's
    recording in tests.
    """

    def __init__(self, most: int = 12, record: Record | None = None) -> None:
        self._most, self._record = most, record
        self._kept: OrderedDict[Hashable, Recorded | None] = OrderedDict()
        self._failed: set[Hashable] = set()

    def __call__(self, key: Hashable, compute: Compute, *inputs: Tensor) -> Tensors:
        """Return ``compute(*inputs)``; the key need not include shapes and types of the inputs."""
        if self._record is None and not inputs[0].is_cuda:
            return compute(*inputs)
        key = (key, *((tuple(tensor.shape), tensor.dtype, tensor.device) for tensor in inputs))
        if key in self._failed:
            return compute(*inputs)
        if key not in self._kept:
            self._keep(key, None)
            return compute(*inputs)
        recorded = self._kept[key]
        if recorded is None:
            try:
                kept_inputs = tuple(tensor if self._is_output(tensor) else tensor.clone() for tensor in inputs)
                recorded = (self._record or record_on_cuda)(compute, kept_inputs)
            except RuntimeError as error:  # out of memory, or an unrecordable operation
                keep_traceback(error)
                _log.warning("no CUDA graph, kernels are launched one by one: %s", error)
                self._failed.add(key)
                del self._kept[key]
                return compute(*inputs)
        self._keep(key, recorded)
        for kept, tensor in zip(recorded.inputs, inputs, strict=True):
            if kept is not tensor:
                kept.copy_(tensor)
        recorded.replay()
        return recorded.outputs

    def like(self, most: int) -> CudaGraphs:
        """Another cache, which records in the same way."""
        return CudaGraphs(most, self._record)

    def clear(self) -> None:
        """Drop all recordings with their memory."""
        self._kept.clear()

    def _is_output(self, tensor: Tensor) -> bool:
        """True if a recording writes this tensor, which then need not be copied into the next."""
        return any(tensor is output for recorded in self._kept.values() if recorded for output in recorded.outputs)

    def _keep(self, key: Hashable, recorded: Recorded | None) -> None:
        self._kept[key] = recorded
        self._kept.move_to_end(key)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)


def record_on_cuda(compute: Compute, inputs: Tensors) -> Recorded:
    """Record ``compute(*inputs)`` on the memory of `inputs`. Raises RuntimeError on failure."""
    import torch

    current = torch.cuda.current_stream()
    # Recording needs its own stream; libraries allocate workspaces for it at a first call.
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(current)
    with torch.cuda.stream(side):
        compute(*inputs)
    current.wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # Other threads may use CUDA meanwhile.
    with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
        outputs = compute(*inputs)
    # Memory of the direct computation is free for other uses now: the graph has its own.
    torch.cuda.empty_cache()
    return Recorded(inputs, outputs, graph.replay)
