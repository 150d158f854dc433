"""Effective aperture of a lens, estimated from a stack.

f-number, focal length and pixel pitch enter the blur only together, as one factor. Rarely are all known well: phones
resize, old lenses vignette, f-numbers are rounded. A wrong factor scales the distance of depth to focus in dioptres,
D' = D_f + (D - D_f) / factor: a small error near the focus, a multiple of the depth far from it. It also leaves a
misfit, as no depth then explains all images of a stack. So several factors on the blur are tried: in coarse steps on
reduced images, then in fine ones around the best of these. A parabola through their misfits gives the best factor.

Blur depends on differences of focus only. A common offset of all focus values in dioptres cannot be told from an offset
of the depths: a stack calibrates the aperture, never the zero of the focus scale.

Two measures keep the misfit a smooth function of the factor: depths a third of a pixel of blur apart, and a parabola
for the minimum over depth, too. As its minimum is narrow, the last parabola spans 3 % each way.

The blur is a disk. A Gaussian beside it is not fitted: one common to all images belongs to the sharp image, and one in
proportion to the disk raises the misfit of stacks through lenses with aberrations.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dfs_ros.config import CostConfig
from dfs_ros.cost_volume import SpectraCache
from dfs_ros.cost_volume.hypotheses import depth_hypotheses
from dfs_ros.depth import confidence, regularization
from dfs_ros.depth.energies import Energies, HostEnergies
from dfs_ros.depth.parabola import vertex
from dfs_ros.optics import thin_lens
from dfs_ros.types import Camera, FocalStack, opened, reduced

MEGAPIXELS = 0.08
_COARSE_MEGAPIXELS = 0.02  # factors of 25 stacks of training and random scenes within 0.06 of those at 0.08
LOG_STEP = 0.12
"""Step between factors, in the logarithm, while the least misfit is searched."""
FARTHEST_STEPS = 10
"""Largest number of factors each way: 0.30 to 3.3."""
LEAST_FOCUSES = 3
"""Two images have a depth for every aperture where blur is Gaussian: only the shape of the blur tells them apart."""

_NEAREST_M = 0.31
_COARSE = 4
_FINE_LOG_STEP = LOG_STEP / _COARSE  # around the least: its misfit is narrower than a parabola over coarse steps
_WINDOW_SIGMA_PX = 3.0
_TEXTURED = 0.4  # least confidence of a pixel that counts
_LEAST_SHARE = 0.02  # of the pixels
_COARSE_HYPOTHESES = 24
_BLUR_STEP_PX, _COARSE_BLUR_STEP_PX = 0.35, 0.7
_MOST_HYPOTHESES = 192
# Chosen on 25 stacks of training and random scenes, ideal and in use: over the root of the misfit's curvature the error
# of the factor's logarithm. With the error of the model, pulls are 0.83 rms (ideal) and 1.01 (in use). The depth range
# of a scene makes the errors, neither pixels beside jumps nor noise: blocks of an image agree ten times better.
_ERROR_PER_ROOT_CURVATURE = 0.045
_MODEL_SIGMA = 0.01  # standard deviation of the logarithm, as a real point spread function is not quite the fit's
_DEPTH_FACTOR = 2.0  # of the standard error, for depth: chosen by the likelihood of depths on 10 of these stacks
_MOST_STACKS_BETWEEN = 16  # from one attempt to fit a live camera to the next
_LONGER_AFTER_FIT = 3  # that wait, than after a stack that gave none: a fit takes as long as a few stacks
# Standard deviations of the logarithm of f-number times pixel size over focal length, among lenses as described and
# others.
_RIGHT_SIGMA, _LENS_SIGMA = 0.01, 0.1


@dataclass(frozen=True, eq=False)
class ApertureFit:
    """Blur factor that explains a stack best.

    Attributes
    ----------
    measured
        The factor; `sigma`: standard error of its logarithm, from the curvature of the misfit.
    factors, misfit
        (K,) factors tried at the final size, or at the coarse one for a fit at its limit, and mean log squared residual
        of each above the least. Empty for combined fits.
    share
        Share of pixels with enough texture to count.
    at_limit
        Whether the misfit still falls at the last factor tried.
    """

    measured: float
    sigma: float
    factors: NDArray[np.float64]
    misfit: NDArray[np.float64]
    share: float
    at_limit: bool = False

    @property
    def scale(self) -> float:
        """Factor to use: the measured one, drawn to 1 by its standard error and by what lenses are like.

        The mean of ln scale, given ln measured with the variance s_m^2 = sigma^2 + 0.01^2, for a lens that is as
        described to 0.01 or off by 0.1, with even odds. For each of both, of standard deviation s_l,

            ln scale = ln measured / (1 + s_m^2 / s_l^2),     odds = N(ln measured; 0, s_m^2 + s_l^2)
        """
        return math.exp(self._drawn()[0])

    @property
    def scale_sigma(self) -> float:
        """Standard error of the logarithm of :attr:`scale`, of the same mixture.

        Times max(1, :attr:`contradiction`). A fit that ends at its limit: ``hypot(0.1, ln (measured / scale))``.
        Without a fit: `sigma` if calibrated, else that of lenses, 0.1.
        """
        if self.at_limit:
            return math.hypot(_LENS_SIGMA, math.log(self.measured / self.scale))
        if math.isinf(self.sigma):
            return _LENS_SIGMA
        if not self.share:
            return self.sigma
        return max(1.0, self.contradiction) * math.sqrt(self._drawn()[1])

    @property
    def contradiction(self) -> float:
        """How far the factor is from that of the description, in standard deviations; 0 without a fit.

        ``|ln measured| / sqrt(s_m^2 + 0.1^2)`` (Birge ratio): over 1 they contradict each other.
        """
        if not self.share or math.isinf(self.sigma):
            return 0.0
        return abs(math.log(self.measured)) / math.sqrt(self._measured_variance + _LENS_SIGMA**2)

    @property
    def depth_sigma(self) -> float:
        """Standard deviation of the logarithm of :attr:`scale` for depth, which a scene far from the focus pulls more.

        At least that of a factor measured with (2 sigma)^2 + 0.01^2 among lenses off by 0.1, chosen with the factors of
        sigma, see depth/readout.py. Without a fit: :attr:`scale_sigma`.
        """
        if not self.share:
            return self.scale_sigma
        variance = (_DEPTH_FACTOR * self.sigma) ** 2 + _MODEL_SIGMA**2
        return max(self.scale_sigma, math.sqrt(variance / (1.0 + variance / _LENS_SIGMA**2)))

    def _drawn(self) -> tuple[float, float]:
        """Mean and variance of the logarithm of :attr:`scale`."""
        if math.isinf(self.sigma):
            return 0.0, _LENS_SIGMA**2
        x, measured = math.log(self.measured), self._measured_variance
        priors = np.square([_RIGHT_SIGMA, _LENS_SIGMA])
        odds = np.exp(-0.5 * x * x / (measured + priors)) / np.sqrt(measured + priors)
        means, variances = x / (1.0 + measured / priors), 1.0 / (1.0 / measured + 1.0 / priors)
        mean = float(np.average(means, weights=odds))
        return mean, float(np.average(variances + np.square(means - mean), weights=odds))

    @property
    def _measured_variance(self) -> float:
        return float(self.sigma**2 + _MODEL_SIGMA**2)

    def report(self) -> dict[str, float | bool] | None:
        """Plain values for a report; None where nothing was fitted."""
        if not self.share:
            return None
        return {
            "scale": self.scale,
            "scale_sigma": self.scale_sigma,
            "measured": self.measured,
            "sigma": self.sigma,
            "at_limit": self.at_limit,
            "share": self.share,
        }


def fit_aperture(
    stack: FocalStack,
    nearest_m: float,
    cost: CostConfig,
    *,
    near_factor: float | None = None,
    threads: int = 0,
    energies: Energies | None = None,
    tried: Callable[[int], None] | None = None,
) -> ApertureFit | None:
    """Fit the factor from described to observed blur of an aligned stack.

    `nearest_m`: lower limit of depth. None if too few pixels have texture, or fewer than three images differ in focus.
    `near_factor`: factor that fitted another stack of this lens, around which the search begins; None = unknown. If the
    misfit still falls at an end of the range, the factor is that end. `tried` gets the number of factors tried.
    `energies`: those of another device.
    """
    if len(np.unique(stack.focus_diopters)) < LEAST_FOCUSES:
        return None
    energies = energies or HostEnergies(threads)
    large = _Misfit(reduced(stack, MEGAPIXELS), cost, energies, _BLUR_STEP_PX)
    small = _Misfit(reduced(stack, _COARSE_MEGAPIXELS), cost, energies, _COARSE_BLUR_STEP_PX)
    far = 0.1 * min(1.0 / nearest_m, 1.0)
    coarse_m = depth_hypotheses(nearest_m, 1.0 / far, _COARSE_HYPOTHESES)
    energy = small.energy(1.0, coarse_m)
    textured = confidence.confidence_of(energy) > _TEXTURED
    if textured.mean() < _LEAST_SHARE:
        return None
    seen = np.percentile(1.0 / coarse_m[regularization.first_argmin(energy)[textured]], [2.0, 98.0])
    misfits: tuple[dict[int, float], dict[int, float]] = {}, {}  # by the logarithm of the factor, in fine steps

    def try_factor(step: int, misfit: dict[int, float], of: _Misfit) -> float:
        if step not in misfit:
            misfit[step] = of.mean(math.exp(_FINE_LOG_STEP * step), seen, 1.0 / nearest_m, textured)
            if tried is not None:
                tried(sum(map(len, misfits)))
        return misfit[step]

    if near_factor is None:
        best, offset, curvature = _lowest(lambda step: try_factor(step, misfits[0], small), 0, _COARSE)
    else:
        best, offset = round(math.log(near_factor) / _FINE_LOG_STEP), 0.0
    if abs(best) < FARTHEST_STEPS * _COARSE:
        start = best + round(_COARSE * offset)
        best, offset, curvature = _lowest(lambda step: try_factor(step, misfits[1], large), start, 1)
    misfit = misfits[1] or misfits[0]
    steps = sorted(misfit)
    values = np.array([misfit[step] for step in steps])
    return ApertureFit(
        measured=math.exp(_FINE_LOG_STEP * (best + offset)),
        sigma=_ERROR_PER_ROOT_CURVATURE * _FINE_LOG_STEP / math.sqrt(max(curvature, 1e-6)),
        factors=np.exp(_FINE_LOG_STEP * np.array(steps)),
        misfit=values - values.min(),
        share=float(textured.mean()),
        at_limit=abs(best) == FARTHEST_STEPS * _COARSE,
    )


def nearest_searched(stack: FocalStack, depths_m: NDArray[np.float64]) -> float:
    """Nearest depth of a fit: that of the hypotheses, or nearer where a wrong factor could move them."""
    return min(_NEAREST_M, 1.0 / (1.2 * float(stack.focus_diopters.max())), float(depths_m.min()))


class ApertureTracker:
    """Tracker of a camera's aperture: fits stacks 1, 4, 16 and 32 and combines the fits.

    So the first result is corrected already, later ones better. A stack that gives no fit, as it has too little
    texture, or one that ends at its limit, is replaced by a later one, the next after stack 1, at most 16 stacks on.
    """

    def __init__(self, most_fits: int = 4) -> None:
        self._most_fits = most_fits
        self._camera: Camera | None = None
        self._stacks, self._next = 0, 1
        self._fits: list[ApertureFit] = []
        self._last = unfitted()
        self._held = False

    def hold(self) -> None:
        """From now on, fit and count no stack: return what has been found."""
        self._held = True

    @property
    def due(self) -> bool:
        """True if the next stack of this camera is to be fitted; False before the first, and where none is fitted."""
        if self._held or self._camera is None:
            return False
        return self._stacks + 1 == self._next and len(self._fits) < self._most_fits

    def fit(self, camera: Camera, fit_stack: Callable[[float | None], ApertureFit | None]) -> ApertureFit:
        """Count a stack of `camera`, fit it if due, and return the combined aperture.

        `fit_stack` gets the factor fitted so far, around which it may search; None = unknown.
        """
        if not self._held and camera != self._camera:
            self._camera, self._stacks, self._next, self._fits, self._last = camera, 0, 1, [], unfitted()
        due = self.due
        self._stacks += not self._held
        if due:
            found = fit_stack(combined(self._fits).measured if self._fits else None)
            fitted = found is not None and not found.at_limit
            self._next += min(self._stacks * (_LONGER_AFTER_FIT if fitted else 1), _MOST_STACKS_BETWEEN)
            if found is not None and not found.at_limit:
                self._fits.append(found)
            elif found is not None:
                self._last = found
        return combined(self._fits) if self._fits else self._last


def unfitted(sigma: float = math.inf) -> ApertureFit:
    """Aperture as described, without a fit: factor 1; `sigma` 0 if it was calibrated."""
    return ApertureFit(1.0, sigma, np.empty(0), np.empty(0), 0.0)


def combined(fits: Sequence[ApertureFit]) -> ApertureFit:
    """Precision-weighted mean of a camera's fits; without fits, factor 1 with infinite sigma.

    Fits of one camera, which share their scene, share their errors, so sigma is that of the best one.
    """
    if not fits:
        return unfitted()
    weights = np.array([1.0 / fit.sigma**2 for fit in fits])
    measured = math.exp(float(np.average([math.log(fit.measured) for fit in fits], weights=weights)))
    share = float(np.mean([fit.share for fit in fits]))
    return ApertureFit(measured, min(fit.sigma for fit in fits), np.empty(0), np.empty(0), share)


class _Misfit:
    """Misfit of a stack for blur factors; the images are transformed once."""

    def __init__(self, stack: FocalStack, cost: CostConfig, energies: Energies, step_px: float) -> None:
        self._stack, self._energies, self._step_px = stack, energies, step_px
        self._cost = dataclasses.replace(cost, method="residual", window_sigma_px=_WINDOW_SIGMA_PX)
        self._spectra = SpectraCache()

    def energy(self, factor: float, depths_m: NDArray[np.float64]) -> NDArray[np.float32]:
        """Logarithm of the squared residual, float32 (D, H, W)."""
        return self._energies.volume(opened(self._stack, factor), depths_m, self._cost, self._spectra)

    def mean(self, factor: float, seen: NDArray[np.float64], nearest: float, textured: NDArray[np.bool_]) -> float:
        """Mean of the least energies over depth of the textured pixels; arguments as in :meth:`_depths`."""
        depths_m = self._depths(factor, seen, nearest)
        least = self._energies.least(opened(self._stack, factor), depths_m, self._cost, self._spectra)
        counts = cv2.resize(textured.astype(np.uint8), least.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
        return float(least[counts].mean(dtype=np.float64))

    def _depths(self, factor: float, seen: NDArray[np.float64], nearest: float) -> NDArray[np.float64]:
        """Hypotheses in metres for a factor, `step_px` of blur apart.

        The range covers the inverse depths `seen` (least, largest) at factor 1 and the same as the factor moves them.
        """
        focus, camera = self._stack.focus_diopters, self._stack.camera
        moved = focus[:, None] + (seen - focus[:, None]) / factor
        margin = 0.1 * float(np.ptp(seen)) + 0.02 * nearest
        far = max(float(min(moved.min(), seen[0])) - margin, 0.01 * nearest)
        near = min(max(float(max(moved.max(), seen[1])) + margin, 1.2 * far), 1.2 * nearest)
        blur_px = factor * (near - far) * float(thin_lens.coc_px_per_diopter(focus, camera).max())
        count = int(np.clip(math.ceil(blur_px / self._step_px) + 1, 16, _MOST_HYPOTHESES))
        return depth_hypotheses(1.0 / near, 1.0 / far, count)


def _lowest(misfit_at: Callable[[int], float], start: int, stride: int) -> tuple[int, float, float]:
    """Step of least misfit among its neighbours, found downhill from `start`, with offset and curvature.

    The offset of the minimum and the curvature are those of a parabola through the neighbours, in units of `stride`; 0
    at the last step.
    """
    best = start
    while abs(best) < FARTHEST_STEPS * _COARSE:
        lower = min((best, best - stride, best + stride), key=misfit_at)
        if lower == best:
            offset, curvature = vertex(misfit_at(best - stride), misfit_at(best), misfit_at(best + stride))
            return best, float(offset), float(curvature)
        best = lower
    return best, 0.0, 0.0
