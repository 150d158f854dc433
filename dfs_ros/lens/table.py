"""Lens table: raw lens positions (`focus_absolute`, DAC counts) <-> dioptres.

::

    format: lens-table/1
    note: desk, 2026-11-20             # optional
    unit: focus_absolute               # unit of `raw`
    settle_s: 0.25                     # optional: settling time of the lens after a command
    points:                            # two or more; raw rising, focus_diopters rising or falling throughout
    - {raw: 0, focus_diopters: 0.2, sigma_diopters: 0.05}     # sigma: one standard deviation, optional
    - {raw: 120, focus_diopters: 2.0}
    - {raw: 250, focus_diopters: 6.7}

To measure a point: place a target of fine texture at a known distance d before the lens and find the raw position of
the sharpest image (`dfs focus-table /dev/video0 --distance d --output lens.yaml` does that and adds the point); its
focus is 1 / d dioptres. Between points the focus is interpolated linearly; beyond them it is unknown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfs_ros.config import read_yaml, unknown_name

FORMAT = "lens-table/1"
_KEYS = ("format", "note", "unit", "settle_s", "points")
_POINT_KEYS = ("raw", "focus_diopters", "sigma_diopters")


@dataclass(frozen=True, eq=False)
class LensTable:
    """Lens table, see the head of this module.

    `raw` rising, `focus_diopters` rising or falling, `sigma_diopters` NaN = unknown.
    """

    raw: NDArray[np.float64]
    focus_diopters: NDArray[np.float64]
    sigma_diopters: NDArray[np.float64]
    unit: str = "focus_absolute"
    settle_s: float = math.nan
    note: str = ""

    def __post_init__(self) -> None:
        raw, focus, sigma = self.raw, self.focus_diopters, self.sigma_diopters
        if raw.ndim != 1 or not raw.shape == focus.shape == sigma.shape:
            raise ValueError(f"points: expected as many raw as focus positions, received {raw.shape}, {focus.shape}")
        if len(raw) < 2:
            raise ValueError(f"points: expected two or more, received {len(raw)}")
        if not (np.isfinite(raw).all() and np.isfinite(focus).all()):
            raise ValueError("points: expected finite numbers for raw and focus_diopters")
        if (focus < 0).any():
            raise ValueError(f"points: focus_diopters: expected 0 (infinity) or more, received {focus.min():g}")
        if not (np.diff(raw) > 0).all():
            raise ValueError(f"points: raw: expected rising positions, each once, received {raw.tolist()}")
        steps = np.diff(focus)
        if not ((steps > 0).all() or (steps < 0).all()):
            raise ValueError(
                f"points: focus_diopters: expected rising or falling throughout, received {focus.tolist()}; a lens "
                "goes one way: measure the point again that breaks the order"
            )
        if (sigma <= 0).any() or np.isinf(sigma).any():
            raise ValueError("points: sigma_diopters: expected finite numbers over 0")
        if not math.isnan(self.settle_s) and not 0 <= self.settle_s <= 60:
            raise ValueError(f"settle_s: expected 0 to 60 s, received {self.settle_s:g}")

    @classmethod
    def load(cls, path: str | Path) -> LensTable:
        """Read a lens-table/1 file. Raises FileNotFoundError or ValueError, with file and entry."""
        document = read_document(path)
        try:
            return cls.from_document(document)
        except ValueError as error:
            raise ValueError(f"lens calibration {path}: {error}") from error

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> LensTable:
        """Make a table from the plain values of YAML."""
        columns = np.array(_rows(document), np.float64).reshape(-1, 3)
        return cls(
            columns[:, 0],
            columns[:, 1],
            columns[:, 2],
            unit=str(document.get("unit", "focus_absolute")),
            settle_s=_number(document.get("settle_s"), "settle_s"),
            note=str(document.get("note", "")),
        )

    @property
    def range_diopters(self) -> tuple[float, float]:
        """(farthest, nearest) focus in dioptres."""
        return float(self.focus_diopters.min()), float(self.focus_diopters.max())

    def focus_of(self, raw: float, direction: int = 0) -> tuple[float, float]:
        """(dioptres, their standard deviation) at a raw position; NaN beyond the points. `direction` is ignored."""
        focus = float(np.interp(raw, self.raw, self.focus_diopters, left=math.nan, right=math.nan))
        return focus, float(np.interp(raw, self.raw, self.sigma_diopters, left=math.nan, right=math.nan))

    def raw_of(self, focus_diopters: float) -> float:
        """Raw position of a focus. Raises ValueError beyond the points."""
        check_covered(focus_diopters, self.range_diopters)
        order = np.argsort(self.focus_diopters)
        return float(np.interp(focus_diopters, self.focus_diopters[order], self.raw[order]))


def check_covered(focus_diopters: float, range_diopters: tuple[float, float]) -> None:
    """Raise ValueError for a focus beyond the (farthest, nearest) calibrated one."""
    low, high = range_diopters
    if not low <= focus_diopters <= high:
        raise ValueError(
            f"focus: expected {low:g} to {high:g} dioptres, which the lens calibration covers, received "
            f"{focus_diopters:g}"
        )


def read_document(path: str | Path) -> dict[str, Any]:
    """Plain values of a lens-table/1 file with any number of points, each validated."""
    document = read_yaml(Path(path), f"lens calibration {path}")
    try:
        if not isinstance(document, Mapping) or document.get("format") != FORMAT:
            found = document.get("format") if isinstance(document, Mapping) else type(document).__name__
            raise ValueError(f"expected `format: {FORMAT}`, received {found!r}")
        check_keys(document, _KEYS, "entry")
        _rows(document)
    except ValueError as error:
        raise ValueError(f"lens calibration {path}: {error}") from error
    return dict(document)


def _rows(document: Mapping[str, Any]) -> list[tuple[float, float, float]]:
    points = document.get("points")
    if not isinstance(points, list):
        raise ValueError("points: expected a list of {raw: ..., focus_diopters: ...}")
    return [_row(point, f"points[{i}]") for i, point in enumerate(points)]


def _row(point: Any, name: str) -> tuple[float, float, float]:
    if not isinstance(point, Mapping):
        raise ValueError(f"{name}: expected {{raw: ..., focus_diopters: ...}}, received {point!r}")
    check_keys(point, _POINT_KEYS, name)
    for key in _POINT_KEYS[:2]:
        if key not in point:
            raise ValueError(f"{name}: {key} is missing")
    raw, focus, sigma = (_number(point.get(key), f"{name}.{key}") for key in _POINT_KEYS)
    return raw, focus, sigma


def check_keys(mapping: Mapping[Any, Any], known: tuple[str, ...], what: str) -> None:
    """Raise ValueError for an unknown key, with the nearest known one."""
    for key in mapping:
        if key not in known:
            raise ValueError(unknown_name(str(key), known, what))


def _number(value: Any, name: str) -> float:
    if value is None:
        return math.nan
    try:
        if isinstance(value, bool):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name}: expected a number, received {value!r}") from None
