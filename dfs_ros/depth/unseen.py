"""Inverse depth of pixels that too few frames see, as near the edges of a camera that turns: the nearest seen pixel's.

There images are filled up, and blur tells nothing. The standard deviation grows by what blur told otherwise.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]


def as_nearest_seen(diopters: Image, sigma_diopters: Image, seen: NDArray[np.bool_]) -> tuple[Image, Image]:
    """Inverse depth and its standard deviation (H, W), with ``q = q_n``, ``s = hypot(s_n, q_n - q)`` where not seen.

    n is the nearest seen pixel, to a pixel or two. Unchanged if all are seen, or none.
    """
    if seen.all() or not seen.any():
        return diopters, sigma_diopters
    _, labels = cv2.distanceTransformWithLabels(
        (~seen).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    place = np.zeros(int(labels.max()) + 1, np.intp)
    place[labels[seen]] = np.flatnonzero(seen)
    nearest = place[labels[~seen]]
    filled, sigma = diopters.copy(), sigma_diopters.copy()
    filled[~seen] = diopters.ravel()[nearest]
    sigma[~seen] = np.hypot(sigma_diopters.ravel()[nearest], filled[~seen] - diopters[~seen])
    return filled, sigma
