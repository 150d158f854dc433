"""Lens of a camera from images of a board at many focus positions, by least squares on their pixels.

Markers give poses and intrinsics (bundle adjustment, one pose for all images in which the board stands still). Then
every corner is predicted in every image, also where no marker can be read, rendered there and compared with the pixels,
and all parameters are adjusted together: Gauss-Newton on windows around the corners (see `patches`), whose covariance
is clustered (see `adjust`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dfs_ros.calibration.board import Board
from dfs_ros.calibration.lens.adjust import Misfit, Prior, adjust, normal, stated_prior, temper_of, tempered_covariance
from dfs_ros.calibration.lens.detection import Markers, check_marker_size, find_markers, poses_of
from dfs_ros.calibration.lens.evaluation import evaluation
from dfs_ros.calibration.lens.model import (
    COLUMNS,
    INDEX,
    LATE,
    NAMES,
    Array,
    Observations,
    RawScale,
    depths,
    predict,
)
from dfs_ros.calibration.lens.patches import Patches, own_step
from dfs_ros.optics.srgb import linear_table

LEAST_POSITIONS = 5
"""Fewest lens positions of a calibration."""

_MARKER_PX = 0.3  # nominal error of a corner of a marker
_MOVED_PX = 4.0  # median distance of an image's markers from the pose of its sweep
_WHOLE = 0.6  # of the corners
_MOST_MOVED = 0.2  # share of the images
_BLUR_GRID_PX = (0.0, 1.0, 2.0, 3.0, 4.5, 6.0, 8.0, 10.5, 13.5)
_MOST_FIRST = 1200  # windows for the first guess of the focus scale
_FIRST_SOFTNESS_PX2 = 0.3
_LEAST_APERTURE_M = 1e-5
_LEAST_SPREAD = 0.15  # dioptres between corners, from which the focus scale has a direction
_SMALL = ("breathing2", "focus2", "curvature", "tilt_x", "tilt_y", "vignetting", "softness_edge_px2", "hysteresis")
_NUDGE_DIOPTERS = 1e-5
_MOVES = 3.0  # standard deviations
_DETERMINED = 0.5  # posterior over prior standard deviation
_NEEDED = {
    "log_fx": 0.02,
    "focus0": 0.15,
    "focus1": 0.15,
    "log_aperture": 0.1,
}  # standard deviation for depth to be of use

_OWN = {
    "sharpening": (0.05, "by the camera, of what a blur of 1 px takes off"),
    "tone": (0.03, "bend of the camera's curve between black and white"),
    "ink_mm": (0.02, "by which the print's black has spread at every edge"),
}
"""What camera and print do, with the least that is worth naming."""

Progress = Callable[[str, float], None]


@dataclass(frozen=True, eq=False)
class LensFit:
    """Result of :func:`fit_lens`.

    `lens` (22,) by NAMES with its `covariance` (22, 22); `undetermined`: parameters that stayed near their prior, or
    are known too badly for depth; `poses` (P, 6) of the board; `distances_m` (nearest, farthest) of its corners;
    `images` that were used; `temper`: factor by which windows understate the variance of their misfit; `measured`
    (N, 6) of the windows: raw position normalised, u, v [px], defocus by the fit [D], squared blur by the fit and by
    the window alone [px^2].
    """

    lens: Array
    covariance: Array
    poses: Array
    raw: RawScale
    size: tuple[int, int]
    distances_m: tuple[float, float]
    images: int
    windows: int
    temper: float
    undetermined: tuple[str, ...]
    measured: Array

    @property
    def processing(self) -> list[tuple[str, str, float, float]]:
        """Name, explanation, value and standard deviation of what camera and print show of their own."""
        sigma = np.sqrt(np.diag(self.covariance))
        rows = [
            (name, of, float(self.lens[INDEX[name]]), float(sigma[INDEX[name]]), least)
            for name, (least, of) in _OWN.items()
        ]
        return [row[:4] for row in rows if abs(row[2]) > max(_MOVES * row[3], row[4])]


def fit_lens(
    images: Sequence[NDArray[np.uint8]],
    names: Sequence[str],
    raws: Sequence[float],
    directions: Sequence[int],
    sweeps: Sequence[int | None],
    board: Board,
    progress: Progress = lambda stage, share: None,
    corners: Sequence[int] | None = None,
) -> LensFit:
    """Fit a lens.

    Parameters
    ----------
    images
        Grey images (H, W) of one size, sRGB, in the order in which they were taken.
    names
        Names of the images for errors.
    raws, directions
        Raw lens positions, and the direction from which each was reached: 1 up, -1 down, 0 unknown.
    sweeps
        Number of the sweep in which an image was taken, in which the board stands still; None = found by the images.
    corners
        Indices of the board's corners whose blur counts; None = all.

    Raises ValueError if the images cannot tell: says what is missing.
    """
    _check(images, names, raws)
    size = (images[0].shape[0], images[0].shape[1])
    low, high = min(raws), max(raws)
    raw = RawScale((low + high) / 2, (high - low) / 2)
    if len(known := set(directions) - {0}) == 1:  # hysteresis shows between two directions alone, not beside unknown
        directions = list(known) * len(images)
    found = []
    for i, image in enumerate(images):
        found.append(find_markers(image, board))
        progress("finding markers", (i + 1) / len(images))
    check_marker_size(found, board)
    pose_of = poses_of(found, list(sweeps), size)
    lens, poses, pose_of = _bundle(found, pose_of, names, raw.normalised(np.array(raws)), directions, size, progress)
    used = [i for i, pose in enumerate(pose_of) if pose is not None]
    board_m = board.corners_m if corners is None else board.corners_m[list(corners)]
    each = len(board_m)
    seen = Observations(
        np.repeat(np.arange(len(used)), each),
        np.repeat([pose_of[i] for i in used], each).astype(np.intp),
        np.tile(board_m, (len(used), 1)),
        np.repeat(raw.normalised(np.array([raws[i] for i in used])), each),
        np.repeat(np.array([directions[i] for i in used], np.float64), each),
    )
    _check_whole(predict(lens, poses, seen, size)[:, :2], seen.pose, size)
    table = linear_table("srgb").astype(np.float32)
    linear = [table[images[i]] for i in used]
    return _adjusted(linear, board, seen, lens, poses, raw, size, progress)


def _check(images: Sequence[NDArray[np.uint8]], names: Sequence[str], raws: Sequence[float]) -> None:
    count = len(set(raws))
    if count < LEAST_POSITIONS:
        raise ValueError(f"expected images at {LEAST_POSITIONS} or more lens positions, received {count}")
    for image, name in zip(images, names, strict=True):
        if image.shape != images[0].shape:
            raise ValueError(
                f"{name}: expected {images[0].shape[1]} x {images[0].shape[0]} pixels as {names[0]}, received "
                f"{image.shape[1]} x {image.shape[0]}: is it of another camera?"
            )


def _bundle(
    found: list[Markers],
    pose_of: list[int | None],
    names: Sequence[str],
    position: Array,
    directions: Sequence[int],
    size: tuple[int, int],
    progress: Progress,
) -> tuple[Array, Array, list[int | None]]:
    """Intrinsics, poses and breathing from the markers; the pose of each image, renumbered."""
    numbers: dict[int, int] = {}
    for markers, pose in zip(found, pose_of, strict=True):
        if len(markers) and pose is not None:
            numbers.setdefault(pose, len(numbers))
    if not numbers:
        raise ValueError(
            f"the board was found in none of {len(found)} images: check --board (rows, columns, dictionary, legacy), "
            "light and glare; two markers at least must be sharp and wholly seen"
        )
    pose_of = [None if pose is None else numbers.get(pose) for pose in pose_of]
    rows = [(i, pose) for i, pose in enumerate(pose_of) if pose is not None and len(found[i])]
    seen = Observations(
        np.concatenate([np.full(len(found[i]), i) for i, _ in rows]),
        np.concatenate([np.full(len(found[i]), pose) for i, pose in rows]).astype(np.intp),
        np.concatenate([found[i].board_m for i, _ in rows]),
        np.concatenate([np.full(len(found[i]), position[i]) for i, _ in rows]),
        np.concatenate([np.full(len(found[i]), float(directions[i])) for i, _ in rows]),
    )
    observed = np.concatenate([found[i].image_px for i, _ in rows])
    prior = stated_prior(size)
    lens, poses = _first_poses(found, pose_of, prior, size)
    weights = np.ones(len(seen))

    def evaluate(lens: Array, poses: Array) -> Misfit:
        residual = observed - predict(lens, poses, seen, size)[:, :2]
        information, score = np.zeros((len(seen), COLUMNS, COLUMNS)), np.zeros((len(seen), COLUMNS))
        weight = weights / _MARKER_PX**2
        information[:, 0, 0] = information[:, 1, 1] = weight
        score[:, :2] = weight[:, None] * residual
        return Misfit(float((weight * (residual**2).sum(1)).sum()), information, score)

    blur = NAMES[INDEX["focus0"] :]
    for loss in range(3):  # plain first: a robust loss from a crude start stalls
        lens, poses = adjust(lens, poses, seen, size, prior, evaluate, 30, fixed=blur)
        distance = np.linalg.norm(observed - predict(lens, poses, seen, size)[:, :2], axis=1)
        weights = np.minimum(1.0, 2.5 * max(float(np.median(distance)), 0.05) / np.maximum(distance, 1e-9))
        progress("finding poses", (loss + 1) / 3)
    off = [i for i, _ in rows if np.median(distance[seen.image == i]) > _MOVED_PX]
    if len(off) > _MOST_MOVED * len(rows):
        listed = ", ".join(names[i] for i in off[:5]) + (", ..." if len(off) > 5 else "")
        raise ValueError(
            f"in {len(off)} of {len(rows)} images the board is not where the others of its sweep have it ({listed}): "
            "camera and board must stand still in a sweep, and the board must be flat and as --board says"
        )
    return lens, poses, [None if i in off else pose for i, pose in enumerate(pose_of)]


def _check_whole(corners_px: Array, pose: NDArray[np.intp], size: tuple[int, int]) -> None:
    """Raise ValueError if no pose shows most of the board's corners, at `corners_px` (N, 2), within the image."""
    inside = ((corners_px >= 0) & (corners_px <= np.array(size[::-1]) - 1.0)).all(1)
    share = float((np.bincount(pose, inside) / np.bincount(pose)).max())
    if share < _WHOLE:
        raise ValueError(
            f"the board is only half seen: at most {100 * share:.0f} % of its corners lie within the image; show it "
            "whole, in one pose at least, or take it farther away"
        )


