"""Markers of a board in images of any focus, and the images that show it at one pose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dfs_ros.calibration.board import Board

_ENOUGH = 0.5  # share of the markers, with which the image need not be enlarged
_ENLARGED_PIXELS = 3.0e6
_MOST_ENLARGED = 3.0
_UNSHARP_PX, _UNSHARP = 2.0, 1.5  # of the enlarged image
_INLIER_SHARE = 0.012  # of the diagonal, from a homography: distortion stays within
_LEAST_MARKERS = 2
_MOVED_PX, _MOVED_SHARE = 2.0, 0.004  # median motion between images of one pose, beside a change of scale
_SIZED_MARKERS = 4
_SIZES = np.geomspace(0.6, 1.7, 54)  # of a marker over its described size
_OTHER_SIZE, _BETTER = 0.04, 0.7
_OTHER_SIZE_PX = 1.0  # of half a side: blur and threshold move the corners of found markers by up to 0.8 px

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Markers:
    """Corners of markers found in an image: places on the board [m] and in the image [px], (N, 2) each."""

    board_m: Array
    image_px: Array

    def __len__(self) -> int:
        return len(self.board_m)


def find_markers(grey: NDArray[np.uint8], board: Board) -> Markers:
    """Corners of the markers that a homography explains; none if fewer than two markers agree.

    Blurred markers are found in an enlarged and sharpened image.
    """
    found = _detected(grey, board, 1.0)
    if len(found) < _ENOUGH * 4 * board.marker_count:
        factor = min(_MOST_ENLARGED, np.sqrt(_ENLARGED_PIXELS / grey.size))
        if factor > 1.2:
            enlarged = cv2.resize(grey, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
            soft = cv2.GaussianBlur(enlarged, (0, 0), _UNSHARP_PX)
            sharpened = cv2.addWeighted(enlarged, 1.0 + _UNSHARP, soft, -_UNSHARP, 0.0)
            found = max(found, _detected(np.asarray(sharpened, np.uint8), board, factor), key=len)
    return found if len(found) >= 4 * _LEAST_MARKERS else Markers(np.zeros((0, 2)), np.zeros((0, 2)))


def _detected(grey: NDArray[np.uint8], board: Board, factor: float) -> Markers:
    parameters = cv2.aruco.DetectorParameters()
    parameters.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
    detector = cv2.aruco.ArucoDetector(board.pattern.getDictionary(), parameters)
    corners, ids, _ = detector.detectMarkers(grey)
    known = [(int(i), c) for i, c in zip(np.ravel(ids) if ids is not None else (), corners, strict=True)]
    known = [(i, c) for i, c in known if i < board.marker_count]
    if len(known) < _LEAST_MARKERS:
        return Markers(np.zeros((0, 2)), np.zeros((0, 2)))
    board_m = np.concatenate([board.marker_corners_m[i] for i, _ in known])
    image_px = np.concatenate([c.reshape(4, 2) for _, c in known]).astype(np.float64)
    image_px = (image_px + 0.5) / factor - 0.5
    limit = _INLIER_SHARE * float(np.hypot(*grey.shape)) / factor
    _, inliers = cv2.findHomography(board_m, image_px, cv2.RANSAC, limit)
    kept = np.ravel(inliers).astype(bool) if inliers is not None else np.zeros(len(board_m), bool)
    return Markers(board_m[kept], image_px[kept])


def check_marker_size(found: list[Markers], board: Board) -> None:
    """Raise ValueError if the markers of the image that shows most are of another size, in squares, than the board's.

    The scale of squares and markers together cannot be seen in images.
    """
    best = max(found, key=len)
    if len(best) < 4 * _SIZED_MARKERS:
        return
    centres = board.marker_corners_m.mean(1)
    own = centres[np.argmin(np.linalg.norm(best.board_m[:, None] - centres, axis=2), axis=1)]

    def seen(points: Array, matrix: Any) -> Array:
        if matrix is None:
            return np.full_like(points, np.inf)
        return np.asarray(cv2.perspectiveTransform(points[:, None], matrix)[:, 0], np.float64)

    def misfit(factor: float) -> float:
        points = own + factor * (best.board_m - own)
        matrix, _ = cv2.findHomography(points, best.image_px)
        return float(np.sqrt(np.mean((seen(points, matrix) - best.image_px) ** 2)))

    factor = min(_SIZES, key=misfit)
    half_px = np.linalg.norm(
        best.image_px - seen(own, cv2.findHomography(best.board_m, best.image_px)[0]), axis=1
    ).mean()
    least = max(_OTHER_SIZE, _OTHER_SIZE_PX * np.sqrt(2.0) / float(half_px))
    if abs(factor - 1.0) > least and misfit(factor) < _BETTER * misfit(1.0):
        told = board.marker_m / board.square_m
        raise ValueError(
            f"the markers measure about {factor * told:.2f} of a square in the images, {told:.2f} by --board: check "
            "square_m and marker_m with a ruler"
        )


def poses_of(found: list[Markers], sweeps: list[int | None], size: tuple[int, int]) -> list[int | None]:
    """Number of the pose of each image, by its place in the series; None = not known.

    A new pose begins with another number in `sweeps`, or where that is None with an image in which the board has moved
    in another way than by a change of scale. An image without markers belongs to the pose of both its neighbours.
    """
    poses: list[int | None] = []
    last: Markers | None = None
    numbers: dict[int, int] = {}
    pose = -1
    for markers, sweep in zip(found, sweeps, strict=True):
        if sweep is not None:
            poses.append(numbers.setdefault(sweep, len(numbers)))
            continue
        if not len(markers):
            poses.append(None)
            continue
        if last is None or moved(last, markers, size):
            pose += 1
        last = markers
        poses.append(pose)
    for i, known in enumerate(poses):
        if known is None:
            before = next((p for p in reversed(poses[:i]) if p is not None), None)
            after = next((p for p in poses[i:] if p is not None), None)
            poses[i] = before if before == after or after is None else (after if before is None else None)
    return poses


def moved(one: Markers, other: Markers, size: tuple[int, int]) -> bool:
    """Whether common corners moved otherwise than away from the centre of the image."""
    places = {tuple(np.round(p, 6)): q for p, q in zip(one.board_m, one.image_px, strict=True)}
    pairs = [
        (places[key], q)
        for p, q in zip(other.board_m, other.image_px, strict=True)
        if (key := tuple(np.round(p, 6))) in places
    ]
    if not pairs:
        return True
    a, b = (np.array(side) - (np.array(size[::-1]) - 1) / 2 for side in zip(*pairs, strict=True))
    scale = float((a * b).sum() / (a * a).sum())
    motion_px = float(np.median(np.linalg.norm(b - scale * a, axis=1)))
    return motion_px > max(_MOVED_PX, _MOVED_SHARE * float(np.hypot(*size))) or not 0.8 < scale < 1.25
