"""A small bench for the calibration of lenses: two poses of a coarse board, and images rendered once for all tests."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.lens_bench import truth_of
from benchmarks.lens_rendering import BenchLens, Shot, board_pose, rendered, sweeps
from dfs_ros.calibration.board import Board
from dfs_ros.calibration.lens.model import NAMES
from dfs_ros.io.images import write_png
from dfs_ros.lens.calibration import PARAMETERS, LensCalibration

BOARD = Board("charuco", 4, 5, 0.045, 0.034)
LENS = BenchLens(
    size=(192, 256),
    raw_range=(0.0, 100.0),
    focus=(2.9, 2.6, 0.2),
    fx_px=235.0,
    cx_px=129.5,
    cy_px=93.0,
    aperture_m=0.004,
    breathing=(0.012, 0.0),
    distortion=(-0.05, 0.02),
    hysteresis_raw=3.0,
    curvature=0.3,
    tilt=(0.1, -0.05),
    vignetting=0.1,
    softness_px2=0.25,
    softness_edge_px2=0.1,
    noise=0.004,
    aberration=-0.2,
)
POSES = (
    board_pose(BOARD, 0.29, (24.0, 10.0), (0.0, 0.0)),
    board_pose(BOARD, 0.55, (-20.0, 22.0), (0.03, 0.02)),
)
RAWS = (0.0, 25.0, 50.0, 75.0, 100.0)


class Images(Sequence[NDArray[np.uint8]]):
    """Images of shots, each rendered when it is first asked for, the same whatever the others."""

    def __init__(self, shots: Sequence[Shot]) -> None:
        self._shots = shots
        self._rendered: dict[int, NDArray[np.uint8]] = {}

    def __len__(self) -> int:
        return len(self._shots)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        if index not in self._rendered:
            generator = np.random.default_rng(0)
            generator.standard_normal((index, *LENS.size))  # the noise of those before
            (self._rendered[index],) = rendered(LENS, BOARD, POSES, [self._shots[index]], generator)
        return self._rendered[index]


@functools.cache
def swept() -> tuple[list[Shot], Images]:
    """Shots and images of sweeps up and down of both poses."""
    shots = sweeps(len(POSES), RAWS)
    return shots, Images(shots)


def true_calibration(**changes: float) -> LensCalibration:
    """Calibration that knows the lens: all to a thousandth, focus to .01 dioptres and aperture to 2 %."""
    values = truth_of(LENS, RAWS)
    renamed = {"log_fx": "fx_px", "log_aperture": "aperture_m"}
    known = {renamed.get(name, name): value for name, value in zip(NAMES, values, strict=True)}
    known["fx_px"], known["aperture_m"] = math.exp(known["fx_px"]), math.exp(known["aperture_m"])
    known |= changes
    sigma = {name: 1e-3 * abs(known[name]) for name in PARAMETERS}
    sigma |= {"focus0": 0.01, "aperture_m": 0.02 * known["aperture_m"]}
    variance = np.array([sigma[name] ** 2 for name in PARAMETERS])
    return LensCalibration(
        LENS.size, 50.0, 50.0, np.array([known[name] for name in PARAMETERS]), np.diag(variance), unit="dac",
        board=BOARD.description,
    )  # fmt: skip


def write_sweeps(
    folder: Path, keep: Collection[int] = range(20), columns: tuple[str, ...] = ("file", "raw_position", "sweep")
) -> Path:
    """Folder of images, some of all, with its CSV file, which is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [",".join(columns)]
    shots, images = swept()
    for i, shot in enumerate(shots):
        if i in keep:
            write_png(folder / f"{i:03d}.png", images[i])
            row = {"file": f"{i:03d}.png", "raw_position": f"{shot.raw:g}", "sweep": f"{shot.pose}"}
            lines.append(",".join(row[name] for name in columns))
    csv = folder / "positions.csv"
    csv.write_text("\n".join(lines) + "\n")
    return csv
