"""Calibration boards: ChArUco boards and grids of AprilTags, described in one line.

    charuco,rows=6,columns=8,square_m=0.03,marker_m=0.022,dictionary=DICT_4X4_50
    apriltag,rows=4,columns=6,square_m=0.039,marker_m=0.03,dictionary=DICT_APRILTAG_36h11

`rows` and `columns` count squares (ChArUco) or tags, `square_m` is the side of a square, or of a tag with the gap after
it, `marker_m` that of a marker. `legacy=true`: pattern of OpenCV before 4.6. What is left out is as in these examples.

Board coordinates: metres, origin at the top left corner of the first square or tag, x right, y down, z = 0.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dfs_ros.config import unknown_name

KINDS = ("charuco", "apriltag")
_KEYS = ("rows", "columns", "square_m", "marker_m", "dictionary", "legacy")
_DEFAULTS = {
    "charuco": (6, 8, 0.03, 0.022, "DICT_4X4_50"),
    "apriltag": (4, 6, 0.039, 0.03, "DICT_APRILTAG_36h11"),
}
SOFT_CELLS = 0.6
"""Standard deviation of the Gaussian under which a raster has its pixels, in pixels."""

_REACH_CELLS = 4  # of the Gaussian
_MOST_CELLS = 60  # rows or columns
_MAX_SQUARE_M = 1.0

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Board:
    """Calibration board, see the head of this module."""

    kind: str = "charuco"
    rows: int = 6
    columns: int = 8
    square_m: float = 0.03
    marker_m: float = 0.022
    dictionary: str = "DICT_4X4_50"
    legacy: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"board: {unknown_name(self.kind, KINDS, 'kind')}")
        for name, least in (("rows", 2 if self.kind == "charuco" else 1), ("columns", 2)):
            if not least <= getattr(self, name) <= _MOST_CELLS:
                raise ValueError(f"board: {name}: expected {least} to {_MOST_CELLS}, received {getattr(self, name)}")
        for name in ("square_m", "marker_m"):
            value = getattr(self, name)
            if not (math.isfinite(value) and 0 < value <= _MAX_SQUARE_M):
                hint = "; millimetres are divided by 1000" if value > _MAX_SQUARE_M else ""
                raise ValueError(
                    f"board: {name}: expected metres over 0, at most {_MAX_SQUARE_M:g}, received {value:g}{hint}"
                )
        if not self.marker_m < self.square_m:
            raise ValueError(
                f"board: marker_m: expected less than square_m of {self.square_m:g} m, received {self.marker_m:g}"
            )
        names = _dictionaries()
        if self.dictionary not in names:
            raise ValueError(f"board: {unknown_name(self.dictionary, names, 'dictionary')}")
        held = len(self._dictionary.bytesList)
        if self.marker_count > held:
            raise ValueError(
                f"board: dictionary: {self.dictionary} has {held} markers, the board needs {self.marker_count}; choose "
                "a larger one"
            )

    @classmethod
    def parse(cls, text: str) -> Board:
        """Board of a description such as ``charuco,rows=6,columns=8``. Raises ValueError."""
        kind, *settings = [part.strip() for part in text.split(",")]
        if kind not in KINDS:
            raise ValueError(f"board: {unknown_name(kind, KINDS, 'kind')}")
        rows, columns, square, marker, dictionary = _DEFAULTS[kind]
        values: dict[str, Any] = {
            "rows": rows, "columns": columns, "square_m": square, "marker_m": marker, "dictionary": dictionary
        }  # fmt: skip
        for setting in settings:
            key, equals, value = (part.strip() for part in setting.partition("="))
            if not equals:
                raise ValueError(f"board: expected KEY=VALUE, such as rows=6, received {setting!r}")
            if key not in _KEYS:
                raise ValueError(f"board: {unknown_name(key, _KEYS, 'key')}")
            values[key] = _value(key, value)
        return cls(kind, **values)

    @property
    def description(self) -> str:
        """Text that :meth:`parse` reads."""
        text = (
            f"{self.kind},rows={self.rows},columns={self.columns},square_m={self.square_m:.6g},"
            f"marker_m={self.marker_m:.6g},dictionary={self.dictionary}"
        )
        return text + (",legacy=true" if self.legacy else "")

    @property
    def size_m(self) -> tuple[float, float]:
        """(height, width) of the pattern, without its white margin."""
        gap = 0.0 if self.kind == "charuco" else self.square_m - self.marker_m
        return self.rows * self.square_m - gap, self.columns * self.square_m - gap

    @property
    def marker_count(self) -> int:
        """Number of markers, whose identifiers start at 0."""
        cells = self.rows * self.columns
        return cells // 2 if self.kind == "charuco" else cells

    @cached_property
    def pattern(self) -> Any:
        """OpenCV's CharucoBoard or GridBoard."""
        if self.kind == "apriltag":
            gap = self.square_m - self.marker_m
            return cv2.aruco.GridBoard((self.columns, self.rows), self.marker_m, gap, self._dictionary)
        board = cv2.aruco.CharucoBoard((self.columns, self.rows), self.square_m, self.marker_m, self._dictionary)
        board.setLegacyPattern(self.legacy)
        return board

    @cached_property
    def corners_m(self) -> Array:
        """(N, 2) corners that are measured: those between squares, or the outer ones of the tags."""
        if self.kind == "charuco":
            return np.asarray(self.pattern.getChessboardCorners(), np.float64)[:, :2]
        return self.marker_corners_m.reshape(-1, 2)

    @cached_property
    def marker_corners_m(self) -> Array:
        """(M, 4, 2) corners of the markers, clockwise from the top left one."""
        return np.asarray(self.pattern.getObjPoints(), np.float64)[:, :, :2]

    @cached_property
    def dark_cells_m(self) -> Array:
        """(K, 4) black rectangles of the pattern: x, y of the top left corner, width, height."""
        cells: list[Array] = []
        for identifier, corners in zip(np.ravel(self.pattern.getIds()), self.marker_corners_m, strict=True):
            side = self._dictionary.markerSize + 2
            bits = cv2.aruco.generateImageMarker(self._dictionary, int(identifier), side)
            row, column = np.nonzero(bits < 128)
            cell = self.marker_m / side
            top_left = corners[0] + cell * np.stack([column, row], 1)
            cells.append(np.concatenate([top_left, np.full_like(top_left, cell)], 1))
        if self.kind == "charuco":
            with_marker = np.floor(self.marker_corners_m.mean(1) / self.square_m).astype(int)
            white = {(int(x), int(y)) for x, y in with_marker}
            square = self.square_m
            cells.append(
                np.array(
                    [
                        (x * square, y * square, square, square)
                        for y in range(self.rows)
                        for x in range(self.columns)
                        if (x, y) not in white
                    ]
                )
            )
        return np.concatenate(cells)

    def raster(self, cells_per_m: float, margin_m: float, ink_m: float = 0.0) -> NDArray[np.float32]:
        """Image of the board, black 0 and white 1, under a Gaussian of :data:`SOFT_CELLS`, without aliases.

        `ink_m`: width by which black grows at every edge. (H, W); the centre of pixel (i, j) is at
        ``((j + 0.5) / cells_per_m - margin_m, (i + 0.5) / cells_per_m - margin_m)``.
        """
        height, width = (math.ceil((side + 2 * margin_m) * cells_per_m) for side in self.size_m)
        dark = np.zeros((height, width), np.float32)
        for x, y, across, down in self.dark_cells_m:
            left_m, top_m = x + margin_m - ink_m, y + margin_m - ink_m
            columns, column = _coverage(left_m * cells_per_m, (left_m + across + 2 * ink_m) * cells_per_m, width)
            rows, row = _coverage(top_m * cells_per_m, (top_m + down + 2 * ink_m) * cells_per_m, height)
            dark[rows, columns] += row[:, None] * column
        white: NDArray[np.float32] = np.maximum(1.0 - dark, 0.0).astype(np.float32)
        return white

    @cached_property
    def _dictionary(self) -> Any:
        return cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, self.dictionary))