def _first_poses(
    found: list[Markers], pose_of: list[int | None], prior: Prior, size: tuple[int, int]
) -> tuple[Array, Array]:
    """Lens with the focal length of least misfit among several, and the poses for it."""
    count = 1 + max(pose for pose in pose_of if pose is not None)
    best = [max((m for m, p in zip(found, pose_of, strict=True) if p == pose), key=len) for pose in range(count)]
    results = []
    for step in np.linspace(-2.5, 2.5, 21):
        log_fx = prior.mean[0] + step * prior.sigma[0]
        camera = np.array([[np.exp(log_fx), 0, prior.mean[1]], [0, np.exp(log_fx), prior.mean[2]], [0, 0, 1]])
        cost, poses = step**2, []
        for markers in best:
            board_m = np.c_[markers.board_m, np.zeros(len(markers))]
            _, turns, moves, errors = cv2.solvePnPGeneric(
                board_m, markers.image_px, camera, None, flags=cv2.SOLVEPNP_IPPE
            )
            cost += len(markers) * float(np.min(errors) / _MARKER_PX) ** 2
            chosen = int(np.argmin(errors))
            poses.append(np.r_[turns[chosen].ravel(), moves[chosen].ravel()])
        results.append((cost, log_fx, np.array(poses)))
    _, log_fx, poses_first = min(results, key=lambda result: result[0])
    lens = prior.mean.copy()
    lens[INDEX["log_fx"]] = log_fx
    return lens, poses_first


