"""Interface of network runners: arrays in, array out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[np.float32]


class RunnerError(RuntimeError):
    """Failure of a runner to run this network here; another may. The message has the reason."""

    level = "warning"


class RunnerMissing(RunnerError):
    """Runner not installed, or without a device here; no fault if another works."""

    level = "note"


class OutOfDeviceMemory(RunnerError):
    """Too little free memory on the device, perhaps for a moment only."""


class WrongAnswer(RunnerError):
    """Depth of a runner that differs from the reference; it must not be used."""

    level = "error"


class RunnerFault(NamedTuple):
    """Fault of a runner that another replaces; level: note, warning, error."""

    level: str
    text: str


@dataclass(frozen=True)
class Golden:
    """Golden test of a runner against the reference, before its use."""

    inputs: Callable[[], list[Array]]
    difference: Callable[[Array], float]
    """Difference of an answer from the reference's, as a share of the range."""
    tolerance: float

    def check(self, name: str, answer: Array) -> dict[str, float]:
        """Figures for a record. Raises WrongAnswer for too large a difference of runner `name`."""
        found = self.difference(answer)
        if not found <= self.tolerance:
            raise WrongAnswer(
                f"{name}: its depth differs from PyTorch's by {found:.2g} of the range, over {self.tolerance:g}"
            )
        return {"difference": found, "tolerance": self.tolerance}


class Runner(ABC):
    """Runner of one network on one device.

    Both methods take and return float32 without a batch axis. Height and width are the last two axes and fit the
    network (see its `DOWNSAMPLING`). They raise :class:`RunnerError` if the runner does not work.
    """

    @property
    @abstractmethod
    def description(self) -> str:
        """Runner and device, for reports: "torch on cpu"."""

    @property
    def faults(self) -> list[RunnerFault]:
        """Faults so far of a runner that still answers, for diagnostics."""
        return []

    @abstractmethod
    def run(self, *inputs: Array) -> Array:
        """Run the network on host arrays."""

    @abstractmethod
    def run_tensors(self, *inputs: Tensor) -> Tensor:
        """Run the network on device tensors, on CUDA in the current stream.

        The next call may overwrite the result.
        """
