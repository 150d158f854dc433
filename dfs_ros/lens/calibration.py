"""Calibration of a lens, lens-calibration/1: what `dfs calibrate lens` found, with its doubt.

::

    format: lens-calibration/1
    note: desk, 2026-11-29               # optional
    unit: focus_absolute                 # unit of raw positions
    image: {width: 640, height: 480}
    raw: {centre: 125.0, half_range: 125.0}
    board: charuco,rows=6,...            # optional: what it was made with
    latency_s: 0.05                      # optional: until the lens starts to move after a command, or a report
    settle_s: 0.2                        # optional: until it rests
    parameters:
      fx_px: {value: 668.1, sigma: 0.4}
      focus0: {value: 3.15, sigma: 0.01}
      curvature: {value: 0.0, sigma: 0.5, determined: false}      # left near its prior
      ...
      aberration: {value: 0.12, sigma: 0.01}     # optional: files of older versions have none
    correlation: [[1.0], [0.02, 1.0], ...]       # lower triangle, in the order of the parameters

The parameters are those of :data:`PARAMETERS`. With ``e = (raw - centre) / half_range - direction hysteresis / 2``
(direction 1: reached upwards, -1: downwards, 0: unknown), the lens is focused at

    focus0 + focus1 e + focus2 e^2 + curvature R^2 + tilt_x X + tilt_y Y

dioptres, X, Y and R in half diagonals of the image from the principal point, has the image scale
``1 + breathing1 e + breathing2 e^2``, distortion k1, k2 of OpenCV, an entrance pupil of
``aperture_m (1 - vignetting R^2)``, a softness (Gaussian) of variance ``softness_px2 + softness_edge_px2 R^2`` and the
spherical aberration of :class:`dfs_ros.types.Camera`.
Positions outside of ``centre +- half_range`` are unknown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from dfs_ros.config import read_yaml
from dfs_ros.lens.table import check_covered, check_keys
from dfs_ros.lens_field import DOUBTS, LensField
from dfs_ros.types import Camera

FORMAT = "lens-calibration/1"
PARAMETERS = (
    *("fx_px", "cx_px", "cy_px", "k1", "k2", "breathing1", "breathing2"),
    *("focus0", "focus1", "focus2", "hysteresis", "curvature", "tilt_x", "tilt_y"),
    *("aperture_m", "vignetting", "softness_px2", "softness_edge_px2", "aberration"),
)
_ADDED = {"aberration": {"value": 0.0, "sigma": 0.25, "determined": False}}  # as unknown, where a file has none
_INDEX = {name: i for i, name in enumerate(PARAMETERS)}
_KEYS = ("format", "note", "unit", "image", "raw", "board", "latency_s", "settle_s", "parameters", "correlation")
_MODEL_DIOPTERS = 0.01  # standard deviation of a focus beside that of the fit: lenses are not quite quadratic
_BEYOND_SIGMA, _BEYOND_DIOPTERS = 2.0, 0.15  # a focus this little beyond infinity is infinity
_LEAST_FOCAL_LENGTH_M, _MOST_FOCAL_LENGTH_M = 5e-4, 0.1
_MOST_VIGNETTING = 0.95
_FIELD = 33  # points each way over which the field is averaged

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LensCalibration:
    """Calibration of a lens, see the head of this module.

    `values`, `covariance`: (19,) and (19, 19) by PARAMETERS; `undetermined`: names that were left near
    their prior, or are known too badly for depth.
    """

    size: tuple[int, int]
    raw_centre: float
    raw_half_range: float
    values: Array
    covariance: Array
    undetermined: tuple[str, ...] = ()
    unit: str = "raw"
    note: str = ""
    board: str = ""
    settle_s: float = math.nan
    latency_s: float = math.nan

    def __post_init__(self) -> None:
        if not (np.isfinite(self.values).all() and np.isfinite(self.covariance).all()):
            raise ValueError("parameters: expected finite numbers")
        if min(self.size) < 16:
            raise ValueError(f"image: expected 16 x 16 pixels or more, received {self.size[1]} x {self.size[0]}")
        if not self.raw_half_range > 0:
            raise ValueError(f"raw: half_range: expected over 0, received {self.raw_half_range:g}")
        for key in ("settle_s", "latency_s"):
            if not (math.isnan(getattr(self, key)) or 0 <= getattr(self, key) <= 60):
                raise ValueError(f"{key}: expected 0 to 60 s, received {getattr(self, key):g}")
        for name in ("fx_px", "aperture_m"):
            if not self[name] > 0:
                raise ValueError(f"parameters: {name}: expected over 0, received {self[name]:g}")
        slopes = self["focus1"] + 2 * self["focus2"] * np.array([-1.0, 1.0])
        if slopes[0] * slopes[1] <= 0:
            raise ValueError("parameters: focus1, focus2: expected a focus that rises or falls over all raw positions")
        if not self.range_diopters[1] > self.range_diopters[0]:
            raise ValueError("parameters: expected a lens that focuses nearer than infinity")

    def __getitem__(self, name: str) -> float:
        return float(self.values[_INDEX[name]])

    def sigma(self, name: str) -> float:
        """Standard deviation of a parameter."""
        return float(math.sqrt(self.covariance[_INDEX[name], _INDEX[name]]))

    @classmethod
    def load(cls, path: str | Path) -> LensCalibration:
        """Read a lens-calibration/1 file. Raises FileNotFoundError or ValueError, with file and entry."""
        document = read_yaml(Path(path), f"lens calibration {path}")
        try:
            if not isinstance(document, Mapping) or document.get("format") != FORMAT:
                found = document.get("format") if isinstance(document, Mapping) else type(document).__name__
                raise ValueError(f"expected `format: {FORMAT}`, received {found!r}")
            return cls.from_document(document)
        except ValueError as error:
            raise ValueError(f"lens calibration {path}: {error}") from error

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> LensCalibration:
        """Make a calibration from the plain values of YAML."""
        check_keys(document, _KEYS, "entry")
        image, raw, parameters = (_mapping(document.get(key), key) for key in ("image", "raw", "parameters"))
        check_keys(parameters, PARAMETERS, "parameter")
        known = [name in parameters or name not in _ADDED for name in PARAMETERS]
        rows = [_mapping(parameters.get(n, _ADDED.get(n)), f"parameters: {n}") for n in PARAMETERS]
        values = np.array([_number(r.get("value"), f"parameters: {n}") for n, r in zip(PARAMETERS, rows, strict=True)])
        sigma = np.array([_number(r.get("sigma"), f"parameters: {n}") for n, r in zip(PARAMETERS, rows, strict=True)])
        if (sigma < 0).any():
            raise ValueError("parameters: sigma: expected 0 or more")
        open_ones = tuple(n for n, r in zip(PARAMETERS, rows, strict=True) if r.get("determined") is False)
        times = {
            key: _number(document[key], key) if document.get(key) is not None else math.nan
            for key in ("settle_s", "latency_s")
        }
        return cls(
            size=(int(_number(image.get("height"), "image: height")), int(_number(image.get("width"), "image: width"))),
            raw_centre=_number(raw.get("centre"), "raw: centre"),
            raw_half_range=_number(raw.get("half_range"), "raw: half_range"),
            values=values,
            covariance=sigma[:, None] * _correlation(document.get("correlation"), np.array(known)) * sigma,
            undetermined=open_ones,
            unit=str(document.get("unit", "raw")),
            note=str(document.get("note", "")),
            board=str(document.get("board", "")),
            **times,
        )

    def document(self) -> dict[str, Any]:
        """Plain values for YAML."""
        document: dict[str, Any] = {"format": FORMAT}
        for key in ("note", "board"):
            if getattr(self, key):
                document[key] = getattr(self, key)
        document["unit"] = self.unit
        for key in ("latency_s", "settle_s"):
            if not math.isnan(getattr(self, key)):
                document[key] = getattr(self, key)
        document["image"] = {"width": self.size[1], "height": self.size[0]}
        document["raw"] = {"centre": self.raw_centre, "half_range": self.raw_half_range}
        sigma = np.sqrt(np.diag(self.covariance))
        document["parameters"] = {
            name: {"value": _rounded(self[name]), "sigma": _rounded(sigma[i])}
            | ({"determined": False} if name in self.undetermined else {})
            for i, name in enumerate(PARAMETERS)
        }
        correlation = self.covariance / np.outer(np.maximum(sigma, 1e-150), np.maximum(sigma, 1e-150))
        document["correlation"] = [
            [round(float(correlation[i, j]), 4) if j < i else 1.0 for j in range(i + 1)] for i in range(len(PARAMETERS))
        ]
        return document

    def yaml(self) -> bytes:
        """Content of the file."""
        return yaml.safe_dump(self.document(), sort_keys=False, default_flow_style=None, width=110).encode()

    @property
    def range_diopters(self) -> tuple[float, float]:
        """(farthest, nearest) focus in dioptres, no farther than infinity."""
        ends = self._focus_and_sigma(-1.0, 0)[0], self._focus_and_sigma(1.0, 0)[0]
        return max(min(ends), 0.0), max(ends)

    def focus_of(self, raw: float, direction: int = 0) -> tuple[float, float]:
        """(dioptres, their standard deviation) at a raw position, the mean over the field.

        NaN beyond the calibrated positions, and where the lens is focused beyond infinity. The standard deviation holds
        the doubt of the fit, the spread of the focal surface over the field and, where the direction of travel is
        unknown, half the hysteresis.
        """
        return self._known_focus(raw, direction, self._field[1])

    def mean_focus_of(self, raw: float, direction: int = 0) -> tuple[float, float]:
        """:func:`focus_of` for a stack whose camera has the :attr:`field`: without the spread of the focal surface."""
        return self._known_focus(raw, direction, 0.0)

    def _known_focus(self, raw: float, direction: int, spread: float) -> tuple[float, float]:
        e = (raw - self.raw_centre) / self.raw_half_range
        if not abs(e) <= 1.0 + 1e-9:
            return math.nan, math.nan
        focus, sigma = self._focus_and_sigma(e, direction)
        sigma = math.hypot(sigma, spread)
        if focus < -min(_BEYOND_SIGMA * sigma, _BEYOND_DIOPTERS):
            return math.nan, math.nan
        return max(focus, 0.0), sigma

    def raw_of(self, focus_diopters: float) -> float:
        """Raw position of a focus, whatever the direction. Raises ValueError beyond the calibrated positions."""
        check_covered(focus_diopters, self.range_diopters)
        offset = self["focus0"] + self._field[0] - focus_diopters
        roots = np.roots([self["focus2"], self["focus1"], offset]) if self["focus2"] else [-offset / self["focus1"]]
        e = min((float(np.real(root)) for root in roots), key=abs)
        return self.raw_centre + self.raw_half_range * min(max(e, -1.0), 1.0)

    def magnification_of(self, raw: float, direction: int = 0) -> float:
        """Image scale over that of :attr:`camera`, which is focused at infinity."""
        e = self._travelled((raw - self.raw_centre) / self.raw_half_range, direction)
        scale = 1.0 + self["breathing1"] * e + self["breathing2"] * e * e
        return scale * self["fx_px"] / self.camera.fx_px

    @cached_property
    def camera(self) -> Camera:
        """Camera of the thin lens that blurs alike, with its intrinsics at infinity.

        Its focal length is that of the measured breathing, as only the ratio to the pixel pitch is known; its f-number
        makes the measured aperture, as the mean over the field. An aperture that is not determined is nominal: it is
        estimated from each stack.
        """
        focal_length = min(max(self["breathing1"] / self["focus1"], _LEAST_FOCAL_LENGTH_M), _MOST_FOCAL_LENGTH_M)
        focal_length = min(focal_length, 0.2 / self.range_diopters[1])
        fx = self["fx_px"] * (1.0 - focal_length * max(self._focus_and_sigma(0.0, 0)[0], 0.0))
        aperture = self["aperture_m"] * (1.0 - self["vignetting"] * self._field[2])
        sigma = math.nan if "aperture_m" in self.undetermined else round(self.aperture_sigma, 6)
        softness = math.nan
        if "softness_px2" not in self.undetermined:
            softness = round(max(self["softness_px2"] + self["softness_edge_px2"] * self._field[2], 0.0), 6)
        aberration = min(max(self["aberration"], -1.0), 1.0)  # determined or not: focus and aperture go with it
        return Camera(
            focal_length, focal_length / aperture, focal_length / fx, fx, fx, self["cx_px"], self["cy_px"],
            aperture_sigma=sigma, softness_px2=softness, aberration=round(aberration, 6),
            field=self.field,
        )  # fmt: skip

    @property
    def aperture_sigma(self) -> float:
        """Standard deviation of the logarithm of the aperture, of the mean over the field."""
        return self.sigma("aperture_m") / self["aperture_m"]

    @cached_property
    def field(self) -> LensField:
        """Focal surface and vignetting, with the covariance of all that depth depends on.

        Positions e are written as a parabola of the focus there: for a covariance, a lens is near enough to it.
        """
        e = np.linspace(-1.0, 1.0, 21)
        positions = np.stack([np.ones_like(e), e, e * e], 1)
        focus = positions @ self.values[_INDEX["focus0"] : _INDEX["focus0"] + 3] + self._field[0]
        by = np.zeros((len(DOUBTS), len(PARAMETERS)))
        of_focus, *_ = np.linalg.lstsq(np.vander(focus, 3, increasing=True), positions, rcond=None)
        by[:3, _INDEX["focus0"] : _INDEX["focus0"] + 3] = of_focus
        for name in ("curvature", "tilt_x", "tilt_y", "vignetting"):
            by[DOUBTS.index(name), _INDEX[name]] = 1.0
        for name in ("aperture_m", "fx_px"):  # blur in pixels is in proportion to both
            by[DOUBTS.index("log_aperture"), _INDEX[name]] = 1.0 / self[name]
        covariance = by @ self.covariance @ by.T
        np.fill_diagonal(covariance, np.maximum(np.diag(covariance), 0.0))  # rounding
        vignetting = min(self["vignetting"], _MOST_VIGNETTING)
        known = [float(f"{v:.9g}") for v in covariance[np.tril_indices(len(DOUBTS))]]
        return LensField(self["curvature"], self["tilt_x"], self["tilt_y"], vignetting, tuple(known))

    def _travelled(self, e: float, direction: int) -> float:
        return e - 0.5 * self["hysteresis"] * direction

    def _focus_and_sigma(self, e: float, direction: int) -> tuple[float, float]:
        moved = self._travelled(e, direction)
        slope = self["focus1"] + 2 * self["focus2"] * moved
        mean, _, r2 = self._field
        focus = self["focus0"] + self["focus1"] * moved + self["focus2"] * moved**2 + mean
        by = np.zeros(len(PARAMETERS))
        names = ("focus0", "focus1", "focus2", "hysteresis", "curvature", "tilt_x", "tilt_y")
        by[[_INDEX[name] for name in names]] = (1.0, moved, moved**2, -0.5 * direction * slope, r2, *self._tilts)
        unknown = 0.5 * self["hysteresis"] * slope if direction == 0 else 0.0
        variance = float(by @ self.covariance @ by) + unknown**2 + _MODEL_DIOPTERS**2
        return focus, math.sqrt(variance)

    @cached_property
    def _grid(self) -> tuple[Array, Array]:
        height, width = self.size
        half = math.hypot(height, width) / 2
        x, y = np.meshgrid(np.linspace(0, width - 1, _FIELD), np.linspace(0, height - 1, _FIELD))
        return (x - self["cx_px"]) / half, (y - self["cy_px"]) / half

    @cached_property
    def _tilts(self) -> tuple[float, float]:
        return float(self._grid[0].mean()), float(self._grid[1].mean())

    @cached_property
    def _field(self) -> tuple[float, float, float]:
        """Mean and spread of the focal surface [D], mean of R^2, over the image."""
        x, y = self._grid
        r2 = x * x + y * y
        surface = self["curvature"] * r2 + self["tilt_x"] * x + self["tilt_y"] * y
        return float(surface.mean()), float(surface.std()), float(r2.mean())


def _correlation(rows: Any, known: NDArray[np.bool_]) -> Array:
    """Correlation of all parameters, from that of those in the file."""
    count = int(known.sum())
    if not isinstance(rows, list) or [len(r) if isinstance(r, list) else 0 for r in rows] != list(range(1, count + 1)):
        raise ValueError(f"correlation: expected the lower triangle of {count} rows, of 1 to {count} numbers")
    lower = np.zeros((count, count))
    for i, row in enumerate(rows):
        lower[i, : i + 1] = [_number(value, f"correlation: row {i + 1}") for value in row]
    if np.abs(lower).max() > 1.0:
        raise ValueError("correlation: expected numbers of -1 to 1")
    full = lower + np.tril(lower, -1).T
    np.fill_diagonal(full, 1.0)
    # Rounding can leave an eigenvalue a little below zero, and a variance with it.
    eigenvalues, vectors = np.linalg.eigh(full)
    if eigenvalues.min() < -0.01:
        raise ValueError("correlation: expected a positive semidefinite matrix")
    of_all = np.eye(len(known))
    of_all[np.ix_(known, known)] = (vectors * np.maximum(eigenvalues, 0.0)) @ vectors.T
    return of_all


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(
            f"{name}: " + ("missing" if value is None else f"expected keys with values, received {value!r}")
        )
    return value


def _number(value: Any, name: str) -> float:
    try:
        result = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        result = math.nan
    if not math.isfinite(result):
        raise ValueError(f"{name}: expected a finite number, received {value!r}")
    return result


def _rounded(value: float) -> float:
    return float(f"{value:.7g}")
