"""Layout of the page and its updates.

Left: the camera (input image, focus sweep) and the state of the node; middle: the point cloud; right: the results and
the controls.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import viser
from numpy.typing import NDArray

from dfs_ros.config import ViewerConfig
from dfs_ros.io.images import png_bytes
from dfs_ros.io.pictures import colorize_depth, depth_range, focus_text
from dfs_ros.optics.pinhole import Intrinsics
from dfs_ros.viewer import html, measure
from dfs_ros.viewer.cloud import MOST_RELATIVE_SIGMA, Cloud, hide_uncertain, make_cloud, sigma_colors
from dfs_ros.viewer.scene import VIEWS, Scene
from dfs_ros.viewer.server import Server
from dfs_ros.viewer.status import FocusSample, ViewerStatus

BY_IMAGE, BY_DEPTH, BY_SIGMA = "Image", "Depth", "Sigma"
PANEL_PX = 336
_MEASURE = html.title("Measure", "click: a point · Shift + drag: an area")
NO_FILTER_PERCENT = 50.0
RANGE_WITHOUT_DEPTH_M = (0.3, 10.0)


@dataclass(frozen=True, eq=False)
class DepthData:
    """Data shown of one depth image; `sigma_m` and `all_in_focus` may be unknown."""

    depth_m: NDArray[np.float32]
    sigma_m: NDArray[np.float32] | None
    all_in_focus: NDArray[np.uint8] | None
    intrinsics: Intrinsics
    stamp_ns: int


@dataclass(frozen=True, eq=False)
class FrameData:
    """Data shown of one input image."""

    image: NDArray[np.uint8]
    focus_diopters: float
    stamp_ns: int


class Page:
    """Elements of the page. All methods are called from the viewer's thread."""

    def __init__(self, server: Server, config: ViewerConfig, on_control: Callable[[], None]) -> None:
        self._server = server
        self._config = config
        self._range_m = RANGE_WITHOUT_DEPTH_M
        self._coverage = math.nan
        self._depth: DepthData | None = None
        self._frame: FrameData | None = None
        self._stale_depth = self._stale_image = ""
        self.cloud: Cloud | None = None
        server.gui.configure_theme(dark_mode=True, show_logo=False, show_share_button=False, brand_color=(34, 139, 230))
        self._scene = Scene(server)
        self._build_camera_panel()
        self._build_result_panel()
        self._connect_controls(on_control)

    @property
    def paused(self) -> bool:
        return bool(self._pause.value)

    def offer_capture(self, capture: Callable[[], str]) -> None:
        """Add a button that calls `capture`, on a thread of its own, and shows the text that it returns."""
        gui = self._server.gui
        button = gui.add_button("Capture stack", icon=viser.Icon.CAMERA, hint="The depth node writes a stack to disk")
        note = gui.add_html("")

        def work() -> None:
            note.content = html.line(capture())
            button.disabled = False

        async def clicked(_: Any) -> None:
            if not button.disabled:
                button.disabled, note.content = True, html.line("waiting for a stack …")
                threading.Thread(target=work, name="dfs-capture", daemon=True).start()

        button.on_click(clicked)

    def show_depth(self, data: DepthData) -> None:
        """Draw a depth image: picture with colour bar, all-in-focus picture and point cloud."""
        first = self._depth is None
        if data is not self._depth:
            self._depth, self._stale_depth = data, ""
        self._coverage = float(np.isfinite(data.depth_m).mean())
        self._max_sigma.disabled = data.sigma_m is None
        depth_m = hide_uncertain(data.depth_m, data.sigma_m, self._max_relative_sigma())
        range_m = self._color_range(depth_m, first)
        picture = colorize_depth(depth_m, *range_m)
        dim = _dimmed if self._stale_depth else _unchanged
        self.cloud = make_cloud(depth_m, dim(self._colors(data, picture)), data.intrinsics, self._config.max_points)
        height, width = depth_m.shape
        with self._server.atomic():
            if first or range_m != self._range_m:
                self._range_m = range_m
                self._bar.content = html.color_bar(*range_m, self._colors_at, _no_depth_png())
            self._scene.show(self.cloud, data.intrinsics, (height, width), float(self._point_size.value))
            self._show_depth_title()
            self._depth_image.image = dim(self._reduced(picture, cv2.INTER_NEAREST))
            if data.all_in_focus is not None:
                self._all_in_focus.image = dim(self._reduced(data.all_in_focus, cv2.INTER_AREA))

    def redraw(self) -> None:
        """Draw the same depth again, with the current controls."""
        if self._depth is not None:
            self.show_depth(self._depth)

    def show_frame(self, data: FrameData, history: Sequence[FocusSample]) -> None:
        """Draw an input image and the recent focus."""
        self._frame, self._stale_image = data, ""
        self._draw_frame()
        self._focus.content = html.focus_plot(history, self._colors_at)

    def show_status(self, status: ViewerStatus) -> None:
        """Draw rates, drops, lens and warnings; dim what is stale."""
        self._status.content = html.status_tiles(status, self._coverage, self.paused)
        if status.stale_depth != self._stale_depth and self._depth is not None:
            redraw = bool(status.stale_depth) != bool(self._stale_depth)
            self._stale_depth = status.stale_depth
            self.redraw() if redraw else self._show_depth_title()
        if status.stale_image != self._stale_image and self._frame is not None:
            self._stale_image = status.stale_image
            self._draw_frame()

    def _draw_frame(self) -> None:
        if self._frame is not None:
            image = self._reduced(_as_rgb(self._frame.image), cv2.INTER_AREA)
            note = html.title("Input image", _focus_note(self._frame.focus_diopters))
            with self._server.atomic():
                self._image.image = _dimmed(image) if self._stale_image else image
                self._image_title.content = note + html.warning(self._stale_image)

    def _show_depth_title(self) -> None:
        if self._depth is not None and self.cloud is not None:
            height, width = self._depth.depth_m.shape
            self._depth_title.content = html.depth_title(width, height, len(self.cloud.points_m), self._stale_depth)

    def _colors(self, data: DepthData, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Colours (H, W, 3) of the points, as chosen."""
        if self._color_by.value == BY_SIGMA and data.sigma_m is not None:
            return sigma_colors(data.depth_m, data.sigma_m)
        return picture if data.all_in_focus is None or self._color_by.value != BY_IMAGE else data.all_in_focus

    # ------------------------------------------------------------------ layout

    def _build_camera_panel(self) -> None:
        gui = self._server.gui
        gui.main_panel.dock_left()
        gui.main_panel.set_width(PANEL_PX)
        gui.add_html(html.STYLE + html.TAB_TITLE)
        self._image_title = gui.add_html(html.title("Input image", "waiting"))
        self._image = gui.add_image(_blank(), format="jpeg")
        gui.add_html(html.title("Focus sweep", "dioptres · metres"))
        self._focus = gui.add_html(html.focus_plot((), self._colors_at))
        gui.add_html(html.title("Status"))
        self._status = gui.add_html(html.status_tiles(ViewerStatus(), math.nan))

    def _build_result_panel(self) -> None:
        gui = self._server.gui
        panel = gui.add_panel()
        with panel.add_tab("Result", viser.Icon.STACK_2):
            self._depth_title = gui.add_html(html.title("Depth", "waiting"))
            self._depth_image = gui.add_image(_blank(), format="png")
            self._bar = gui.add_html("")
            gui.add_html(html.title("All in focus"))
            self._all_in_focus = gui.add_image(_blank(), format="jpeg")
            self._measure = gui.add_html(_MEASURE)
            with gui.add_folder("View"):
                self._build_controls()
        panel.dock_right()
        panel.set_width(PANEL_PX)

    def _build_controls(self) -> None:
        gui = self._server.gui
        self._view = gui.add_button_group("Look from", VIEWS)
        self._color_by = gui.add_dropdown(
            "Colour",
            (BY_IMAGE, BY_DEPTH, BY_SIGMA),
            hint=f"Sigma: dark at 0, yellow from {100 * MOST_RELATIVE_SIGMA:g} % of the depth",
        )
        self._point_size = gui.add_slider("Point size", 0.25, 4.0, 0.05, 1.0)
        self._max_sigma = gui.add_slider(
            "Max. sigma %",
            1.0,
            NO_FILTER_PERCENT,
            0.5,
            NO_FILTER_PERCENT,
            hint="Hide depth that is less sure than this share of itself; at the right end everything shows",
        )
        self._auto_range = gui.add_checkbox("Auto range", True, hint="Depth colours follow the scene")
        self._fixed_range = gui.add_vector2(
            "Range [m]", RANGE_WITHOUT_DEPTH_M, min=(0.01, 0.02), max=(1000.0, 1000.0), step=0.05, visible=False
        )
        self._pause = gui.add_checkbox("Pause", False, hint="Keep what is shown; the node goes on")

    def _connect_controls(self, on_control: Callable[[], None]) -> None:
        # Coroutines run in the server's event loop; plain functions would start a pool of threads.
        async def changed(_: Any) -> None:
            on_control()

        async def range_mode_changed(_: Any) -> None:
            self._fixed_range.visible = not self._auto_range.value
            self._fixed_range.value = (round(self._range_m[0], 2), round(self._range_m[1], 2))  # type: ignore[misc]
            on_control()

        async def look(event: Any) -> None:
            if event.client is not None:
                self._scene.look(event.client.camera, event.target.value)

        async def point(event: Any) -> None:
            self._show_measured(measure.at_ray, event.ray_origin, event.ray_direction)

        async def area(event: Any) -> None:
            camera = event.client.camera
            seen_from = measure.View(camera.position, camera.wxyz, camera.fov, camera.aspect)
            self._show_measured(measure.in_rectangle, seen_from, event.screen_min, event.screen_max)

        scene: Any = self._server.scene  # typed for plain functions, takes coroutines
        scene.on_click()(point)
        scene.on_rect_select(modifier="shift")(area)
        self._view.on_click(look)
        self._color_by.on_update(changed)
        self._point_size.on_update(changed)
        self._max_sigma.on_update(changed)
        self._auto_range.on_update(range_mode_changed)
        self._fixed_range.on_update(changed)
        self._pause.on_update(changed)

    # ------------------------------------------------------------------ details

    def _show_measured(self, choose: Callable[..., NDArray[np.intp]], *where: Any) -> None:
        """Show depth and sigma of the points that `choose` finds."""
        cloud, data = self.cloud, self._depth
        if cloud is not None and data is not None:
            text = measure.text(cloud.points_m[choose(cloud.points_m, *where)], data.sigma_m, data.intrinsics)
            self._measure.content = _MEASURE + html.line(text)

    def _max_relative_sigma(self) -> float:
        percent = float(self._max_sigma.value)
        return math.inf if percent >= NO_FILTER_PERCENT else percent / 100.0

    def _color_range(self, depth_m: NDArray[np.float32], first: bool) -> tuple[float, float]:
        """Ends of the depth colours: as set, or following the scene slowly."""
        if not self._auto_range.value:
            near, far = sorted(float(v) for v in self._fixed_range.value)
            return near, max(far, 1.01 * near)
        near, far = depth_range(depth_m[:: 1 + depth_m.shape[0] // 300, :: 1 + depth_m.shape[1] // 300])
        return (near, far) if first else (_toward(self._range_m[0], near), _toward(self._range_m[1], far))

    def _colors_at(self, depth_m: NDArray[np.float64]) -> NDArray[np.uint8]:
        row = np.asarray(depth_m, np.float32)[None]
        return np.asarray(colorize_depth(row, *self._range_m)[0], np.uint8)

    def _reduced(self, image: NDArray[np.uint8], interpolation: int) -> NDArray[np.uint8]:
        height, width = image.shape[:2]
        limit = self._config.max_image_px
        if width <= limit:
            return image
        size = (limit, max(1, height * limit // width))
        return np.asarray(cv2.resize(image, size, interpolation=interpolation), np.uint8)


def _toward(now: float, target: float) -> float:
    """Step towards a target in inverse depth; differences under 3 % are ignored."""
    if abs(target / now - 1.0) < 0.03:
        return now
    return 1.0 / (0.75 / now + 0.25 / target)


def _dimmed(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return image // np.uint8(3)


def _unchanged(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return image


def _as_rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(image[:, :, None], 3, axis=2) if image.ndim == 2 else image


def _focus_note(focus_diopters: float) -> str:
    return focus_text(focus_diopters) if math.isfinite(focus_diopters) else "focus unknown"


def _blank() -> NDArray[np.uint8]:
    return np.full((3, 4, 3), 20, np.uint8)


def _no_depth_png() -> bytes:
    return png_bytes(colorize_depth(np.full((24, 108), np.nan, np.float32), 1.0, 2.0))
