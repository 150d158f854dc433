"""Scenes outside the range of depths that a stack can tell."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dfs_ros.consistency.findings import Finding, Findings
from dfs_ros.depth.scene_range import FARTHEST_M, SceneRange, shares_at_ends

_SHARE = 0.3  # of the reliable pixels: honest stacks, real and rendered, reached 0.03


def outside_range(ends: NDArray[np.float32], confidence: NDArray[np.float32], limits: SceneRange) -> Findings:
    """Warnings of a scene with over 30 % of its reliable pixels at an end of the search; infinity is no fault.

    `ends` as from :func:`dfs_ros.depth.scene_range.at_ends`, float32 (H, W).
    """
    near, far = shares_at_ends(ends, confidence)
    found = []
    if near > _SHARE:
        text = (
            f"{100 * near:.0f} % of the textured pixels have no depth: their blur fits {1 / limits.near:.3g} m best, "
            "the nearest depth searched. Move away or focus nearer; check hypotheses.min_depth_m, focus and lens"
        )
        found.append(Finding("too_near", text, contradiction=False))
    if far > _SHARE and limits.far > 1.0 / FARTHEST_M:
        text = (
            f"{100 * far:.0f} % of the textured pixels have no depth: their blur fits {1 / limits.far:.3g} m best, "
            "the farthest depth searched. Focus farther; check hypotheses.max_depth_m, focus and lens"
        )
        found.append(Finding("too_far", text, contradiction=False))
    return tuple(found)
