"""How wide a lens really blurs, fitted to the stack itself.

f-number, focal length and pixel size enter the blur only together, as one factor, and rarely are all known well: phones
resize, old lenses vignette, f-numbers are rounded. A wrong factor moves depth by its share of the distance to the
focus, D' = D_f + (D - D_f) / factor in dioptres, which is little near the focus and a multiple of the depth far away
from it. But it also leaves a misfit: no depth then explains all images of a stack at once. So the stack is explained
with the blur scaled by one factor after the other, and the best is read off a parabola.

Blur depends on differences of focus only. Focus positions that are all off by the same dioptres cannot be told from
depths that are: a stack alone calibrates the aperture, never the focus scale's zero.

Two things keep the curve of misfits smooth enough for that: steps between depths of a third of a pixel of blur, and
the least misfit over depth read off a parabola too.
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
"""Between factors, in the logarithm."""
FARTHEST_STEPS = 4
"""Factors tried at most, each way: 0.62 to 1.62."""

_WINDOW_SIGMA_PX = 3.0
_TEXTURED = 0.4  # confidence from which a pixel says anything about blur
_LEAST_SHARE = 0.02  # of the pixels
_COARSE_HYPOTHESES = 48
_BLUR_STEP_PX = 0.35
_MOST_HYPOTHESES = 192
# Measured on rendered stacks of three cameras, with exact and wrong f-numbers: the error in the logarithm of the factor
# is this over the root of the curvature of the misfit, within a factor of two.
_ERROR_PER_ROOT_CURVATURE = 0.09
_PRIOR_SIGMA = 0.1
_SIGNIFICANT = 2.0  # standard errors

Progress = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class ApertureFit:
    """The blur factor that explains a stack best.

    Attributes
    ----------
    measured
        The factor, and `sigma`, the standard error of its logarithm, from the curvature of the misfit.
    factors, misfit
        (K,) tried, and the mean logarithm of the squared residual, less its minimum. Empty where fits are combined.
    share
        Of the pixels that have texture enough to count.
    """

    measured: float
    sigma: float
    factors: NDArray[np.float64]
    misfit: NDArray[np.float64]
    share: float

    @property
    def scale(self) -> float:
        """The factor to use: the measured one, drawn to 1 as far as it is unsure, and 1 where 1 is within two errors.

        The most probable factor where lenses are either as they say or off by a standard deviation of a tenth.
        """
        x = math.log(self.measured)
        if abs(x) < _SIGNIFICANT * self.sigma:
            return 1.0
        return math.exp(x / (1.0 + (self.sigma / _PRIOR_SIGMA) ** 2))

    def report(self) -> dict[str, float] | None:
        """Plain values for a report; None where nothing was fitted."""
        if math.isinf(self.sigma):
            return None
        return {"scale": self.scale, "measured": self.measured, "sigma": self.sigma, "share": self.share}


def fit_aperture(
    stack: FocalStack, nearest_m: float, cost: CostConfig, *, threads: int = 0, progress: Progress | None = None
) -> ApertureFit | None:
    """Fit the factor between the blur of the lens as described and the blur that is seen.

    `stack` is aligned; `nearest_m` is a depth that nothing is nearer than. None where too little has texture. The
    factor is one of the ends where the misfit still falls there. `progress` is told how many factors were tried.
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
        if progress is not None:
            progress(len(misfit))

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
    """The aperture of a camera over many stacks: fitted to the first, second, fourth and so on, and combined.

    So the first result has it, later ones have it better, and the time of fitting is soon nothing. A stack without
    texture gives no fit; the next power of two tries again.
    """

    def __init__(self, most_fits: int = 4) -> None:
        self._most_fits = most_fits
        self._camera: Camera | None = None
        self._stacks = 0
        self._fits: list[ApertureFit] = []

    def fit(self, camera: Camera, fit_stack: Callable[[], ApertureFit | None]) -> ApertureFit:
        """Count a stack of this camera, fit it where it is due, and return the combined aperture."""
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
    """The aperture as described: nothing was fitted."""
    return ApertureFit(1.0, math.inf, np.empty(0), np.empty(0), 0.0)


def combined(fits: Sequence[ApertureFit]) -> ApertureFit:
    """The mean of fits of one camera, weighted by their precision; of none, a factor of 1 that nothing is known of.

    What is wrong with a fit is wrong with the next one too, so the error is that of the best.
    """
    if not fits:
        return unfitted()
    weights = np.array([1.0 / fit.sigma**2 for fit in fits])
    measured = math.exp(float(np.average([math.log(fit.measured) for fit in fits], weights=weights)))
    share = float(np.mean([fit.share for fit in fits]))
    return ApertureFit(measured, min(fit.sigma for fit in fits), np.empty(0), np.empty(0), share)


def _depths(stack: FocalStack, seen: NDArray[np.float64], factor: float, nearest: float) -> NDArray[np.float64]:
    """Depths in metres around those seen at factor 1, as this factor moves them, in steps of a third of a pixel."""
    focus = stack.focus_diopters[:, None]
    moved = focus + (seen - focus) / factor
    margin = 0.1 * float(np.ptp(seen)) + 0.02 * nearest
    far = max(float(min(moved.min(), seen[0])) - margin, 0.01 * nearest)
    near = min(max(float(max(moved.max(), seen[1])) + margin, 1.2 * far), 1.2 * nearest)
    blur_px = factor * (near - far) * float(thin_lens.coc_px_per_diopter(stack.focus_diopters, stack.camera).max())
    count = int(np.clip(math.ceil(blur_px / _BLUR_STEP_PX) + 1, 16, _MOST_HYPOTHESES))
    return depth_hypotheses(1.0 / near, 1.0 / far, count)


def _least(energy: NDArray[np.float32]) -> NDArray[np.float32]:
    """Least energy over the first axis, of a parabola through the lowest and its neighbours."""
    middle = np.clip(regularization.first_argmax(-energy), 1, len(energy) - 2)[None]
    low, mid, high = (np.take_along_axis(energy, middle + k, axis=0)[0] for k in (-1, 0, 1))
    offset, _ = vertex(low, mid, high)
    inside = (mid <= low) & (mid <= high)
    return np.asarray(np.where(inside, mid - 0.25 * (low - high) * offset, np.minimum(np.minimum(low, mid), high)))


def _lowest(misfit: Mapping[int, float]) -> tuple[float, float]:
    """Position and curvature of the minimum, in steps, from the lowest of them and its neighbours."""
    steps = sorted(misfit)
    i = int(np.clip(np.argmin([misfit[step] for step in steps]), 1, len(steps) - 2))
    low, mid, high = (misfit[step] for step in steps[i - 1 : i + 2])
    offset, curvature = vertex(low, mid, high)
    if curvature <= 0.0:
        return float(min(steps, key=lambda step: misfit[step])), 0.0
    return steps[i] + float(np.clip(offset, -1.0, 1.0)), curvature
