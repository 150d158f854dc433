"""What runs a network: arrays in, array out, whatever is behind it."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray


class Runner(ABC):
    """Runs one network on one device."""

    @property
    @abstractmethod
    def description(self) -> str:
        """Runner and device, for reports: "torch on cpu"."""

    @abstractmethod
    def run(self, *inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """The network's output for its inputs, float32 arrays without a batch axis, in and out.

        Height and width are the last two axes and fit the network (see its `DOWNSAMPLING`).
        """
