"""Scenes outside the range of depths that a stack can tell."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dfs_ros.consistency.findings import Finding, Findings
from dfs_ros.depth.extrapolation import mostly_far
from dfs_ros.depth.scene_range import FARTHEST_M, RELIABLE, SceneRange, shares_at_ends

Image = NDArray[np.float32]

_SHARE = 0.3  # of the reliable pixels: honest stacks, real and rendered, reached 0.03
# Of blur beyond the range of focus, at half of the reliable pixels. Honest scenes, training photos and random ones
# through three cameras, reach 2.5 px nearer and 1.9 px farther than the sweep.
_NEARER_PX, _FARTHER_PX = 4.0, 2.5
_HALF = 0.5
_UNFOUNDED_GAIN = -0.1  # logarithm of a ratio of misfits; median of honest scenes beyond the farthest focus: from 0.8


def outside_range(ends: Image, beyond_px: Image, gain: Image, confidence: Image, limits: SceneRange) -> Findings:
    """Warnings of a scene mostly outside the range of the search, or of focus; infinity alone is no fault.

    Over 30 % of the reliable pixels at an end of the search, or over 50 % blurred by more than 4 px (near) or 2.5 px
    (far) in the image focused nearest to them; or over 80 % beyond the farthest focus, and half of these explained
    better by images that do not change. `ends` as from :func:`dfs_ros.depth.scene_range.at_ends`, `beyond_px` and
    `gain` as from :mod:`dfs_ros.depth.extrapolation`, float32 (H, W).
    """
    near, far = shares_at_ends(ends, confidence)
    reliable = confidence > RELIABLE
    beyond, end = beyond_px[reliable], ends[reliable]
    nearer = float(((beyond > _NEARER_PX) | (end > 0)).mean()) if beyond.size else 0.0
    farther = float((beyond < -_FARTHER_PX).mean()) if beyond.size else 0.0
    far_gain = gain[reliable][beyond < 0]
    found = []
    if near > _SHARE:
        text = (
            f"{100 * near:.0f} % of the textured pixels have no depth: their blur fits {1 / limits.near:.3g} m best, "
            "the nearest depth searched. Move away or focus nearer; check hypotheses.min_depth_m, focus and lens"
        )
        found.append(Finding("too_near", text, contradiction=False))
    elif nearer > _HALF:
        text = (
            f"{100 * nearer:.0f} % of the textured pixels are nearer than the nearest focus, blurred by over "
            f"{_NEARER_PX:g} px in every image: their depth may be far too large. Move away or focus nearer"
        )
        found.append(Finding("too_near", text, contradiction=False))
    if far > _SHARE and limits.far > 1.0 / FARTHEST_M:
        text = (
            f"{100 * far:.0f} % of the textured pixels have no depth: their blur fits {1 / limits.far:.3g} m best, "
            "the farthest depth searched. Focus farther; check hypotheses.max_depth_m, focus and lens"
        )
        found.append(Finding("too_far", text, contradiction=False))
    elif farther > _HALF:
        text = (
            f"{100 * farther:.0f} % of the textured pixels are beyond the farthest focus, blurred by over "
            f"{_FARTHER_PX:g} px in every image: their depth may be far too small. Focus farther"
        )
        found.append(Finding("too_far", text, contradiction=False))
    elif mostly_far(beyond_px, confidence) and float(np.median(far_gain)) < _UNFOUNDED_GAIN:
        text = (
            f"{100 * far_gain.size / beyond.size:.0f} % of the textured pixels are beyond the farthest focus, and no "
            "depth explains them better than blur that does not change. Focus farther, on a scene with fine detail"
        )
        found.append(Finding("too_far", text, contradiction=False))
    return tuple(found)