def _dictionaries() -> tuple[str, ...]:
    return tuple(sorted(name for name in dir(cv2.aruco) if re.fullmatch(r"DICT_[A-Za-z0-9_]+", name)))


def _value(key: str, value: str) -> Any:
    if key == "dictionary":
        return value
    if key == "legacy":
        if value.lower() not in ("true", "false"):
            raise ValueError(f"board: legacy: expected true or false, received {value!r}")
        return value.lower() == "true"
    try:
        return float(value) if key.endswith("_m") else int(value)
    except ValueError:
        kind = "metres" if key.endswith("_m") else "a whole number"
        raise ValueError(f"board: {key}: expected {kind}, received {value!r}") from None


def _coverage(start: float, end: float, count: int) -> tuple[slice, NDArray[np.float32]]:
    """Share of the Gaussian about each of `count` unit cells that lies between `start` and `end`, where it is not 0."""
    from scipy.special import ndtr

    first, last = max(math.floor(start) - _REACH_CELLS, 0), min(math.ceil(end) + _REACH_CELLS, count)
    centre = np.arange(first, max(last, first)) + 0.5
    share = ndtr((end - centre) / SOFT_CELLS) - ndtr((start - centre) / SOFT_CELLS)
    return slice(first, max(last, first)), share.astype(np.float32)
