"""Check of a calibrated lens: depth that was estimated of a board against the board's pose.

The markers of all images of a stack give one pose of the board (perspective-n-point, with the calibrated intrinsics at
the focus of each image). Every pixel within the board then has a depth by the plane of that pose, which the depth of
the pipeline is compared with; the pose comes from geometry alone, the depth from blur.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dfs_ros.calibration.board import Board
from dfs_ros.calibration.lens.detection import Markers, find_markers
from dfs_ros.lens.calibration import LensCalibration
from dfs_ros.optics.pinhole import Intrinsics, intrinsics
from dfs_ros.types import FocalStack

_WHOLE = 0.5  # least share of the board's corners that lie in the image
_MOVED_PX, _MOVED_SHARE = 2.0, 0.004  # median distance of an image's markers from the pose, beside that of all
_OFF_PX, _OFF_SHARE = 2.5, 0.004  # median distance of all markers from the pose
_SCALES = np.geomspace(0.5, 2.0, 57)
_OTHER_SCALE = 1.08  # focal length over the calibrated one, from which the camera is another
_OTHER_MISFIT = 1.5
_LEAST_SHARE = 0.1  # of the board's pixels that have depth
_SIGMAS = 2.0
_INSIDE = 0.25  # of a square: margin within the outline, where no background is near
_ALIKE = 0.25  # spread of the ratio to the pose, over its distance from 1: all depths are off by one factor

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BoardView:
    """Pose of a board in the camera's optical frame: rotation vector and translation of its origin in metres."""

    rotation: Array
    translation_m: Array
    images: int
    error_px: float


@dataclass(frozen=True)
class CheckResult:
    """Depth of a board against its pose, over its pixels.

    `distance_m`: median depth by the pose; `error_m`: median of depth less pose, `absolute_m` of its size; `sigmas`:
    median of the error over the stated standard deviation; `within_one`: share of pixels within one of them; `share`:
    share of the board's pixels that have depth; `slope`: change of depth over that of the pose across the board, NaN if
    the board is not tilted; `ratio`, `ratio_spread`: median of depth over pose, and half the range of its middle half.
    NaN if hardly a pixel has depth.
    """

    distance_m: float
    error_m: float
    absolute_m: float
    sigmas: float
    within_one: float
    share: float
    slope: float
    ratio: float
    ratio_spread: float
    tolerance: float

    @property
    def known(self) -> bool:
        """True if enough pixels have depth."""
        return self.share >= _LEAST_SHARE

    def report(self) -> dict[str, Any]:
        """Plain values for JSON, unknown ones None."""
        values = {k: None if v != v else v for k, v in dataclasses.asdict(self).items()}
        return {**values, "passed": not self.fault, "fault": self.fault}

    @property
    def fault(self) -> str:
        """Reason why the check fails; empty if it passes."""
        if not self.known:
            return (
                f"only {100 * self.share:.0f} % of the board's pixels have depth: sweep the focus across its distance "
                f"of {self.distance_m:.2f} m, in 5 positions or more, in good light"
            )
        off = abs(self.error_m) / self.distance_m
        if off > self.tolerance:
            text = f"depth is off by {100 * off:.1f} %, over the tolerance of {100 * self.tolerance:g} %"
            if self.ratio_spread < _ALIKE * abs(self.ratio - 1.0):
                text += (
                    f"; everywhere by the factor {self.ratio:.3f}: is square_m, as printed, right, and was it for the "
                    "calibration?"
                )
            return text
        if abs(self.sigmas) > _SIGMAS:
            return (
                f"depth is off by {abs(self.sigmas):.1f} of its standard deviations: within the tolerance, but the "
                "calibration doubts itself too little"
            )
        return ""


