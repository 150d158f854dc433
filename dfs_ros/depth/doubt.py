"""Doubt about a lens: what its focus and aperture are worth, as an error common to all pixels of a stack.

Blur tells the depth relative to the focus, and through the aperture: D = D_f + (D' - D_f) / a, with D' by the lens as
described and the true factor a on its blur. An error of a moves depths apart from the focus, an error of the focus
scale moves all depths with it, and neither shows in the images. So the inverse depth D has the variance

    (D - mean D_f)^2 var ln a  +  (gain D)^2  +  offset^2

besides that of the pixel itself; for a calibrated lens, that by its covariance (:mod:`.lens_doubt`). All pixels share
these errors: smoothing does not reduce them. A gain of the focus and an aperture are one number to blur: where the
factor that fits is far from that of the description, either may be wrong, and var gain grows as var ln a does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfs_ros.depth.lens_doubt import CalibrationDoubt
from dfs_ros.types import FocalStack

NOMINAL_GAIN, NOMINAL_OFFSET_DIOPTERS = 0.05, 0.1
"""Standard deviations of a nominal focus, as phones, EXIF, file names and schedules state it."""


@dataclass(frozen=True)
class LensDoubt:
    """Standard deviations of a lens.

    Attributes
    ----------
    aperture
        Of the logarithm of the factor on the described blur.
    gain, offset_diopters
        Of a factor on all focus values, and of an offset added to them.
    focus_diopters
        Mean focus of the stack.
    calibration
        Doubt by the covariance of a calibrated lens, in the place of the others but for an offset; None = none.
    """

    aperture: float
    gain: float
    offset_diopters: float
    focus_diopters: float
    calibration: CalibrationDoubt | None = None

    @classmethod
    def of(
        cls, stack: FocalStack, aperture: float, unstated_diopters: float = -1.0, contradiction: float = 0.0
    ) -> LensDoubt:
        """Doubt about the lens of a stack, with the standard deviation of its aperture.

        `unstated_diopters`: standard deviation of focus values that state none; under 0 = nominal. `contradiction`:
        distance of the fitted aperture from the described one in standard deviations; over 1 it multiplies the gain.
        """
        camera, focus, sigma = stack.camera, stack.focus_diopters, stack.focus_sigma_diopters
        if camera.field is not None:
            focus = focus - camera.field.level_diopters
        unstated = nominal_sigma(focus) if unstated_diopters < 0 else np.full(len(focus), unstated_diopters)
        sigma, mean = np.where(np.isnan(sigma), unstated, sigma), float(focus.mean())
        if camera.field is not None and camera.field.covariance:
            calibrated = aperture == camera.aperture_sigma  # else it was estimated from the stack, or set
            doubt = CalibrationDoubt(stack, camera.field, sigma, calibrated)
            return cls(0.0 if calibrated else aperture, 0.0, doubt.rest_diopters, mean, doubt)
        gain, offset_diopters = gain_and_offset(focus, sigma)
        return cls(aperture, max(1.0, contradiction) * gain, offset_diopters, mean)

    def terms(self, diopters: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Standard deviation of inverse depth (H, W) by aperture, gain, offset and calibration."""
        return {
            "aperture": self.aperture * np.abs(diopters - np.float32(self.focus_diopters)),
            "gain": self.gain * diopters,
            "offset": np.full_like(diopters, self.offset_diopters),
            "calibration": np.zeros_like(diopters) if self.calibration is None else self.calibration.sigma(diopters),
        }

    def widened(self, local: NDArray[Any], diopters: NDArray[Any]) -> NDArray[Any]:
        """Standard deviation of inverse depth (H, W) from that of the pixels alone."""
        return np.asarray(np.sqrt(sum((term * term for term in self.terms(diopters).values()), local * local)))


def nominal_sigma(focus_diopters: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard deviation (F,) of a nominal focus in dioptres."""
    return np.asarray(np.hypot(NOMINAL_GAIN * focus_diopters, NOMINAL_OFFSET_DIOPTERS), np.float64)


def gain_and_offset(focus_diopters: NDArray[np.float64], sigma_diopters: NDArray[np.float64]) -> tuple[float, float]:
    """Gain and offset with ``sigma^2 = (gain D)^2 + offset^2`` of focus values (F,), by least squares, neither under 0.

    The errors of all images of a stack are taken as common, as those of a focus scale are.
    """
    x, y = focus_diopters**2, sigma_diopters**2
    slope = float(np.cov(x, y, bias=True)[0, 1] / max(float(x.var()), 1e-12))
    if slope <= 0.0:
        return 0.0, float(np.sqrt(y.mean()))
    level = float(y.mean() - slope * x.mean())
    if level < 0.0:
        return float(np.sqrt((x * y).mean() / (x * x).mean())), 0.0
    return float(np.sqrt(slope)), float(np.sqrt(level))