def _adjusted(
    images: list[NDArray[np.float32]],
    board: Board,
    seen: Observations,
    lens: Array,
    poses: Array,
    raw: RawScale,
    size: tuple[int, int],
    progress: Progress,
) -> LensFit:
    prior = stated_prior(size)
    near, far = np.percentile(1.0 / depths(poses, seen), [98.0, 2.0])
    if near - far < _LEAST_SPREAD:
        raise ValueError(
            f"all corners of the board are {1 / near:.2f} to {1 / far:.2f} m away: tilt it more, and show it at two "
            "distances at least, better three (near, middle, far)"
        )
    lens = _first_focus(images, board, seen, lens, poses, prior, size)
    temper = 1.0
    stages = ((6, (*_SMALL, *LATE)), (8, LATE), (6, ()), (4, ()))
    total, done = sum(count for count, _ in stages), 0
    for stage, (iterations, fixed) in enumerate(stages):
        patches = Patches(images, board, seen, lens, poses, late=not set(LATE) <= set(fixed))
        if not len(patches.seen):
            raise ValueError("no corner of the board is sharp enough and wholly seen in any image")
        evaluate = evaluation(patches, lens, poses, temper, temper)

        def advanced(first: int = done) -> None:
            nonlocal done
            done = max(done, first) + 1
            progress("fitting the lens", min(done / total, 1.0))

        lens, poses = adjust(lens, poses, patches.seen, size, prior, evaluate, iterations, fixed, advanced)
        done = sum(count for count, _ in stages[: stage + 1])
        if stage >= 1:
            of_blur = evaluation(patches, lens, poses, math.inf, 1.0)(lens, poses)
            temper = temper_of(normal(lens, poses, patches.seen, size, of_blur), patches.seen, prior)
            of_all = evaluation(patches, lens, poses, temper, 1.0)(lens, poses)
            equations = normal(lens, poses, patches.seen, size, of_all)
            covariance = tempered_covariance(equations, patches.seen, prior, temper)
    progress("fitting the lens", 1.0)
    z = depths(poses, patches.seen)
    count = len(NAMES)
    covariance = covariance[:count, :count]
    sigma = np.sqrt(np.diag(covariance))
    needed = [min(_DETERMINED * s, _NEEDED.get(name, s)) for name, s in zip(NAMES, prior.sigma, strict=True)]
    undetermined = tuple(name for name, s, most in zip(NAMES, sigma, needed, strict=True) if s > most)
    fit = LensFit(
        lens, covariance, poses, raw, size, (float(z.min()), float(z.max())), len(np.unique(patches.seen.image)),
        len(patches.seen), temper, undetermined, _measured(patches, lens, poses),
    )  # fmt: skip
    # Of the blur, all else given: the scale of focus and aperture together may be open, with one pose.
    slope, own = lens[INDEX["focus1"]], INDEX["focus1"]
    doubt = float(np.sqrt(temper / max(equations.hessian[own, own], 1e-12)))
    if abs(slope) < _MOVES * doubt:
        raise ValueError(
            f"the focus does not follow the lens position: {slope:.2f} +- {doubt:.2f} dioptres over half its range; "
            "does the lens move (autofocus off), and do the file names belong to these positions?"
        )
    return fit


