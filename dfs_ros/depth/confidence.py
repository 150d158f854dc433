"""Confidence of a depth, and the pixels whose depth is kept."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dfs_ros.config import ConfidenceConfig

Image = NDArray[np.float32]


def confidence_of(
    aggregated: NDArray[np.float32], outer: NDArray[np.float32] | None = None, outer_share: float = 0.0
) -> Image:
    """Confidence, float32 (H, W) in [0, 1]: misfit removed by the best depth.

    ``1 - exp(min E - mean E)`` over the hypotheses of the aggregated energy (D, H, W): the share of the typical
    (geometric mean) misfit that the best hypothesis removes. Noise alone, which all hypotheses explain equally badly,
    gives 0. `outer` (M, H, W): energies around the range of the hypotheses, with a weight of `outer_share` in the mean,
    so that the confidence does not depend on the range; they may be the best, too.
    """
    mean, least = aggregated.mean(axis=0), least_of(aggregated, outer)
    if outer is not None and len(outer):
        mean = (1.0 - outer_share) * mean + outer_share * outer.mean(axis=0)
    # Rounding alone can put the mean of equal values below their minimum.
    return np.asarray(1.0 - np.exp(np.minimum(least - mean, 0.0)), np.float32)


def least_of(aggregated: NDArray[np.float32], outer: NDArray[np.float32] | None = None) -> Image:
    """Least energy, float32 (H, W), of the hypotheses (D, H, W) and of those around them (M, H, W)."""
    least = aggregated.min(axis=0)
    return np.minimum(least, outer.min(axis=0)) if outer is not None and len(outer) else np.asarray(least)


def known_pixels(
    depth_m: Image, local_sigma_diopters: Image, confidence: Image, config: ConfidenceConfig
) -> NDArray[np.bool_]:
    """Pixels of sufficient confidence and relative uncertainty, bool (H, W).

    `local_sigma_diopters` is the uncertainty of the pixel, without that of the lens, which all pixels share.
    """
    unknown = confidence < config.min_confidence
    unknown |= local_sigma_diopters * depth_m > config.max_relative_sigma
    return ~unknown
