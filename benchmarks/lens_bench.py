"""Bench of lens calibration: random lenses with known properties look at a board, and are calibrated.

    python -m benchmarks.lens_bench                     # ten lenses, seven poses; a table of errors and pulls
    python -m benchmarks.lens_bench --lenses 3 --poses 2 --size 320x240
    python -m benchmarks.lens_bench --keep FOLDER       # keeps calibrations, and goes on where it was stopped

A pull is an error over its stated standard deviation: their rms over parameters and lenses is 1 where doubt is honest.
Parameters are those of the calibration file.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.lens_rendering import BenchLens, BoardPose, board_pose, rendered, sweeps
from dfs_ros.calibration.board import Board
from dfs_ros.calibration.lens.fit import LensFit, fit_lens
from dfs_ros.calibration.lens.folder import calibration_of
from dfs_ros.calibration.lens.model import INDEX, NAMES
from dfs_ros.calibration.lens.patches import UNSHARP_PX
from dfs_ros.lens.calibration import PARAMETERS, LensCalibration
from dfs_ros.system.atomic import write_atomically

BOARD = Board("charuco", 5, 6, 0.036, 0.027)
RAW_RANGE = (0.0, 250.0)
_DISTANCES_M = (0.24, 0.42, 0.75)

Array = NDArray[np.float64]


def random_lens(seed: int, size: tuple[int, int]) -> BenchLens:
    """Lens of a webcam or a small camera: -0.3 to 0.4 dioptres at one end, 4.5 to 8 at the other."""
    rng = np.random.default_rng(seed)
    far, near = rng.uniform(-0.3, 0.4), rng.uniform(4.5, 8.0)
    if rng.random() < 0.5:
        far, near = near, far
    slope = (near - far) / 2
    bend = rng.uniform(-0.12, 0.12) * abs(slope)
    height, width = size
    return BenchLens(
        size=size,
        raw_range=RAW_RANGE,
        focus=((near + far) / 2 - bend, slope, bend),
        fx_px=rng.uniform(0.8, 1.1) * width,
        cx_px=(width - 1) / 2 + rng.uniform(-0.02, 0.02) * width,
        cy_px=(height - 1) / 2 + rng.uniform(-0.02, 0.02) * width,
        aperture_m=rng.uniform(0.0018, 0.0042),
        breathing=(rng.uniform(0.003, 0.025) * np.sign(slope), rng.uniform(-0.002, 0.002)),
        distortion=(rng.uniform(-0.12, 0.06), rng.uniform(-0.02, 0.04)),
        hysteresis_raw=rng.uniform(-2.0, 6.0),
        curvature=rng.uniform(-0.5, 0.5),
        tilt=(rng.uniform(-0.25, 0.25), rng.uniform(-0.25, 0.25)),
        vignetting=rng.uniform(0.0, 0.35),
        softness_px2=rng.uniform(0.15, 0.4),
        softness_edge_px2=rng.uniform(0.0, 0.4),
        noise=rng.uniform(0.003, 0.008),
        aberration=rng.uniform(-0.4, 0.4),
    )


def poses_of_the_tutorial(count: int, lens: BenchLens, seed: int) -> list[BoardPose]:
    """Board near, in the middle and far in turn, tilted another way each time."""
    rng = np.random.default_rng(seed)
    poses = []
    for i in range(count):
        distance = _DISTANCES_M[i % 3] * rng.uniform(0.95, 1.1)
        room = 0.5 * max(distance * lens.size[1] / lens.fx_px - BOARD.size_m[1], 0.0)
        angle = 2.4 * i + rng.uniform(0.0, 1.0)
        tilt = rng.uniform(18.0, 32.0)
        aside = (room * 0.5 * math.cos(1.7 * i), 0.3 * room * math.sin(1.7 * i))
        poses.append(board_pose(BOARD, distance, (tilt * math.cos(angle), tilt * math.sin(angle)), aside))
    return poses


def truth_of(lens: BenchLens, raws: Sequence[float]) -> Array:
    """Parameters of a lens as the calibration names them, for its normalisation of these raw positions."""
    low, high = min(raws), max(raws)
    half = (high - low) / 2
    centre, factor = lens.position((low + high) / 2), half * 2 / (lens.raw_range[1] - lens.raw_range[0])

    def moved(c0: float, c1: float, c2: float) -> tuple[float, float, float]:
        return c0 + c1 * centre + c2 * centre**2, (c1 + 2 * c2 * centre) * factor, c2 * factor**2

    scale = moved(1.0, *lens.breathing)
    known = {
        "log_fx": math.log(lens.fx_px * scale[0]),
        "cx_px": lens.cx_px,
        "cy_px": lens.cy_px,
        "k1": lens.distortion[0],
        "k2": lens.distortion[1],
        "breathing1": scale[1] / scale[0],
        "breathing2": scale[2] / scale[0],
        **dict(zip(("focus0", "focus1", "focus2"), moved(*lens.focus), strict=True)),
        "hysteresis": lens.hysteresis_raw / half,
        "curvature": lens.curvature,
        "tilt_x": lens.tilt[0],
        "tilt_y": lens.tilt[1],
        "log_aperture": math.log(lens.aperture_m),
        "vignetting": lens.vignetting,
        "softness_px2": lens.softness_px2,
        "softness_edge_px2": lens.softness_edge_px2,
        "aberration": lens.aberration,
        "sharpening": lens.sharpening,
        "tone": lens.tone,
        "ink_mm": lens.ink_mm,
    }
    return np.array([known[name] for name in NAMES])


def true_values(lens: BenchLens, raws: Sequence[float]) -> Array:
    """:func:`truth_of` by the parameters of a calibration file."""
    values = truth_of(lens, raws)
    softness = INDEX["softness_px2"]
    values[softness] -= UNSHARP_PX**2 * lens.sharpening
    for name in ("log_fx", "log_aperture"):
        values[INDEX[name]] = math.exp(values[INDEX[name]])
    return values[: len(PARAMETERS)]


def calibrated(lens: BenchLens, poses: Sequence[BoardPose], raws: Sequence[float], seed: int) -> LensFit:
    """Render sweeps up and down of every pose, and calibrate."""
    shots = sweeps(len(poses), raws)
    images = list(rendered(lens, BOARD, poses, shots, seed))
    names = [f"pose {s.pose}, raw {s.raw:g}" for s in shots]
    return fit_lens(images, names, [s.raw for s in shots], [s.direction for s in shots], [s.pose for s in shots], BOARD)


def kept_calibration(
    lens: BenchLens, seed: int, poses: int, positions: int, folder: Path | None
) -> tuple[LensCalibration, list[float]]:
    """Calibration of a lens, from the folder if it has it, and the raw positions of its sweeps."""
    raws = [float(raw) for raw in np.linspace(*RAW_RANGE, positions)]
    height, width = lens.size
    file = None if folder is None else folder / f"lens{seed}_{width}x{height}_{poses}x{positions}.yaml"
    if file is not None and file.is_file():
        return LensCalibration.load(file), raws
    fit = calibrated(lens, poses_of_the_tutorial(poses, lens, seed), raws, seed)
    found = calibration_of(fit, BOARD, "raw", f"temper {fit.temper:.1f}")
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, found.yaml())
    return found, raws


def focus_error(found: LensCalibration, truth: Array) -> tuple[Array, Array]:
    """Error and stated standard deviation of the focus on the axis [D], at 21 positions over the range."""
    e = np.linspace(-1.0, 1.0, 21)
    first = PARAMETERS.index("focus0")
    basis = np.stack([np.ones_like(e), e, e * e], 1)
    error = basis @ (found.values - truth)[first : first + 3]
    sigma = np.sqrt(np.einsum("ij,jk,ik->i", basis, found.covariance[first : first + 3, first : first + 3], basis))
    return error, sigma


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.lens_bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--lenses", type=int, default=10, help="number of random lenses (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="seed of the first lens (default: %(default)s)")
    parser.add_argument("--poses", type=int, default=7, help="poses of the board (default: %(default)s)")
    parser.add_argument("--positions", type=int, default=11, help="lens positions of a sweep (default: %(default)s)")
    parser.add_argument("--size", default="480x360", help="size of the images, WxH (default: %(default)s)")
    parser.add_argument("--keep", type=Path, help="folder for the calibrations, which benchmarks.lens_depth then takes")
    args = parser.parse_args(arguments)
    width, height = (int(n) for n in args.size.split("x"))
    pulls, errors = [], []
    print("lens  focus rms/max [D]  stated   aperture [%] stated  pull  undetermined; pulls over 3")
    for seed in range(args.first, args.first + args.lenses):
        lens = random_lens(seed, (height, width))
        started = time.process_time()
        found, raws = kept_calibration(lens, seed, args.poses, args.positions, args.keep)
        truth = true_values(lens, raws)
        error, stated = focus_error(found, truth)
        pull = (found.values - truth) / np.sqrt(np.diag(found.covariance))
        aperture = found["aperture_m"] / truth[PARAMETERS.index("aperture_m")] - 1
        rms, stated_rms = np.sqrt(np.mean(error**2)), np.sqrt(np.mean(stated**2))
        pulls.append(pull)
        errors.append((rms, aperture))
        large = ", ".join(f"{n} {p:+.1f}" for n, p in zip(PARAMETERS, pull, strict=True) if abs(p) > 3)
        print(
            f"{seed:4d}  {rms:8.4f} {np.abs(error).max():8.4f}  {stated_rms:7.4f}"
            f"  {100 * aperture:+8.2f} {100 * found.aperture_sigma:8.2f}  {np.sqrt(np.mean(pull**2)):5.2f}  "
            f"{', '.join(found.undetermined) or 'none'}; {large or 'none'}  ({time.process_time() - started:.0f} s)",
            flush=True,
        )
    each = np.sqrt(np.mean(np.square(pulls), 0))
    print("pulls, rms: " + ", ".join(f"{name} {value:.2f}" for name, value in zip(PARAMETERS, each, strict=True)))
    focus, apertures = np.sqrt(np.mean(np.square(errors), 0))
    all_pulls = np.sqrt(np.mean(np.square(pulls)))
    print(f"rms of all: pulls {all_pulls:.2f}, focus {focus:.4f} D, aperture {100 * apertures:.2f} %")
    focus, apertures = np.abs(errors).max(0)
    print(f"worst: focus {focus:.4f} D, aperture {100 * apertures:.2f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
