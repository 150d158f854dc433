"""How wide a lens really blurs, fitted to the stack itself.

f-number, focal length and pixel size enter the blur only together, as one factor, and rarely are all known well: phones
resize, old lenses vignette. But a wrong factor leaves a misfit: no depth then explains all images of a stack at once.
So the stack is explained with the blur scaled by one factor after the other, and the best is read off a parabola.

Blur depends on differences of focus only. Focus positions that are all off by the same dioptres cannot be told from
depths that are: a stack alone calibrates the aperture, never the focus scale's zero.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfs_ros import regularization
from dfs_ros.alignment import align
from dfs_ros.config import Config
from dfs_ros.cost_volume import cost_volume_from_config
from dfs_ros.network.inputs import guide_image
from dfs_ros.pipeline import hypotheses_for, opened, reduced
from dfs_ros.types import FocalStack

MEGAPIXELS = 0.2
FACTORS = np.geomspace(0.6, 1.6, 11)
TILES = 6
_TEXTURED = 0.4  # confidence from which a pixel says anything about blur


@dataclass(frozen=True, eq=False)
class ApertureFit:
    """The blur factor that explains a stack best.

    `aperture_scale` and its standard error `sigma` (from the spread between parts of the image); `f_number` that goes
    with it if focal length and pixel size are right; `factors` (K,) tried and `misfit` (K,), the mean logarithm of the
    squared residual, less its minimum; `share` of the pixels that have texture enough to count.
    """

    aperture_scale: float
    sigma: float
    f_number: float
    factors: NDArray[np.float64]
    misfit: NDArray[np.float64]
    share: float


def fit_aperture(
    stack: FocalStack, config: Config | None = None, progress: Callable[[int, int], None] | None = None
) -> ApertureFit:
    """Fit the factor between the blur of the lens as described and the blur that is seen.

    Raises ValueError where the stack has too little texture, or no factor from 0.6 to 1.6 is better than both ends.
    """
    config = config or Config()
    aligned = align(reduced(stack, MEGAPIXELS), config.alignment)
    guide = guide_image(aligned.stack.images)
    depths_m = hypotheses_for(stack, config.hypotheses)
    residual = dataclasses.replace(config.cost, method="residual")
    window = config.regularization
    best, textured = [], np.zeros(aligned.stack.size, np.bool_)
    for i, factor in enumerate(FACTORS):
        if progress is not None:
            progress(i, len(FACTORS))
        scaled = opened(aligned.stack, float(factor))
        cost = cost_volume_from_config(scaled, depths_m, residual, threads=config.processing.threads)
        energy = regularization.log_energy(cost, "residual")
        smoothed = regularization.guided_filter(energy, guide, window.guided_radius_px, window.guided_eps)
        best.append(smoothed.min(axis=0))
        textured |= regularization.confidence_of(smoothed) > _TEXTURED
    textured &= aligned.valid
    if textured.mean() < 0.02:
        raise ValueError(
            f"calibration: only {100 * textured.mean():.1f} % of the pixels have texture; take a stack of a scene with "
            "detail everywhere and depth that varies"
        )
    misfit = np.array([b[textured].mean(dtype=np.float64) for b in best])
    if misfit.argmin() in (0, len(FACTORS) - 1):
        raise ValueError(
            f"calibration: the misfit still falls at an aperture scale of {FACTORS[misfit.argmin()]:.2f}, the last one "
            "tried; check focal length, pixel size and the unit of the focus"
        )
    scale = _lowest(misfit)
    tiles = [_lowest(tile) for tile in _per_tile(np.stack(best), textured)]
    return ApertureFit(
        aperture_scale=scale,
        sigma=float(np.std(tiles, ddof=1) / np.sqrt(len(tiles))) if len(tiles) > 1 else float("nan"),
        f_number=stack.camera.f_number / scale,
        factors=FACTORS,
        misfit=misfit - misfit.min(),
        share=float(textured.mean()),
    )


def _lowest(misfit: NDArray[np.float64]) -> float:
    """Factor at the lowest point of a parabola through the lowest misfit and its neighbours, in the logarithm."""
    i = int(np.clip(misfit.argmin(), 1, len(misfit) - 2))
    low, mid, high = misfit[i - 1 : i + 2]
    curvature = low - 2.0 * mid + high
    offset = float(np.clip(0.5 * (low - high) / curvature, -1.0, 1.0)) if curvature > 0 else 0.0
    step = np.log(FACTORS[1] / FACTORS[0])
    return float(FACTORS[i] * np.exp(offset * step))


def _per_tile(best: NDArray[np.float32], textured: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Misfit (K,) of each part of the image that has texture."""
    height, width = textured.shape
    tiles = []
    for row in range(TILES):
        for column in range(TILES):
            part = (
                slice(row * height // TILES, (row + 1) * height // TILES),
                slice(column * width // TILES, (column + 1) * width // TILES),
            )
            if textured[part].sum() > 100:
                tiles.append(best[(slice(None), *part)][:, textured[part]].mean(axis=1, dtype=np.float64))
    return tiles
