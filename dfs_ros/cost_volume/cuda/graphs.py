"""CUDA graphs for repeated computations of one shape: one launch for many kernels.

A graph reads and writes the very memory that it was recorded with. So inputs are copied in, except outputs of another
recording, and outputs are overwritten by the next call of the same key. A recorded computation may not wait for the
device and may not depend on values in the host's memory.
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
    """A computation on fixed memory: fill `inputs`, call `replay`, and `outputs` hold the answer."""

    inputs: Tensors
    outputs: Tensors
    replay: Callable[[], None]


class CudaGraphs:
    """Recorded computations, the `most` used last.

    The first call of a key computes as it is, so that all that is made once is made; the second records; all others
    replay. Without CUDA, and where recording fails, which is told once, it stays at computing. `record` stands in for
    the recording of CUDA in tests.
    """

    def __init__(self, most: int = 12, record: Record | None = None) -> None:
        self._most, self._record = most, record
        self._kept: OrderedDict[Hashable, Recorded | None] = OrderedDict()
        self._failed: set[Hashable] = set()

    def __call__(self, key: Hashable, compute: Compute, *inputs: Tensor) -> Tensors:
        """``compute(*inputs)``; shapes and types of the inputs need not be in the key."""
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
            except RuntimeError as error:  # out of memory, or something that cannot be recorded
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

    def clear(self) -> None:
        """Forget all recordings, and the memory they hold."""
        self._kept.clear()

    def _is_output(self, tensor: Tensor) -> bool:
        """Whether a recording writes this very tensor: it need not be copied into the next one."""
        return any(tensor is output for recorded in self._kept.values() if recorded for output in recorded.outputs)

    def _keep(self, key: Hashable, recorded: Recorded | None) -> None:
        self._kept[key] = recorded
        self._kept.move_to_end(key)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)


def record_on_cuda(compute: Compute, inputs: Tensors) -> Recorded:
    """Record ``compute(*inputs)`` on the memory of `inputs`. Raises RuntimeError where it cannot be recorded."""
    import torch

    current = torch.cuda.current_stream()
    # Recording needs a stream of its own; libraries make their workspaces for it at a first call.
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(current)
    with torch.cuda.stream(side):
        compute(*inputs)
    current.wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # Other threads may use CUDA meanwhile.
    with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
        outputs = compute(*inputs)
    # What was allocated to compute without the graph, which has memory of its own, serves others now.
    torch.cuda.empty_cache()
    return Recorded(inputs, outputs, graph.replay)
