"""Plain visual odometry on colour and depth, without ROS: what any RGB-D SLAM does first, in little code.

Corners of a key frame with known depth are tracked into the next images (Lucas-Kanade, there and back), and the place
of the camera is that which reprojects them best (perspective-n-point with RANSAC). A new key frame follows when fewer
than `_KEPT` of the corners are left. It tells quickly what depth is worth to odometry; RTAB-Map is what counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.slam_score import Mapped
from dfs_ros.camera.source import OPTICAL_IN_BODY
from dfs_ros.messages.convert import (
    camera_info_from_message,
    depth_from_message,
    image_from_message,
)
from dfs_ros.optics.pinhole import Intrinsics, points_from_depth
from dfs_ros.transforms.rigid import IDENTITY, Transform, rotation_of

_CORNERS, _QUALITY, _APART_PX = 800, 0.002, 5
_BACK_PX = 0.5
_REPROJECTION_PX = 1.0
_KEPT = 0.6
_LEAST = 12
_MAP_STEP_VIEWS, _MAP_STEP_PX = 3, 4


class View(NamedTuple):
    """Grey image (H, W), depth (H, W) in metres, NaN = unknown, at a time."""

    stamp_ns: int
    grey: NDArray[np.uint8]
    depth_m: NDArray[np.float32]


def run(messages: Iterable[Any]) -> Mapped:
    """Odometry of views as :class:`benchmarks.slam_rtabmap.RgbdMessages`, and points of every third."""
    views, pinhole, colours = [], None, {}
    for each in messages:
        pinhole = camera_info_from_message(each.info).intrinsics
        rgb = image_from_message(each.rgb)
        depth_m = depth_from_message(each.depth)
        views.append(View(each.stamp_ns, np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8), depth_m))
        colours[each.stamp_ns] = rgb
    if pinhole is None:
        raise ValueError("odometry: expected views, received none")
    places, lost = odometry(views, pinhole)
    points, seen = [], []
    for view in views[::_MAP_STEP_VIEWS]:
        if view.stamp_ns in places:
            part = np.s_[::_MAP_STEP_PX, ::_MAP_STEP_PX]
            optical = points_from_depth(view.depth_m, pinhole)[part].reshape(-1, 3).astype(np.float64)
            known = np.isfinite(optical[:, 2])
            moved = OPTICAL_IN_BODY.after(places[view.stamp_ns])
            points.append(optical[known] @ moved.rotation.T + moved.translation_m)
            seen.append(colours[view.stamp_ns][part].reshape(-1, 3)[known])
    body = {stamp: OPTICAL_IN_BODY.after(each).after(OPTICAL_IN_BODY.inverse()) for stamp, each in places.items()}
    return Mapped(body, body, lost, np.concatenate(points), np.concatenate(seen))


def odometry(views: Iterable[View], pinhole: Intrinsics) -> tuple[dict[int, Transform], list[int]]:
    """Places of the optical frame in that of the first view, by stamp, and stamps where it was lost."""
    k = np.array([[pinhole.fx, 0, pinhole.cx], [0, pinhole.fy, pinhole.cy], [0, 0, 1.0]])
    places: dict[int, Transform] = {}
    lost: list[int] = []
    key: tuple[View, NDArray[np.float32], NDArray[np.float64], Transform] | None = None
    for view in views:
        if key is None:
            key = (view, *_corners(view, pinhole), IDENTITY)
            places[view.stamp_ns] = IDENTITY
            continue
        frame, corners, points, start = key
        found, good = _tracked(frame.grey, view.grey, corners)
        moved = _moved(points[good], found[good], k)
        if moved is None:
            lost.append(view.stamp_ns)
            key = None if not places else (view, *_corners(view, pinhole), places[max(places)])
            continue
        places[view.stamp_ns] = start.after(moved.inverse())
        if good.mean() < _KEPT:
            key = (view, *_corners(view, pinhole), places[view.stamp_ns])
    return places, lost


def _corners(view: View, pinhole: Intrinsics) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Corners (N, 1, 2) of known depth, and their points (N, 3)."""
    mask = np.isfinite(view.depth_m).astype(np.uint8)
    found: Any = cv2.goodFeaturesToTrack(view.grey, _CORNERS, _QUALITY, _APART_PX, mask=mask)
    corners = np.reshape(np.asarray([] if found is None else found, np.float32), (-1, 1, 2))
    u, v = corners[:, 0, 0], corners[:, 0, 1]
    z = view.depth_m[np.rint(v).astype(int), np.rint(u).astype(int)].astype(np.float64)
    points = np.stack([(u - pinhole.cx) / pinhole.fx * z, (v - pinhole.cy) / pinhole.fy * z, z], axis=-1)
    return corners, points


def _tracked(
    before: NDArray[np.uint8], after: NDArray[np.uint8], corners: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Places (N, 1, 2) of the corners in `after`, and whether each was found."""
    if not len(corners):
        return corners, np.zeros(0, bool)
    track: Any = cv2.calcOpticalFlowPyrLK  # its types know no call without a first guess
    found, there, _ = track(before, after, corners, None)
    again, back, _ = track(after, before, found, None)
    off = np.linalg.norm((again - corners)[:, 0], axis=1)
    return found, (there[:, 0] > 0) & (back[:, 0] > 0) & (off < _BACK_PX)


def _moved(points: NDArray[np.float64], found: NDArray[np.float32], k: NDArray[np.float64]) -> Transform | None:
    """Motion of points into the camera of the new view; None where too few agree."""
    if len(points) < _LEAST:
        return None
    pixels = found.reshape(-1, 2).astype(np.float64)
    cv2.setRNGSeed(0)
    ok, turn, way, inliers = cv2.solvePnPRansac(
        points, pixels, k, None, iterationsCount=300, reprojectionError=_REPROJECTION_PX, confidence=0.999
    )
    if not ok or inliers is None or len(inliers) < _LEAST:
        return None
    chosen = inliers[:, 0]
    turn, way = cv2.solvePnPRefineLM(points[chosen], pixels[chosen], k, None, turn, way)
    return Transform(rotation_of(np.asarray(turn, np.float64).ravel()), np.asarray(way, np.float64).ravel())
