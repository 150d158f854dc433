"""Layout of the page and its updates.

Left: the camera (input image, focus sweep) and the state of the node; middle: the point cloud; right: the results and
the controls.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import viser
from numpy.typing import NDArray

from dfs_ros.config import ViewerConfig
from dfs_ros.io.pictures import focus_text
from dfs_ros.viewer import html, measure
from dfs_ros.viewer.cloud import Cloud, hide_uncertain, make_cloud
from dfs_ros.viewer.colours import CONFIDENCE, DEPTH, RANGE_WITHOUT_DEPTH_M, SIGMA, Colours
from dfs_ros.viewer.data import DepthData, FrameData, Shown
from dfs_ros.viewer.scene import PANEL_PX, VIEWS, Scene
from dfs_ros.viewer.status import ViewerStatus

BY_IMAGE, BY_PANEL = "Image", "As the panel"
_MEASURE = html.title("Measure", "click: a point · Shift + drag: an area")
NO_FILTER_PERCENT = 50.0


class Page:
    """Elements of the page of one browser, with controls of its own.

    All methods are called from the viewer's thread. `on_control` is called when this browser has moved a control.
    """

    def __init__(
        self,
        client: viser.ClientHandle,
        config: ViewerConfig,
        on_control: Callable[[], None],
    ) -> None:
        self._client = client
        self._config = config
        self._colours = Colours()
        self._coverage = math.nan
        self._shown = Shown()
        self._moved = False
        self._measured: tuple[Any, ...] = ()
        self.cloud: Cloud | None = None
        self._scene = Scene(client)
        with client.atomic():
            self._build()
        self._connect_controls(on_control)
        self._offers_capture = False

    def offer_capture(self, capture: Callable[[], str]) -> None:
        """Add a button that calls `capture`, on a thread of its own, and shows the text that it returns; once."""
        if self._offers_capture:
            return
        self._offers_capture = True
        gui = self._client.gui
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

    def show(self, newest: Shown) -> None:
        """Draw what has changed; a paused page keeps its images, and tells the newest status."""
        before, moved = self._shown, self._moved
        self._moved = False
        paused = bool(self._pause.value)
        now = replace(before, status=newest.status) if paused else newest
        if paused:  # what is kept on purpose is not stale
            now = replace(now, status=replace(now.status, stale_depth="", stale_image=""))
        self._shown = now
        stale = now.status.stale_depth, now.status.stale_image
        dimmed = [bool(one) != bool(other) for one, other in zip(stale, _stale(before), strict=True)]
        with self._client.atomic():  # titles change with their pictures
            if now.depth is not None and (moved or now.depth is not before.depth or dimmed[0]):
                self._draw_depth(now.depth, bool(stale[0]))
            if now.frame is not None and (now.frame is not before.frame or dimmed[1]):
                self._draw_frame(now.frame, bool(stale[1]))
                self._focus.content = html.focus_plot(now.history, self._colours.of_depth)
            self._draw_titles(now)
            self._status.content = html.status_tiles(now.status, self._coverage, paused)

    def _draw_depth(self, data: DepthData, dim: bool) -> None:
        """Draw picture with colour bar, all-in-focus picture and point cloud."""
        self._coverage = float(np.isfinite(data.depth_m).mean())
        self._max_sigma.disabled = data.sigma_m is None
        depth_m = hide_uncertain(data.depth_m, data.sigma_m, self._max_relative_sigma())
        fixed = (
            None if self._auto_range.value else (float(self._fixed_range.value[0]), float(self._fixed_range.value[1]))
        )
        self._colours.follow(depth_m, data.sigma_m, fixed)
        shown = str(self._what.value)
        picture = self._colours.picture(shown, depth_m, data)
        by_image = data.all_in_focus is not None and self._color_by.value == BY_IMAGE
        colors = data.all_in_focus if data.all_in_focus is not None and by_image else picture
        dimmed = _dimmed if dim else _unchanged
        self.cloud = make_cloud(depth_m, dimmed(colors), data.intrinsics, self._config.max_points)
        height, width = depth_m.shape
        if (bar := self._colours.bar(shown)) != self._bar.content:
            self._bar.content = bar
        self._scene.show(self.cloud, data.intrinsics, (height, width), float(self._point_size.value))
        self._depth_image.image = dimmed(self._reduced(picture, cv2.INTER_NEAREST))
        if data.all_in_focus is not None:
            self._all_in_focus.image = dimmed(self._reduced(data.all_in_focus, cv2.INTER_AREA))
        self._show_measured()

    def _draw_frame(self, data: FrameData, dim: bool) -> None:
        image = self._reduced(_as_rgb(data.image), cv2.INTER_AREA)
        self._image.image = _dimmed(image) if dim else image

    def _draw_titles(self, now: Shown) -> None:
        if now.frame is not None:
            note = html.title("Input image", _focus_note(now.frame.focus_diopters))
            _set(self._image_title, note + html.warning(now.status.stale_image))
        if now.depth is not None and self.cloud is not None:
            shown, (height, width) = str(self._what.value), now.depth.depth_m.shape
            missing = {SIGMA: now.depth.sigma_m, CONFIDENCE: now.depth.confidence}.get(shown, now.depth.depth_m) is None
            points = len(self.cloud.points_m)
            heading = html.depth_title(shown, width, height, points, now.status.stale_depth, missing)
            _set(self._depth_title, heading)

    # ------------------------------------------------------------------ layout

    def _build(self) -> None:
        """Camera and state at the left, result at the right; on a phone the result, the state, and a section below."""
        gui = self._client.gui
        gui.add_html(html.STYLE + html.TAB_TITLE)
        if self._scene.on_phone:
            self._build_result()
            self._build_status()
            with gui.add_panel().add_tab("Camera", viser.Icon.CAMERA):
                self._build_camera()
            return
        gui.main_panel.dock_left()
        gui.main_panel.set_width(PANEL_PX)
        self._build_camera()
        self._build_status()
        panel = gui.add_panel()
        with panel.add_tab("Result", viser.Icon.STACK_2):
            self._build_result()
        panel.dock_right()
        panel.set_width(PANEL_PX)

    def _build_camera(self) -> None:
        gui = self._client.gui
        self._image_title = gui.add_html(html.title("Input image", "waiting"))
        self._image = gui.add_image(_blank(), format="jpeg")
        gui.add_html(html.title("Focus sweep", "dioptres · metres"))
        self._focus = gui.add_html(html.focus_plot((), self._colours.of_depth))

    def _build_status(self) -> None:
        gui = self._client.gui
        gui.add_html(html.title("Status"))
        self._status = gui.add_html(html.status_tiles(ViewerStatus(), math.nan))

    def _build_result(self) -> None:
        gui = self._client.gui
        self._depth_title = gui.add_html(html.title("Depth", "waiting"))
        self._what = gui.add_dropdown(
            "Panel",
            (DEPTH, SIGMA, CONFIDENCE),
            hint="Sigma: standard deviation of the depth; confidence: misfit that the best depth removes",
        )
        self._depth_image = gui.add_image(_blank(), format="png")
        self._bar = gui.add_html("")
        gui.add_html(html.title("All in focus"))
        self._all_in_focus = gui.add_image(_blank(), format="jpeg")
        self._measure = gui.add_html(_MEASURE)
        with gui.add_folder("View"):
            self._build_controls()

    def _build_controls(self) -> None:
        gui = self._client.gui
        self._view = gui.add_button_group("Look from", VIEWS)
        self._color_by = gui.add_dropdown("Points", (BY_IMAGE, BY_PANEL), hint="Colours of the points")
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
        self._pause = gui.add_checkbox("Pause", False, hint="Keep what this page shows; node and other browsers go on")

    def _connect_controls(self, on_control: Callable[[], None]) -> None:
        # Coroutines run in the server's event loop; plain functions would start a pool of threads.
        async def changed(_: Any) -> None:
            self._moved = True
            on_control()

        async def range_mode_changed(event: Any) -> None:
            near, far = self._colours.depth_m
            self._fixed_range.visible = not self._auto_range.value
            self._fixed_range.value = (round(near, 2), round(far, 2))  # type: ignore[misc]
            await changed(event)

        async def look(event: Any) -> None:
            self._scene.look(event.target.value)

        async def point(event: Any) -> None:
            self._measured = (measure.at_ray, event.ray_origin, event.ray_direction)
            self._show_measured()

        async def area(event: Any) -> None:
            camera = self._client.camera
            seen_from = measure.View(camera.position, tuple(camera.wxyz), camera.fov, camera.aspect)
            self._measured = (measure.in_rectangle, seen_from, event.screen_min, event.screen_max)
            self._show_measured()

        scene: Any = self._client.scene  # typed for plain functions, takes coroutines
        scene.on_click()(point)
        scene.on_rect_select(modifier="shift")(area)
        self._view.on_click(look)
        self._what.on_update(changed)
        self._color_by.on_update(changed)
        self._point_size.on_update(changed)
        self._max_sigma.on_update(changed)
        self._auto_range.on_update(range_mode_changed)
        self._fixed_range.on_update(changed)
        self._pause.on_update(changed)

    # ------------------------------------------------------------------ details

    def _show_measured(self) -> None:
        """Show depth and sigma of the newest points at the place that this browser has chosen."""
        cloud, data = self.cloud, self._shown.depth
        if self._measured and cloud is not None and data is not None:
            choose, *where = self._measured
            text = measure.text(cloud.points_m[choose(cloud.points_m, *where)], data.sigma_m, data.intrinsics)
            _set(self._measure, _MEASURE + html.line(text))

    def _max_relative_sigma(self) -> float:
        percent = float(self._max_sigma.value)
        return math.inf if percent >= NO_FILTER_PERCENT else percent / 100.0

    def _reduced(self, image: NDArray[np.uint8], interpolation: int) -> NDArray[np.uint8]:
        height, width = image.shape[:2]
        limit = self._config.max_image_px
        if width <= limit:
            return image
        size = (limit, max(1, height * limit // width))
        return np.asarray(cv2.resize(image, size, interpolation=interpolation), np.uint8)


def _stale(shown: Shown) -> tuple[str, str]:
    return shown.status.stale_depth, shown.status.stale_image


def _set(element: Any, content: str) -> None:
    """Change the content of an HTML element; an equal one is not sent again."""
    if element.content != content:
        element.content = content


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
