"""3-D scene of the page: point cloud, camera frustum, metre grid, views.

The scene keeps the optical frame (x right, y down, z forward, the camera at the origin) and is shown with -y up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import viser
from numpy.typing import NDArray

from dfs_ros.optics.pinhole import Intrinsics
from dfs_ros.viewer.cloud import Cloud

VIEWS = ("Scene", "Camera", "Top", "Side")
FIELD_OF_VIEW = math.radians(45)
PANEL_PX = 336
PHONE_PX = 640
PHONE_FREE = 0.4
"""Share of the height of a phone above viser's sheet."""
Point = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Extent:
    """Extent of a cloud in metres: percentiles of x, y and z, float64 (5, 3).

    Percentiles 2, 10, 50, 90 and 98.
    """

    percentiles: NDArray[np.float64]

    @classmethod
    def of(cls, points_m: NDArray[np.float32]) -> Extent:
        some = points_m[:: max(1, len(points_m) // 20000)].astype(np.float64)
        return cls(np.asarray(np.percentile(some, (2, 10, 50, 90, 98), axis=0)))

    @property
    def median_depth_m(self) -> float:
        return float(self.percentiles[2, 2])

    @property
    def size_m(self) -> Point:
        """Box around the points: half width, floor below the camera, depth."""
        (left, _, _), (right, bottom, far) = self.percentiles[0], self.percentiles[4]
        return float(max(-left, right)), float(bottom), float(far)

    def outgrows(self, other: Extent) -> bool:
        """True if the surroundings made for `other` no longer suit."""
        moved = np.abs(self.percentiles[[0, 4]] - other.percentiles[[0, 4]]).max()
        return bool(moved > 0.3 * other.percentiles[4, 2])

    def ball(self) -> tuple[Point, float]:
        """Centre and radius of a ball around the camera and most points."""
        low, high = np.minimum(self.percentiles[1], 0.0), np.maximum(self.percentiles[3], 0.0)
        x, y, z = (float(v) for v in (low + high) / 2)
        return (x, y, z), float(np.linalg.norm(high - low)) / 2


class Scene:
    """3-D part of the page of one browser."""

    def __init__(self, client: viser.ClientHandle) -> None:
        self._client = client
        self._window_px = client.camera.image_width
        self._extent: Extent | None = None
        self._marks: list[Any] = []
        scene = client.scene
        self._points = scene.add_point_cloud(
            "/cloud",
            np.zeros((0, 3), np.float32),
            np.zeros((0, 3), np.uint8),
            point_size=0.01,
            point_shape="circle",
            point_shading="flat",
            precision="float32",
        )
        self._frustum = scene.add_camera_frustum(
            "/camera",
            fov=0.8,
            aspect=4 / 3,
            thickness=1.5,
            thickness_units="screen",
            color=(77, 171, 247),
            visible=False,
        )
        self._grid = scene.add_grid(
            "/floor", plane="xz", cell_color=(52, 56, 62), section_color=(84, 90, 98), cell_thickness=0.6, visible=False
        )

    def show(self, cloud: Cloud, intrinsics: Intrinsics, size: tuple[int, int], point_scale: float) -> None:
        """Draw points of an image of (height, width) pixels.

        With `point_scale` 1 they just close a surface.
        """
        self._points.points = cloud.points_m
        self._points.colors = cloud.colors
        self._points.point_size = max(1.5 * point_scale * cloud.spacing_m, 1e-4)
        if len(cloud.points_m) == 0:
            return
        extent = Extent.of(cloud.points_m)
        first = self._extent is None
        if self._extent is None or extent.outgrows(self._extent):
            self._extent = extent
            self._place_camera(extent, intrinsics, size)
            self._place_floor(extent)
        if first:
            self._client.camera.fov = FIELD_OF_VIEW
            self.look(VIEWS[0])

    @property
    def on_phone(self) -> bool:
        """True for a browser as narrow as a phone, where viser shows its panels as a sheet."""
        return bool(self._window_px < PHONE_PX)

    def look(self, view: str) -> None:
        """Move the browser's camera to one of VIEWS."""
        camera = self._client.camera
        camera.position, camera.look_at = self._pose(view)

    def _place_camera(self, extent: Extent, intrinsics: Intrinsics, size: tuple[int, int]) -> None:
        fx, fy, _, _ = intrinsics
        height, width = size
        self._frustum.fov = 2 * math.atan(height / (2 * fy))
        self._frustum.aspect = width / height * fy / fx
        self._frustum.scale = 0.06 * extent.median_depth_m
        self._frustum.visible = True

    def _place_floor(self, extent: Extent) -> None:
        """Grid of whole metres at the lowest points, labelled with distances."""
        half_width, floor, far = extent.size_m
        half_width, depth = math.ceil(max(half_width, 0.5) + 0.2), math.ceil(far + 0.2)
        section = max(1, round(depth / 20))
        self._grid.width, self._grid.height = 2.0 * half_width, float(depth)
        self._grid.section_size = float(section)
        self._grid.cell_size = 0.1 if depth <= 4 else 0.5 * section
        self._grid.position = (0.0, floor, depth / 2)
        self._grid.visible = True
        for mark in self._marks:
            mark.remove()
        self._marks = [
            self._client.scene.add_label(
                f"/marks/{z}", f"{z} m", position=(-half_width, floor, z), anchor="center-right", font_screen_scale=0.8
            )
            for z in range(section, depth + 1, section)
        ]

    def _pose(self, view: str) -> tuple[Point, Point]:
        """(position, point looked at) of a named view."""
        if self._extent is None:
            return (0.4, -0.5, -0.8), (0.0, 0.0, 1.0)
        if view == "Camera":
            return (0.0, 0.0, 0.0), (0.0, 0.0, self._extent.median_depth_m)
        center, radius = self._extent.ball()
        camera = self._client.camera
        free = PHONE_FREE if self.on_phone else 1.0
        width_px = camera.image_width
        if width_px == self._window_px and not self.on_phone:
            width_px = max(width_px - 2 * PANEL_PX, 1)  # the browser docks the panels only after its first message
        # "Top" is slightly tilted: straight down, the screen's up direction is undefined.
        direction = {"Scene": (0.38, -0.38, -0.84), "Top": (0.0, -1.0, -0.02), "Side": (1.0, 0.0, 0.0)}[view]
        closeness = 0.75 if view == "Scene" else 1.0  # along its length the ball looks emptier
        tangent = math.tan(FIELD_OF_VIEW / 2)
        # In the narrower direction.
        distance = closeness * radius / math.sin(math.atan(tangent * min(width_px / camera.image_height, free)))
        # The sheet of a phone hides the lower part: look below the ball, so that it stands in the middle of the rest.
        backward = np.array(direction) / np.linalg.norm(direction)
        up = np.array([0.0, -1.0, 0.0]) - backward * -backward[1]
        below = up / np.linalg.norm(up) * (1.0 - free) * distance * tangent
        aim = np.array(center) - below
        return _point(aim + distance * backward), _point(aim)


def _point(place: NDArray[np.float64]) -> Point:
    x, y, z = (float(value) for value in place)
    return x, y, z
