"""What runs a network: arrays in, array out, whatever is behind it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[np.float32]
Progress = Callable[[str, float], None]
"""Called with what is being prepared and the share of it that is done."""


class RunnerError(RuntimeError):
    """This runner cannot run this network here; another may. The message says why."""


class Runner(ABC):
    """Runs one network on one device.

    Both ways of running take and give float32 without a batch axis. Height and width are the last two axes and fit
    the network (see its `DOWNSAMPLING`). They raise :class:`RunnerError` where the runner turns out not to work.
    """

    @property
    @abstractmethod
    def description(self) -> str:
        """Runner and device, for reports: "torch on cpu"."""

    @property
    def problems(self) -> list[str]:
        """What went wrong so far though there is an answer, for diagnostics; one line each."""
        return []

    @abstractmethod
    def run(self, *inputs: Array) -> Array:
        """The network's output for its inputs, in host memory."""

    @abstractmethod
    def run_tensors(self, *inputs: Tensor) -> Tensor:
        """The same for tensors, which stay on their device: on CUDA in the order of the current stream."""