def view_of(stack: FocalStack, names: Sequence[str], lens: LensCalibration, board: Board) -> BoardView:
    """Pose of the board in a stack, whose camera is that of the calibration; `names` of its images for errors.

    Raises ValueError if the board is not found, moves, or is not seen as the calibration has it.
    """
    images = stack.images if stack.images.ndim == 3 else [cv2.cvtColor(i, cv2.COLOR_RGB2GRAY) for i in stack.images]
    found = [(i, m) for i, image in enumerate(images) if len(m := find_markers(np.asarray(image, np.uint8), board))]
    scales = [
        float(told) if not math.isnan(told) else intrinsics(stack.camera, stack.size, focus).fx / stack.camera.fx_px
        for told, focus in zip(stack.magnification, stack.focus_diopters, strict=True)
    ]
    if not found:
        raise ValueError(
            f"the board was found in none of {len(stack)} images: check --board (rows, columns, dictionary, legacy), "
            "light and glare; two markers at least must be sharp and wholly seen"
        )
    _check_focal_length(found, scales, lens)
    size = math.hypot(*lens.size)
    rays = [_rays(markers, scales[i], lens) for i, markers in found]
    points = np.concatenate([np.c_[markers.board_m, np.zeros(len(markers))] for _, markers in found])
    best = max(range(len(found)), key=lambda i: len(found[i][1]))
    rotation, translation = _flat_pose(found[best][1].board_m, rays[best])
    fx = lens["fx_px"]
    for _ in range(2):  # the second time without outliers
        error = _errors(points, np.concatenate(rays), rotation, translation) * fx
        kept = error <= max(4.0 * float(np.median(error)), 1.0)
        refined = cv2.solvePnPRefineLM(
            points[kept], np.concatenate(rays)[kept], np.eye(3), np.zeros(4), rotation, translation
        )
        rotation, translation = (np.asarray(part, np.float64) for part in refined)
    error = _errors(points, np.concatenate(rays), rotation, translation) * fx
    typical = float(np.median(error))
    if typical > max(_OFF_PX, _OFF_SHARE * size):
        raise ValueError(
            f"the board's corners lie {typical:.1f} px from a flat board as --board says: is it flat, are square_m and "
            "marker_m right, is the calibration of this camera, and does the board stand still?"
        )
    each = np.split(error, np.cumsum([len(markers) for _, markers in found])[:-1])
    moved = [names[i] for (i, _), e in zip(found, each, strict=True) if np.median(e) > _allowed(typical, size)]
    if moved:
        listed = ", ".join(moved[:5]) + (", ..." if len(moved) > 5 else "")
        raise ValueError(
            f"the board is elsewhere in {len(moved)} of {len(found)} images than in the others ({listed}): camera and "
            "board must stand still in a sweep"
        )
    view = BoardView(np.ravel(rotation), np.ravel(translation), len(found), typical)
    _check_whole(view, lens, board)
    return view


def check_depth(
    depth_m: NDArray[np.floating],
    sigma_m: NDArray[np.floating],
    pinhole: Intrinsics,
    lens: LensCalibration,
    view: BoardView,
    board: Board,
    tolerance: float,
) -> CheckResult:
    """Compare depth and its standard deviation (H, W), of images with intrinsics `pinhole`, with the board's plane.

    `tolerance`: largest median error, of the distance.
    """
    plane_m, inside = board_plane(depth_m.shape, pinhole, lens, view, board)
    known = inside & np.isfinite(depth_m) & np.isfinite(sigma_m)
    distance = float(np.median(plane_m[inside]))
    share = float(known.sum() / inside.sum())
    if share < _LEAST_SHARE:
        nothing = dict.fromkeys(
            ("error_m", "absolute_m", "sigmas", "within_one", "slope", "ratio", "ratio_spread"), math.nan
        )
        return CheckResult(distance_m=distance, share=share, tolerance=tolerance, **nothing)
    error, ratio = (depth_m - plane_m)[known], (depth_m / plane_m)[known]
    pulls = error / np.maximum(sigma_m[known], 1e-9)
    plane = plane_m[known]
    spread = float(plane.std())
    slope = float(np.polyfit(plane, depth_m[known], 1)[0]) if spread > 0.01 * distance else math.nan
    low, middle, high = np.percentile(ratio, [25, 50, 75])
    return CheckResult(
        distance, float(np.median(error)), float(np.median(np.abs(error))), float(np.median(pulls)),
        float((np.abs(pulls) <= 1.0).mean()), share, slope, float(middle), float(high - low) / 2, tolerance,
    )  # fmt: skip


