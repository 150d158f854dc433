"""Arrays to a device and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def uploaded(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """An array on a device; on CUDA the host does not wait for the copy."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def downloaded(tensor: torch.Tensor) -> NDArray[Any]:
    """A tensor as an array; the host waits for all that was launched before."""
    return np.asarray(tensor.cpu().numpy())
