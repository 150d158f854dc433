"""Cost volumes of a lens whose aperture narrows towards the corners of the image.

A volume is computed for a few apertures a_k over all pixels, and interpolated at the aperture a of each:

    C(d, x) = max( sum over k of w_k(a(x)) C_k(d, x),  a quarter of the least of the C_k(d, x) )

The cost is about a parabola of blur, and blur is in proportion to the aperture: three apertures and the parabola
through their costs serve for any vignetting, two and a line for a small one. The bound is that of
:mod:`.hypotheses`: a parabola may swing below 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfs_ros.cost_volume.halving import halved
from dfs_ros.optics import thin_lens
from dfs_ros.types import FocalStack

_LEAST_BLUR_PX = 0.25  # difference of the widest disks, in the middle and in the corners, that is worth a volume more
_LINEAR = 1.08  # ratio of apertures: the line's error shifts depth by 0.15 % of its distance from the focus at most
_LEAST_SHARE = 0.25

Plane = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ApertureStates:
    """Apertures (K,) over that of the stack's camera, and the weight of each at every pixel, (K, H, W)."""

    factors: tuple[float, ...]
    weights: Plane

    def blended(self, volume_of: Callable[[float], Any], weights: Any = None) -> Any:
        """Volume (D, H, W) of all pixels from those of the apertures, arrays or tensors, which are overwritten.

        `weights`: on the device of the volumes, if not the host.
        """
        total: Any = None
        least: Any = None
        for factor, weight in zip(self.factors, self.weights if weights is None else weights, strict=True):
            volume = volume_of(factor)
            weighted = volume * weight
            volume *= _LEAST_SHARE
            total = weighted if total is None else total + weighted
            least = volume if least is None else least.clip(max=volume)
        return total.clip(min=least)


def aperture_states(stack: FocalStack, depths_m: ArrayLike, half: bool = False) -> ApertureStates | None:
    """Apertures to compute a volume for, with weights at the full size, or at `half`; None: one serves for all."""
    camera = stack.camera
    if camera.field is None or camera.field.vignetting == 0:
        return None
    openness = camera.field.openness(stack.size, camera.cx_px, camera.cy_px)
    least, most = float(openness.min()), float(openness.max())
    ends = 1.0 / np.array([[np.max(depths_m)], [np.min(depths_m)]])
    widest_px = float(thin_lens.coc_px(ends, stack.focus_diopters, camera).max())
    if (most - least) * widest_px < _LEAST_BLUR_PX:
        return None
    nodes = np.linspace(least, most, 2 if most < _LINEAR * least else 3)
    if half:
        openness = halved(openness)
    weights = [
        np.prod([(openness - other) / (node - other) for other in nodes if other != node], axis=0) for node in nodes
    ]
    return ApertureStates(tuple(nodes.tolist()), np.stack(weights).astype(np.float32))
