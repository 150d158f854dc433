"""Cost volumes: how badly each depth hypothesis explains an aligned focal stack, around every pixel.

Three methods of one function, each as a readable float64 reference (:mod:`.reference`, read this for the formulas)
and a fast CPU path (:mod:`.cpu`), with the same signature and held to the same goldens.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfs_ros.config import CostConfig
from dfs_ros.cost_volume.confidence import bound_and_scale, raw_confidence
from dfs_ros.cost_volume.problem import make_problem
from dfs_ros.cost_volume.sharp import all_in_focus
from dfs_ros.cost_volume.spectra import SpectraCache
from dfs_ros.types import FocalStack

__all__ = [
    "SpectraCache",
    "all_in_focus",
    "bound_and_scale",
    "cost_volume",
    "cost_volume_from_config",
    "raw_confidence",
]

DEVICES = ("auto", "cpu")
BACKENDS = ("cpu", "reference")


def cost_volume(
    stack: FocalStack,
    depths_m: ArrayLike,
    method: str = CostConfig.method,
    device: str = "cpu",
    max_coc_px: float = CostConfig.max_coc_px,
    **settings: Any,
) -> NDArray[np.float32]:
    """Cost of every depth hypothesis at every pixel; low = explains the images.

    Parameters
    ----------
    stack
        Aligned images: one pixel is one ray in all of them. The blur diameter of image f at depth d is
        ``optics.coc_px(1 / d, D_f, camera) * blur_scale[f]``.
    depths_m
        (D,) metres, finite, over 0, strictly ascending or descending.
    method
        `residual`, `paper` or `released`.
    device
        `cpu`, or `auto` = the fastest there is.
    max_coc_px
        Blur diameters are clamped here, in pixels.
    settings
        Any other of :class:`dfs_ros.config.CostConfig`: psf, eps, window_sigma_px, padding_px, transfer_curve,
        channels.

    Returns
    -------
    float32 (D, H, W). `released` and `paper` are before the authors' bounding (:func:`bound_and_scale`).

    Raises
    ------
    TypeError, ValueError
        For unknown names, values out of range, and depths that are not depths.
    """
    if device not in DEVICES:
        raise ValueError(f"device: expected one of {', '.join(DEVICES)}, received {device!r}")
    try:
        cost = CostConfig(method=method, max_coc_px=max_coc_px, **settings)
    except TypeError as error:
        raise ValueError(f"cost volume settings: {error}; see dfs_ros.config.CostConfig") from None
    return cost_volume_from_config(stack, depths_m, cost)


def cost_volume_from_config(
    stack: FocalStack,
    depths_m: ArrayLike,
    cost: CostConfig,
    *,
    backend: str = "cpu",
    threads: int = 0,
    spectra_cache: SpectraCache | None = None,
    frame_keys: Sequence[Hashable] | None = None,
) -> NDArray[np.float32]:
    """:func:`cost_volume` of a CostConfig.

    Parameters
    ----------
    backend
        `cpu` (fast, float32) or `reference` (slow, float64 inside).
    threads
        CPU threads, 0 = all cores this process may use.
    spectra_cache, frame_keys
        Frames met before, by the caller's own key for each ALIGNED image (F,), are not transformed again: stacks of
        a sliding window overlap. `cpu` only.
    """
    problem = make_problem(stack, depths_m, cost)
    if backend == "reference":
        from dfs_ros.cost_volume import reference

        return reference.cost_volume(problem).astype(np.float32)
    if backend != "cpu":
        raise ValueError(f"backend: expected one of {', '.join(BACKENDS)}, received {backend!r}")
    from dfs_ros.cost_volume import cpu

    return cpu.cost_volume(problem, threads=threads, spectra_cache=spectra_cache, frame_keys=frame_keys)
