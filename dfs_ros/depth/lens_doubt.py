"""Doubt about the depth of every pixel by the covariance of a calibrated lens.

Blur of image i is k |f_i + s - D|, with the errors of its parameters (:data:`dfs_ros.lens_field.DOUBTS`) in the focus
f_i, the focal surface s and the logarithm of k. The inverse depth that explains all images best is then off by

    D' - D = -sum over i of w_i (df_i + ds + (f_i + s - D) dln k),      w_i ~ c_i^2 / (c_0^4 + c_i^4),  sum w_i = 1

as an image tells of depth by the change of its transfer function with blur c_i: nothing in focus, most at c_0 = 2.5
pixels, little where blur has left no texture (images of a spectrum 1 / frequency, blurred by pixel and lens). All
parameters err together: focus scale and aperture that only fit each other leave depth as it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfs_ros.lens_field import DOUBTS, LEAST_OPEN, LensField, axes
from dfs_ros.optics.thin_lens import coc_px_per_diopter
from dfs_ros.types import FocalStack

Array = NDArray[np.float64]

_MOST_TELLING_PX = 2.5
_LEVELS = 96
_APERTURE = [DOUBTS.index(name) for name in ("log_aperture", "vignetting")]


class CalibrationDoubt:
    """Standard deviation of inverse depth by the calibration of the stack's lens.

    `with_aperture` False: the aperture was estimated from the stack, by its focus values, and so is wrong by as much as
    their slope: what is left of a linear error of the focus is that at the depth itself. `rest_diopters`: what the
    covariance does not explain of `sigma` (F,), the standard deviations of the focus values; their mean, as of errors
    that all go one way.
    """

    def __init__(self, stack: FocalStack, lens: LensField, sigma: Array, with_aperture: bool) -> None:
        covariance = lens.covariance_matrix
        if not with_aperture:
            covariance[_APERTURE] = covariance[:, _APERTURE] = 0.0
        values, vectors = np.linalg.eigh(covariance)
        self._root = (vectors * np.sqrt(np.maximum(values, 0.0))).T.astype(np.float32)
        self._lens, self._size, self._with_aperture = lens, stack.size, with_aperture
        x, y = axes(stack.size, stack.camera.cx_px, stack.camera.cy_px)
        self._x, self._y = (np.broadcast_to(axis, stack.size).astype(np.float32) for axis in (x, y))
        self._surface = lens.surface(stack.size, stack.camera.cx_px, stack.camera.cy_px)
        focus = stack.focus_diopters - lens.level_diopters
        reach = float(np.ptp(focus)) + 2.0
        by_blur = np.linspace(focus.min() - reach, focus.max() + reach, _LEVELS)
        coc = np.abs(by_blur[:, None] - focus) * coc_px_per_diopter(stack.focus_diopters, stack.camera)
        telling = coc**2 / (_MOST_TELLING_PX**4 + coc**4)
        telling /= telling.sum(axis=1, keepdims=True)
        self._by_blur, self._first, self._second = by_blur, telling @ focus, telling @ focus**2
        self._bend = float(np.polyfit(focus, focus**2, 1)[0])
        own = self._variance(*self._middle, focus, focus**2, np.zeros_like(focus))
        self.rest_diopters = float(np.sqrt(np.maximum(sigma**2 - own, 0.0)).mean())

    def sigma(self, diopters: NDArray[Any]) -> NDArray[Any]:
        """Standard deviation of inverse depth (H, W), or of one inverse depth in the middle of the field."""
        x: Any = self._x
        y: Any = self._y
        by_blur: Any = diopters
        if np.ndim(diopters) == 0:
            x, y, r2 = self._middle
        elif np.shape(diopters) == self._size:
            r2 = x * x + y * y
            by_blur = diopters - self._surface - np.float32(self._lens.level_diopters)
        else:
            raise ValueError(f"diopters: expected shape {self._size} or one number, received {np.shape(diopters)}")
        first, second = (np.interp(by_blur, self._by_blur, m) for m in (self._first, self._second))
        beyond = by_blur - first
        if not self._with_aperture:
            first, second = by_blur, second + self._bend * beyond
        return np.asarray(np.sqrt(self._variance(x, y, r2, first, second, beyond)), np.float32)

    @property
    def _middle(self) -> tuple[float, float, float]:
        return float(self._x.mean()), float(self._y.mean()), float((self._x**2 + self._y**2).mean())

    def _variance(self, x: Any, y: Any, r2: Any, first: Any, second: Any, beyond: Any) -> Array:
        """Variance by mean and mean square of the focus of the images that tell, and the distance from their mean."""
        narrowed = r2 / np.maximum(1.0 - self._lens.vignetting * r2, LEAST_OPEN)
        by = np.stack(np.broadcast_arrays(1.0, first, second, r2, x, y, -beyond, beyond * narrowed)).astype(np.float32)
        return np.asarray(np.square(self._root @ by.reshape(len(by), -1)).sum(axis=0).reshape(by.shape[1:]), np.float64)