def _measured(patches: Patches, lens: Array, poses: Array) -> Array:
    """Windows as LensFit has them, (N, 6)."""
    seen = patches.seen
    place = predict(lens, poses, seen, patches.size)
    local = patches.local(place)
    step = own_step(local.information, local.score)[:, 2]
    nudged = lens.copy()
    nudged[INDEX["focus0"]] += _NUDGE_DIOPTERS
    slope = (np.sqrt(predict(nudged, poses, seen, patches.size)[:, 2]) - np.sqrt(place[:, 2])) / _NUDGE_DIOPTERS
    # Away from focus, blur rises or falls by the same rate with the focus: their ratio is the defocus.
    defocus = np.sqrt(place[:, 2]) / np.where(np.abs(slope) > 1e-9, slope, np.nan)
    return np.stack([seen.position, place[:, 0], place[:, 1], defocus, place[:, 2], place[:, 2] + step], 1)[local.valid]


def _first_focus(
    images: list[NDArray[np.float32]],
    board: Board,
    seen: Observations,
    lens: Array,
    poses: Array,
    prior: Prior,
    size: tuple[int, int],
) -> Array:
    """Lens with focus scale and aperture guessed from the blur that fits each window best."""
    chosen = np.linspace(0, len(seen) - 1, min(len(seen), _MOST_FIRST)).astype(np.intp)
    lens = lens.copy()
    lens[INDEX["log_aperture"]] = -20.0  # no blur: every window that lies in the image
    patches = Patches(images, board, seen.chosen(chosen), lens, poses)
    place = predict(lens, poses, patches.seen, size)
    place[:, 3] = _FIRST_SOFTNESS_PX2
    remaining = []
    for blur in _BLUR_GRID_PX:
        place[:, 2] = blur**2
        local = patches.local(place)
        shift = np.linalg.solve(local.information[:, :2, :2] + 1e-9 * np.eye(2), local.score[:, :2, None])[..., 0]
        gained = np.einsum("ni,ni->n", shift, local.score[:, :2])
        remaining.append((local.cost - gained) * local.noise**2)
    blur_px = np.array(_BLUR_GRID_PX)[np.argmin(remaining, 0)]
    e, inverse = patches.seen.position, 1.0 / depths(poses, patches.seen)
    scale = float(np.exp(lens[INDEX["log_fx"]]))
    best = (np.inf, 0.0, 0.0, 0.0)
    for slope in np.r_[-np.geomspace(20.0, 0.3, 30), np.geomspace(0.3, 20.0, 30)]:
        for sharpest in np.linspace(-1.6, 1.6, 65):
            start = float(np.median(inverse)) - slope * sharpest
            defocus = np.abs(start + slope * e - inverse)
            factor = float((blur_px * defocus).sum() / max((defocus**2).sum(), 1e-12))
            deviation = (
                np.log(max(factor / scale, _LEAST_APERTURE_M)) - prior.mean[INDEX["log_aperture"]]
            ) / prior.sigma[INDEX["log_aperture"]]
            cost = float(np.minimum(np.abs(blur_px - factor * defocus), 3.0).mean()) + 0.01 * deviation**2
            best = min(best, (cost, start, slope, np.log(max(factor / scale, _LEAST_APERTURE_M))))
    for name, value in zip(("focus0", "focus1", "log_aperture"), best[1:], strict=True):
        lens[INDEX[name]] = value
    lens[INDEX["softness_px2"]] = _FIRST_SOFTNESS_PX2
    return lens
