"""Runner of a network: arrays in, array out."""

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
Progress = Callable[[str, float], None]
"""Called with what is being prepared and the share of it that is done."""


class RunnerError(RuntimeError):
    """This runner cannot run this network here; another may. The message says why."""

    level = "warning"


class RunnerMissing(RunnerError):
    """Runner not installed, or without a device here; no fault if another works."""

    level = "note"


class OutOfDeviceMemory(RunnerError):
    """Too little memory on the device at this moment; later there may be enough."""


class WrongAnswer(RunnerError):
    """A runner whose depth is not the reference's. It must not be used."""

    level = "error"


class RunnerFault(NamedTuple):
    """Fault of a runner although there is an answer; level: note, warning, error."""

    level: str
    text: str


@dataclass(frozen=True)
class Golden:
    """Inputs by which a runner is held to the reference before it is used."""

    inputs: Callable[[], list[Array]]
    difference: Callable[[Array], float]
    """How far an answer to them is from the reference's, as a share of the range."""
    tolerance: float

    def check(self, name: str, answer: Array) -> dict[str, float]:
        """Figures for a record. Raises WrongAnswer where the answer of runner `name` is too far away."""
        found = self.difference(answer)
        if not found <= self.tolerance:
            raise WrongAnswer(
                f"{name}: its depth differs from PyTorch's by {found:.2g} of the range, over {self.tolerance:g}"
            )
        return {"difference": found, "tolerance": self.tolerance}


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
    def faults(self) -> list[RunnerFault]:
        """Faults so far although there is an answer, for diagnostics."""
        return []

    @abstractmethod
    def run(self, *inputs: Array) -> Array:
        """The network's output for its inputs, in host memory."""

    @abstractmethod
    def run_tensors(self, *inputs: Tensor) -> Tensor:
        """The same for tensors on their device, on CUDA in the current stream.

        The answer may be overwritten by the next one.
        """
