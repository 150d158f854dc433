"""Difference of a result from the reference depth of its stack."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from dfs_ros.scoring import metrics


def against_reference(depth_m: NDArray[np.floating], reference_m: NDArray[np.floating]) -> dict[str, float]:
    """Errors of depth (H, W) in metres against a reference of the same view.

    A reference of another aspect ratio shows the largest centred part of the image with this ratio, as the depth maps
    of phones do. It is enlarged to that part without interpolation, and counts where both have depth.

    Returns the median and the mean of ``|depth - reference| / reference``, and the share of the reference's pixels that
    have depth (`coverage`). Raises ValueError for inputs that are not depth maps.
    """
    for name, map_m in (("depth_m", depth_m), ("reference_m", reference_m)):
        if map_m.ndim != 2 or map_m.size == 0:
            raise ValueError(f"{name}: expected depth of shape (height, width), received {map_m.shape}")
    shown = centred_part(depth_m, reference_m.shape[1] / reference_m.shape[0])
    size = (shown.shape[1], shown.shape[0])
    enlarged = cv2.resize(np.asarray(reference_m, np.float32), size, interpolation=cv2.INTER_NEAREST)
    reference = np.asarray(enlarged, np.float32)
    return {
        "median_abs_rel": metrics.median_abs_rel(shown, reference),
        "abs_rel": metrics.abs_rel(shown, reference),
        "coverage": metrics.coverage(shown, reference),
    }


def centred_part(image: NDArray[np.floating], aspect_ratio: float) -> NDArray[np.floating]:
    """Largest centred part of `image` with this ratio of width to height."""
    height, width = image.shape[:2]
    part_height = min(height, max(1, round(width / aspect_ratio)))
    part_width = min(width, max(1, round(height * aspect_ratio)))
    top, left = (height - part_height) // 2, (width - part_width) // 2
    return image[top : top + part_height, left : left + part_width]
