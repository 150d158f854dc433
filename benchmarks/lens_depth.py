"""Depth of textured planes through the random lenses of the bench, which the calibration never saw.

    python -m benchmarks.lens_depth                     # ten lenses, true and calibrated, planes at 0.22 to 0.95 m
    python -m benchmarks.lens_depth --lens true --without-field

`true` has the parameters of the lens without doubt, `calibrated` those of the bench's seven poses. A plane passes with
a median error within 1 % or 0.02 dioptres, whichever is more. `--without-field` takes the focal surface as flat and the
aperture as even, with their spread in sigma. `--keep` keeps images and calibrations in a folder.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.lens_bench import (
    RAW_RANGE,
    kept_calibration,
    random_lens,
    true_values,
)
from benchmarks.lens_rendering import BenchLens, Shot, board_pose, plane_maps, rendered
from dfs_ros.calibration.board import SOFT_CELLS
from dfs_ros.cli.common import add_config_arguments, config_from_arguments
from dfs_ros.config import Config
from dfs_ros.estimator.estimator import DepthEstimator
from dfs_ros.lens.calibration import PARAMETERS, LensCalibration
from dfs_ros.simulation.textures import fractal
from dfs_ros.system.cache import keep_array
from dfs_ros.types import FocalStack

DISTANCES_M = (0.22, 0.35, 0.6, 0.95)
TOLERANCE, TOLERANCE_DIOPTERS = 0.01, 0.02
_POSES = 7
_BORDER = 0.06  # of the image, where alignment leaves nothing

Array = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class TexturedPlane:
    """Plane with a 1/f texture as fine as the pixels, in the place of a board."""

    size_m: tuple[float, float]
    pixels_per_m: float
    seed: int
    square_m: float = 0.0

    def raster(self, texels_per_m: float, margin_m: float, ink_m: float = 0.0, /) -> NDArray[np.float32]:
        """Texture (H, W), as of :meth:`dfs_ros.calibration.board.Board.raster`."""
        height, width = (math.ceil((side + 2 * margin_m) * texels_per_m) for side in self.size_m)
        rows, columns = (math.ceil(n * self.pixels_per_m / texels_per_m) for n in (height, width))
        noise = fractal(np.random.default_rng(self.seed), max(rows, columns))[:rows, :columns]
        fine = cv2.resize(noise.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        return np.asarray(cv2.GaussianBlur(np.clip(0.45 + 0.2 * fine, 0.0, 1.0), (0, 0), SOFT_CELLS), np.float32)


class PlaneResult(NamedTuple):
    """Errors of a plane: median of its size relative and [D], median sigma over depth, shares within 1 and 2 sigma.

    `pull`: 68 % of the errors are within so many sigmas.
    """

    relative: float
    diopters: float
    signed: float
    sigma: float
    within_one: float
    within_two: float
    pull: float
    share: float

    @property
    def passed(self) -> bool:
        """True within the tolerance."""
        return self.relative <= TOLERANCE or self.diopters <= TOLERANCE_DIOPTERS


def plane_stack(
    lens: BenchLens, distance_m: float, positions: int, seed: int
) -> tuple[Iterator[NDArray[np.uint8]], list[Shot], Any]:
    """Images of a plane through a lens that sweeps upwards, their shots, and the pose."""
    height, width = (1.25 * n * distance_m / lens.fx_px for n in lens.size)
    plane = TexturedPlane((height, width), lens.fx_px / distance_m, seed)
    pose = board_pose(plane, distance_m, (0.0, 0.0), (0.0, 0.0))
    raws = np.linspace(*RAW_RANGE, positions)
    shots = [Shot(0, float(raw), int(i > 0)) for i, raw in enumerate(raws)]
    return rendered(lens, plane, [pose], shots, seed), shots, pose


def kept_plane(
    lens: BenchLens, distance_m: float, positions: int, seed: int, folder: Path | None
) -> tuple[NDArray[np.uint8], list[Shot], Any]:
    """:func:`plane_stack`, with the images of the folder if it has them."""
    file = (
        None if folder is None else folder / f"plane{seed}_{lens.size[1]}x{lens.size[0]}_{distance_m:g}_{positions}.npy"
    )
    images, shots, pose = plane_stack(lens, distance_m, positions, seed)
    if file is not None and file.is_file():
        return np.load(file, allow_pickle=False), shots, pose
    made = np.stack(list(images))
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        keep_array(file, made)
    return made, shots, pose


def true_calibration(lens: BenchLens) -> LensCalibration:
    """Calibration with the parameters of the lens, without doubt."""
    low, high = RAW_RANGE
    nothing = np.zeros((len(PARAMETERS), len(PARAMETERS)))
    return LensCalibration(lens.size, (low + high) / 2, (high - low) / 2, true_values(lens, RAW_RANGE), nothing)


def described(
    images: Sequence[NDArray[np.uint8]], shots: Sequence[Shot], lens: LensCalibration, field: bool
) -> tuple[FocalStack, list[Shot]]:
    """Stack as a calibration describes it, and the shots it has."""
    focus_of = lens.mean_focus_of if field else lens.focus_of
    told = [focus_of(shot.raw, shot.direction) for shot in shots]
    known = [i for i, (focus, _) in enumerate(told) if not math.isnan(focus)]
    camera = lens.camera if field else dataclasses.replace(lens.camera, field=None)
    if not field:
        spread = float(np.log(lens.field.openness(lens.size, camera.cx_px, camera.cy_px)).std())
        camera = dataclasses.replace(camera, aperture_sigma=math.hypot(camera.aperture_sigma, spread))
    stack = FocalStack(
        np.stack([images[i] for i in known]),
        np.array([told[i][0] for i in known]),
        camera,
        magnification=np.array([lens.magnification_of(shots[i].raw, shots[i].direction) for i in known]),
        focus_sigma_diopters=np.array([told[i][1] for i in known]),
    )
    return stack, [shots[i] for i in known]


def measured(stack: FocalStack, shots: Sequence[Shot], lens: BenchLens, pose: Any, config: Config) -> PlaneResult:
    """Estimate depth of a plane, and compare it with the plane."""
    result = DepthEstimator(config).estimate(stack, sharpen=False)
    height, width = lens.size
    u, v = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
    truth = plane_maps(lens, pose, shots[result.report["alignment"]["reference"]], u, v)[2]
    known = np.isfinite(result.depth_m)
    inner = np.zeros_like(known)
    rows, columns = (round(_BORDER * n) for n in lens.size)
    inner[rows:-rows, columns:-columns] = True
    share = float(known[inner].mean())
    known &= inner
    if not known.any():
        return PlaneResult(math.nan, math.nan, math.nan, math.nan, math.nan, math.nan, math.nan, 0.0)
    error = (result.depth_m - truth)[known]
    pull = np.abs(error) / result.sigma_m[known]
    diopters = 1 / result.depth_m[known] - 1 / truth[known]
    return PlaneResult(
        float(np.median(np.abs(error) / truth[known])),
        float(np.median(np.abs(diopters))),
        float(np.median(diopters)),
        float(np.median(result.sigma_m[known] / result.depth_m[known])),
        float((pull <= 1).mean()),
        float((pull <= 2).mean()),
        float(np.percentile(pull, 68)),
        share,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.lens_depth",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--lenses", type=int, default=10, help="number of random lenses (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="seed of the first lens (default: %(default)s)")
    parser.add_argument("--positions", type=int, default=11, help="lens positions of a sweep (default: %(default)s)")
    parser.add_argument("--size", default="480x360", help="size of the images, WxH (default: %(default)s)")
    parser.add_argument("--lens", choices=("both", "true", "calibrated"), default="both")
    parser.add_argument("--without-field", action="store_true", help="focal surface flat, aperture even")
    parser.add_argument("--keep", type=Path, help="folder that keeps images and calibrations")
    add_config_arguments(parser)
    args = parser.parse_args(arguments)
    width, height = (int(n) for n in args.size.split("x"))
    config = config_from_arguments(args)
    kinds = ("true", "calibrated") if args.lens == "both" else (args.lens,)
    results: dict[str, list[PlaneResult]] = {kind: [] for kind in kinds}
    print("lens kind        distance  median error  signed    sigma  within 1, 2 sigma  pull  pixels")
    for seed in range(args.first, args.first + args.lenses):
        lens = random_lens(seed, (height, width))
        planes = [kept_plane(lens, distance, args.positions, seed, args.keep) for distance in DISTANCES_M]
        for kind in kinds:
            of = (
                true_calibration(lens)
                if kind == "true"
                else kept_calibration(lens, seed, _POSES, args.positions, args.keep)[0]
            )
            for distance, (images, shots, pose) in zip(DISTANCES_M, planes, strict=True):
                stack, kept = described(list(images), shots, of, not args.without_field)
                found = measured(stack, kept, lens, pose, config)
                results[kind].append(found)
                print(
                    f"{seed:4d} {kind:10s} {distance:7.2f} m  {100 * found.relative:5.2f} % {found.diopters:.3f} D"
                    f" {found.signed:+.3f} {100 * found.sigma:7.2f} %  {found.within_one:5.2f} {found.within_two:5.2f}"
                    f" {found.pull:9.2f} {found.share:7.2f}  {'pass' if found.passed else 'over'}",
                    flush=True,
                )
    for kind, found_ones in results.items():
        passed = sum(found.passed for found in found_ones)
        one, two = (np.nanmean([getattr(f, name) for f in found_ones]) for name in ("within_one", "within_two"))
        pulls = math.sqrt(np.nanmean([found.pull**2 for found in found_ones]))
        print(
            f"{kind}: {passed} of {len(found_ones)} planes pass; within 1 sigma {one:.2f}, 2 sigma {two:.2f}; "
            f"pulls, rms: {pulls:.2f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
