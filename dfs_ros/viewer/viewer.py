"""Live viewer in the browser: call `show_...` at any rate, open `url`."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType

import numpy as np
import viser
from numpy.typing import NDArray

from dfs_ros.config import ViewerConfig
from dfs_ros.optics.pinhole import Intrinsics
from dfs_ros.viewer import html
from dfs_ros.viewer.data import DepthData, FrameData, Shown
from dfs_ros.viewer.page import Page
from dfs_ros.viewer.server import start_server, stop_server
from dfs_ros.viewer.status import FocusSample, ViewerStatus

_log = logging.getLogger(__name__)


class Viewer:
    """Viewer: page with point cloud, depth, all-in-focus and input images, sweep, status.

    The `show_...` methods keep the newest data of each kind and return at once; a thread updates the pages at most
    `config.rate_hz` times a second. Each browser has a page of its own, with its own controls. Arrays are kept, not
    copied: do not write to them afterwards.

    Raises OSError for a port in use or a host that is not an address of this machine.

    >>> from dfs_ros.config import ViewerConfig
    >>> with Viewer(ViewerConfig(port=0)) as viewer:
    ...     viewer.url.startswith("http://127.0.0.1:")
    True
    """

    def __init__(self, config: ViewerConfig | None = None) -> None:
        self._config = config or ViewerConfig()
        self._lock = threading.Condition()
        self._newest = Shown()
        self._history: deque[FocusSample] = deque(maxlen=self._config.focus_frames)
        self._changed = False
        self._closing = False
        self._capture: Callable[[], str] | None = None
        self._pages: dict[int, Page] = {}
        self._server = start_server(self._config.host, self._config.port, html.TITLE, self._config.max_connections)
        self._server.gui.configure_theme(
            dark_mode=True, show_logo=False, show_share_button=False, brand_color=(34, 139, 230)
        )
        self._server.scene.set_up_direction("-y")
        self._server.scene.world_axes.visible = False
        self._server.on_client_connect(self._on_change)
        self._server.on_client_disconnect(self._on_change)
        self._thread = threading.Thread(target=self._run, name="dfs-viewer", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Address of the page, ``http://127.0.0.1:8080``."""
        host = self._config.host
        if host in ("0.0.0.0", "::", ""):
            host = "localhost"
        return f"http://{f'[{host}]' if ':' in host else host}:{self._server.get_port()}"

    def show_depth(
        self,
        depth_m: NDArray[np.float32],
        sigma_m: NDArray[np.float32] | None,
        all_in_focus: NDArray[np.uint8] | None,
        intrinsics: tuple[float, float, float, float],
        stamp_ns: int,
        confidence: NDArray[np.float32] | None = None,
    ) -> None:
        """Show a depth image.

        Parameters
        ----------
        depth_m
            float32 (H, W) in metres, NaN = no depth.
        sigma_m
            float32 (H, W), standard deviation of the depth in metres, or None.
        all_in_focus
            uint8 (H, W, 3) RGB or (H, W), or None.
        intrinsics
            fx, fy, cx, cy in pixels of these images.
        stamp_ns
            Stamp of the reference image.
        confidence
            float32 (H, W), 0 to 1, or None.

        Raises ValueError or TypeError for other shapes, types and intrinsics.
        """
        checked = _checked_depth(depth_m, sigma_m, all_in_focus, intrinsics)
        if confidence is not None:
            confidence = _float_image(confidence, "confidence", checked[0].shape)
        self._put(depth=DepthData(*checked, int(stamp_ns), confidence))

    def show_frame(self, image: NDArray[np.uint8], focus_diopters: float, stamp_ns: int) -> None:
        """Show an input image, uint8 RGB or grey, with its focus (NaN = unknown)."""
        _check_image(image, "image", None)
        sample = FocusSample(int(stamp_ns), float(focus_diopters))
        with self._lock:
            if self._history and sample.stamp_ns < self._history[-1].stamp_ns:  # a recording restarts
                self._history.clear()
            self._history.append(sample)
        self._put(frame=FrameData(image, sample.focus_diopters, sample.stamp_ns))

    def show_status(self, status: ViewerStatus) -> None:
        """Show rates, drops, lens and warnings."""
        if not isinstance(status, ViewerStatus):
            raise TypeError(f"status: expected a ViewerStatus, received {type(status).__name__}")
        self._put(status=status)

    def offer_capture(self, capture: Callable[[], str]) -> None:
        """Add a button that calls `capture`, which may take its time, and shows the text that it returns."""
        self._capture = capture
        self._on_control()

    def close(self) -> None:
        """Stop serving and free the port. May be repeated."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
            self._lock.notify_all()
        self._thread.join()
        stop_server(self._server)

    def __enter__(self) -> Viewer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _put(self, **changes: DepthData | FrameData | ViewerStatus) -> None:
        with self._lock:
            if self._closing:
                raise RuntimeError("the viewer is closed")
            status = self._newest.status  # its age is of what came before
            if "depth" in changes:
                status = replace(status, stale_depth="")
            if "frame" in changes:
                status = replace(status, stale_image="")
            self._newest = replace(self._newest, **{"status": status, **changes})  # type: ignore[arg-type]
            self._changed = True
            self._lock.notify_all()

    def _on_control(self) -> None:
        with self._lock:
            self._changed = True
            self._lock.notify_all()

    async def _on_change(self, _: object) -> None:  # in the server's event loop
        self._on_control()

    # The thread that draws.

    def _run(self) -> None:
        reported = ""
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._closing or self._changed)
                if self._closing:
                    return
                newest = replace(self._newest, history=tuple(self._history))
                self._changed = False
            started = time.monotonic()
            clients = self._server.get_clients()
            self._pages = {number: page for number, page in self._pages.items() if number in clients}
            for number, client in clients.items():
                try:
                    self._draw(number, client, newest)
                except Exception as error:  # a fault of the viewer must not stop the robot; one line for each new cause
                    if repr(error) != reported:
                        reported = repr(error)
                        _log.exception("viewer: drawing failed")
            rest = 1.0 / self._config.rate_hz - (time.monotonic() - started)
            with self._lock:
                self._lock.wait_for(lambda: self._closing, timeout=max(rest, 0.0))

    def _draw(self, number: int, client: viser.ClientHandle, newest: Shown) -> None:
        """Draw the page of a browser, which is made at its first drawing."""
        if number not in self._pages:
            self._pages[number] = Page(client, self._config, self._on_control)
        page = self._pages[number]
        if self._capture is not None:
            page.offer_capture(self._capture)
        page.show(newest)


def _checked_depth(
    depth_m: NDArray[np.float32],
    sigma_m: NDArray[np.float32] | None,
    all_in_focus: NDArray[np.uint8] | None,
    intrinsics: tuple[float, float, float, float],
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, NDArray[np.uint8] | None, Intrinsics]:
    depth_m = _float_image(depth_m, "depth_m")
    if sigma_m is not None:
        sigma_m = _float_image(sigma_m, "sigma_m", depth_m.shape)
    if all_in_focus is not None:
        _check_image(all_in_focus, "all_in_focus", depth_m.shape)
        if all_in_focus.ndim == 2:
            all_in_focus = np.repeat(all_in_focus[:, :, None], 3, axis=2)
    values = tuple(float(v) for v in intrinsics)
    if len(values) != 4 or not all(math.isfinite(v) for v in values) or min(values[:2]) <= 0:
        raise ValueError(f"intrinsics: expected finite fx > 0, fy > 0, cx, cy in pixels, received {intrinsics}")
    return depth_m, sigma_m, all_in_focus, Intrinsics(*values)


def _float_image(array: NDArray[np.float32], name: str, size: tuple[int, ...] | None = None) -> NDArray[np.float32]:
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        found = getattr(array, "dtype", type(array).__name__)
        raise TypeError(f"{name}: expected a float32 array, received {found}")
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"{name}: expected shape (H, W), received {array.shape}")
    if size is not None and array.shape != size:
        raise ValueError(f"{name}: expected the shape of depth_m {size}, received {array.shape}")
    return np.asarray(array, np.float32)


def _check_image(image: NDArray[np.uint8], name: str, size: tuple[int, ...] | None) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        raise TypeError(f"{name}: expected a uint8 array, received {getattr(image, 'dtype', type(image).__name__)}")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3) or image.size == 0:
        raise ValueError(f"{name}: expected shape (H, W, 3) RGB or (H, W), received {image.shape}")
    if size is not None and image.shape[:2] != size:
        raise ValueError(f"{name}: expected the size of depth_m {size}, received {image.shape[:2]}")
