"""Effective aperture of a lens, estimated from a stack.

f-number, focal length and pixel pitch enter the blur only together, as one factor. Rarely are all known well: phones
resize, old lenses vignette, f-numbers are rounded. A wrong factor scales the distance of depth to focus in dioptres,
D' = D_f + (D - D_f) / factor: a small error near the focus, a multiple of the depth far from it. It also leaves a
misfit, as no depth then explains all images of a stack. So several factors on the blur are tried, and a parabola
through their misfits gives the best.

Blur depends on differences of focus only. A common offset of all focus values in dioptres cannot be told from an offset
of the depths: a stack calibrates the aperture, never the zero of the focus scale.

Two measures keep the misfit a smooth function of the factor: depths a third of a pixel of blur apart, and a parabola
for the minimum over depth, too.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfs_ros.config import CostConfig
from dfs_ros.cost_volume import cost_volume_from_config
from dfs_ros.cost_volume.energy import log_energy
from dfs_ros.cost_volume.hypotheses import depth_hypotheses
from dfs_ros.depth import confidence, regularization
from dfs_ros.depth.parabola import vertex
from dfs_ros.optics import thin_lens
from dfs_ros.types import Camera, FocalStack, opened, reduced

MEGAPIXELS = 0.08
LOG_STEP = 0.12
"""Step between factors, in the logarithm."""
FARTHEST_STEPS = 4
"""Largest number of factors each way: 0.62 to 1.62."""

_WINDOW_SIGMA_PX = 3.0
_TEXTURED = 0.4  # least confidence of a pixel that counts
_LEAST_SHARE = 0.02  # of the pixels
_COARSE_HYPOTHESES = 48
_BLUR_STEP_PX = 0.35
_MOST_HYPOTHESES = 192
# Measured on rendered stacks of three cameras, with exact and wrong f-numbers: the error of the factor's logarithm is
# this over the root of the misfit's curvature, within a factor of two.
_ERROR_PER_ROOT_CURVATURE = 0.09
_PRIOR_SIGMA = 0.1
_SIGNIFICANT = 2.0  # standard errors


@dataclass(frozen=True, eq=False)
class ApertureFit:
    """Blur factor that explains a stack best.

    Attributes
    ----------
    measured
        The factor; `sigma`: standard error of its logarithm, from the curvature of the misfit.
    factors, misfit
        (K,) factors tried, and mean log squared residual of each above the least. Empty for combined fits.
    share
        Share of pixels with enough texture to count.
    """

    measured: float
    sigma: float
    factors: NDArray[np.float64]
    misfit: NDArray[np.float64]
    share: float

    @property
    def scale(self) -> float:
        """Factor to use: 1 within two standard errors of 1, else the shrunk measurement.

        ``exp(log(measured) / (1 + (sigma / 0.1)^2))``: most probable factor if logarithms of factors have a standard
        deviation of 0.1 about 0.
        """
        x = math.log(self.measured)
        if abs(x) < _SIGNIFICANT * self.sigma:
            return 1.0
        return math.exp(x / (1.0 + (self.sigma / _PRIOR_SIGMA) ** 2))

    def report(self) -> dict[str, float] | None:
        """Plain values for a report; None without a fit."""
        if math.isinf(self.sigma):
            return None
        return {"scale": self.scale, "measured": self.measured, "sigma": self.sigma, "share": self.share}


def fit_aperture(
    stack: FocalStack,
    nearest_m: float,
    cost: CostConfig,
    *,
    threads: int = 0,
    tried: Callable[[int], None] | None = None,
) -> ApertureFit | None:
    """Fit the factor from described to observed blur of an aligned stack.

    `nearest_m`: lower limit of depth. None if too few pixels have texture. If the misfit still falls at an end of the
    range, the factor is that end. `tried` gets the number of factors tried.
    """
    stack = reduced(stack, MEGAPIXELS)
    cost = dataclasses.replace(cost, method="residual", window_sigma_px=_WINDOW_SIGMA_PX)

    def energy_of(factor: float, depths_m: NDArray[np.float64]) -> NDArray[np.float32]:
        volume = cost_volume_from_config(opened(stack, factor), depths_m, cost, threads=threads)
        return log_energy(volume, "residual")

    far = 0.1 * min(1.0 / nearest_m, 1.0)
    coarse_m = depth_hypotheses(nearest_m, 1.0 / far, _COARSE_HYPOTHESES)
    energy = energy_of(1.0, coarse_m)
    textured = confidence.confidence_of(energy) > _TEXTURED
    if textured.mean() < _LEAST_SHARE:
        return None
    seen = np.percentile(1.0 / coarse_m[regularization.first_argmax(-energy)[textured]], [2.0, 98.0])

    least: dict[int, NDArray[np.float32]] = {}
    misfit: dict[int, float] = {}

    def try_factor(step: int) -> None:
        factor = math.exp(LOG_STEP * step)
        depths_m = _depths(stack, seen, factor, 1.0 / nearest_m)
        least[step] = _least(energy_of(factor, depths_m))
        misfit[step] = float(least[step][textured].mean(dtype=np.float64))
        if tried is not None:
            tried(len(misfit))

    for step in (-1, 0, 1):
        try_factor(step)
    best = min(misfit, key=lambda step: misfit[step])
    while best in (min(misfit), max(misfit)) and abs(best) < FARTHEST_STEPS:
        try_factor(best + (1 if best > 0 else -1))
        best = min(misfit, key=lambda step: misfit[step])
    position, curvature = _lowest(misfit)
    steps = sorted(misfit)
    values = np.array([misfit[step] for step in steps])
    return ApertureFit(
        measured=math.exp(LOG_STEP * position),
        sigma=_ERROR_PER_ROOT_CURVATURE * LOG_STEP / math.sqrt(max(curvature, 1e-6)),
        factors=np.exp(LOG_STEP * np.array(steps)),
        misfit=values - values.min(),
        share=float(textured.mean()),
    )


class ApertureTracker:
    """Tracker of a camera's aperture: fits stacks 1, 2, 4, 8 ... and combines the fits.

    So the first result is corrected already, later ones better, and the mean cost of fitting vanishes. A stack without
    texture gives no fit; the next power of two is tried instead.
    """

    def __init__(self, most_fits: int = 4) -> None:
        self._most_fits = most_fits
        self._camera: Camera | None = None
        self._stacks = 0
        self._fits: list[ApertureFit] = []

    def fit(self, camera: Camera, fit_stack: Callable[[], ApertureFit | None]) -> ApertureFit:
        """Count a stack of `camera`, fit it if due, and return the combined aperture."""
        if camera != self._camera:
            self._camera, self._stacks, self._fits = camera, 0, []
        self._stacks += 1
        due = self._stacks & (self._stacks - 1) == 0
        if due and len(self._fits) < self._most_fits:
            found = fit_stack()
            if found is not None:
                self._fits.append(found)
        return combined(self._fits)


def unfitted() -> ApertureFit:
    """Aperture as described, without a fit: factor 1, infinite sigma."""
    return ApertureFit(1.0, math.inf, np.empty(0), np.empty(0), 0.0)


def combined(fits: Sequence[ApertureFit]) -> ApertureFit:
    """Precision-weighted mean of a camera's fits; without fits, factor 1 with infinite sigma.

    Fits of one camera share their errors, so sigma is that of the best one.
    """
    if not fits:
        return unfitted()
    weights = np.array([1.0 / fit.sigma**2 for fit in fits])
    measured = math.exp(float(np.average([math.log(fit.measured) for fit in fits], weights=weights)))
    share = float(np.mean([fit.share for fit in fits]))
    return ApertureFit(measured, min(fit.sigma for fit in fits), np.empty(0), np.empty(0), share)


def _depths(stack: FocalStack, seen: NDArray[np.float64], factor: float, nearest: float) -> NDArray[np.float64]:
    """Hypotheses in metres for a factor, a third of a pixel of blur apart.

    The range covers the depths seen at factor 1 and the same as the factor moves them.
    """
    focus = stack.focus_diopters[:, None]
    moved = focus + (seen - focus) / factor
    margin = 0.1 * float(np.ptp(seen)) + 0.02 * nearest
    far = max(float(min(moved.min(), seen[0])) - margin, 0.01 * nearest)
    near = min(max(float(max(moved.max(), seen[1])) + margin, 1.2 * far), 1.2 * nearest)
    blur_px = factor * (near - far) * float(thin_lens.coc_px_per_diopter(stack.focus_diopters, stack.camera).max())
    count = int(np.clip(math.ceil(blur_px / _BLUR_STEP_PX) + 1, 16, _MOST_HYPOTHESES))
    return depth_hypotheses(1.0 / near, 1.0 / far, count)


def _least(energy: NDArray[np.float32]) -> NDArray[np.float32]:
    """Least energy over the first axis, by a parabola through the lowest and its neighbours."""
    middle = np.clip(regularization.first_argmax(-energy), 1, len(energy) - 2)[None]
    low, mid, high = (np.take_along_axis(energy, middle + k, axis=0)[0] for k in (-1, 0, 1))
    offset, _ = vertex(low, mid, high)
    inside = (mid <= low) & (mid <= high)
    return np.asarray(np.where(inside, mid - 0.25 * (low - high) * offset, np.minimum(np.minimum(low, mid), high)))


def _lowest(misfit: Mapping[int, float]) -> tuple[float, float]:
    """Position, in steps, and curvature of the minimum, by a parabola."""
    steps = sorted(misfit)
    i = int(np.clip(np.argmin([misfit[step] for step in steps]), 1, len(steps) - 2))
    low, mid, high = (misfit[step] for step in steps[i - 1 : i + 2])
    offset, curvature = vertex(low, mid, high)
    if curvature <= 0.0:
        return float(min(steps, key=lambda step: misfit[step])), 0.0
    return steps[i] + float(np.clip(offset, -1.0, 1.0)), curvature