def board_plane(
    size: tuple[int, ...], pinhole: Intrinsics, lens: LensCalibration, view: BoardView, board: Board
) -> tuple[Array, NDArray[np.bool_]]:
    """Depth [m] of the board's plane at every pixel (H, W), and the pixels within the board."""
    height, width = size[:2]
    turn = cv2.Rodrigues(view.rotation)[0]
    camera = np.array([[pinhole.fx, 0, pinhole.cx], [0, pinhole.fy, pinhole.cy], [0, 0, 1]])
    u, v = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
    rays = cv2.undistortPoints(np.stack([u, v], -1).reshape(-1, 1, 2), camera, _distortion(lens)).reshape(-1, 2)
    directions = np.c_[rays, np.ones(len(rays))]
    normal = turn[:, 2]
    facing = directions @ normal
    z = np.where(np.abs(facing) > 1e-6, (normal @ view.translation_m) / np.where(facing == 0, 1.0, facing), math.nan)
    on_board = (directions * z[:, None] - view.translation_m) @ turn
    margin = _INSIDE * board.square_m
    board_height, board_width = board.size_m
    x, y = on_board[:, 0], on_board[:, 1]
    inside = (z > 0) & (x > margin) & (x < board_width - margin) & (y > margin) & (y < board_height - margin)
    return z.reshape(height, width), inside.reshape(height, width)


def _check_whole(view: BoardView, lens: LensCalibration, board: Board) -> None:
    """Raise ValueError if much of the board lies outside of the image."""
    points = np.c_[board.corners_m, np.zeros(len(board.corners_m))]
    camera = np.array([[lens["fx_px"], 0, lens["cx_px"]], [0, lens["fx_px"], lens["cy_px"]], [0, 0, 1]])
    corners, _ = cv2.projectPoints(points, view.rotation, view.translation_m, camera, _distortion(lens))
    x, y = np.reshape(np.asarray(corners, np.float64), (-1, 2)).T
    seen = (x >= 0) & (x <= lens.size[1] - 1.0) & (y >= 0) & (y <= lens.size[0] - 1.0)
    if seen.mean() < _WHOLE:
        raise ValueError(
            f"the board is only half seen: {int((~seen).sum())} of {seen.size} corners lie outside of the image; show "
            "it whole, or take it farther away"
        )


def _allowed(typical: float, size: float) -> float:
    return 2.0 * typical + max(_MOVED_PX, _MOVED_SHARE * size)


def _distortion(lens: LensCalibration) -> Array:
    return np.array([lens["k1"], lens["k2"], 0.0, 0.0])


def _rays(markers: Markers, scale: float, lens: LensCalibration) -> Array:
    """Undistorted directions (N, 2) of markers, at z = 1."""
    camera = lens.camera
    matrix = np.array([[camera.fx_px * scale, 0, camera.cx_px], [0, camera.fy_px * scale, camera.cy_px], [0, 0, 1]])
    return np.asarray(cv2.undistortPoints(markers.image_px[:, None], matrix, _distortion(lens)).reshape(-1, 2))


def _flat_pose(board_m: Array, rays: Array) -> tuple[Array, Array]:
    _, turns, moves, errors = cv2.solvePnPGeneric(
        np.c_[board_m, np.zeros(len(board_m))], rays, np.eye(3), None, flags=cv2.SOLVEPNP_IPPE
    )
    best = int(np.argmin(errors))
    return np.asarray(turns[best], np.float64), np.asarray(moves[best], np.float64)


def _errors(points: Array, rays: Array, rotation: Array, translation: Array) -> Array:
    """Distance (N,) of predicted from seen directions, at z = 1."""
    predicted, _ = cv2.projectPoints(points, rotation, translation, np.eye(3), np.zeros(4))
    return np.asarray(np.linalg.norm(predicted.reshape(-1, 2) - rays, axis=1))


def _check_focal_length(found: list[tuple[int, Markers]], scales: Sequence[float], lens: LensCalibration) -> None:
    """Raise ValueError if the board's perspective needs another focal length than the calibrated one."""
    i, markers = max(found, key=lambda pair: len(pair[1]))
    points = np.c_[markers.board_m, np.zeros(len(markers))]

    def misfit(factor: float) -> float:
        rays = _rays(markers, scales[i] * factor, lens)
        rotation, translation = _flat_pose(markers.board_m, rays)
        return float(np.sqrt(np.mean(_errors(points, rays, rotation, translation) ** 2))) * lens["fx_px"] * factor

    given = misfit(1.0)
    factor = min(_SCALES, key=misfit)
    if not 1 / _OTHER_SCALE <= factor <= _OTHER_SCALE and given > _OTHER_MISFIT * misfit(factor) + 0.3:
        raise ValueError(
            f"the perspective of the board needs a focal length of about {lens['fx_px'] * factor:.0f} px, the "
            f"calibration says {lens['fx_px']:.0f}: is it of this camera, at this zoom?"
        )
