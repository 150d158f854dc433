"""Energy: logarithm of the cost; misfits weigh by their ratio."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Volume = NDArray[np.float32]

# Squared residuals under this carry nothing but 8-bit rounding.
COST_FLOOR = 1e-7


def log_energy(cost: Volume, method: str) -> Volume:
    """Logarithm of the squared misfit, float32 (D, H, W).

    It is minus the log-likelihood of a misfit of unknown variance.

    Bright and dark, strong and faint texture then weigh alike. `residual` volumes are squared already; `paper` and
    `released` are sums of standard deviations.
    """
    energy: Volume = np.add(cost if method == "residual" else cost * cost, np.float32(COST_FLOOR), dtype=np.float32)
    return np.log(energy, out=energy)


def log_energy_tensor(cost: Tensor, method: str) -> Tensor:
    """:func:`log_energy` of a tensor in place, on its device; the cost is overwritten."""
    squared = cost if method == "residual" else cost.mul_(cost)
    return squared.add_(COST_FLOOR).log_()
