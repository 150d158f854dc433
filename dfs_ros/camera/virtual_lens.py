"""Virtual lens: the images that a focus-swept lens would take of recorded or live colour with registered depth.

Each view gives one image, at the next focus of the sweep, rendered by a thin lens with occlusion
(:mod:`dfs_ros.simulation.render`); the depth goes along as the truth. Blur that the colour images have adds to it.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dfs_ros.camera.rgbd import RgbdMatcher, recording
from dfs_ros.camera.simulator import Noise
from dfs_ros.camera.source import SoftwareSource, SourceFrame, sweep_order
from dfs_ros.config import Config, RgbdConfig, numbers
from dfs_ros.image_size import working_size
from dfs_ros.io.rgbd_folder import RgbdView
from dfs_ros.messages.convert import CAMERA_INFO, IMAGE, Message
from dfs_ros.optics.pinhole import Intrinsics, pixel_pitch_from_intrinsics
from dfs_ros.simulation.render import render_images
from dfs_ros.transport.base import SENSOR_DATA, Transport
from dfs_ros.types import MAX_FRAMES, Camera, FocusMetadata, LensState, check_focus

_LAYER_STEP_PX = 1.0  # as of the swaying simulated camera: a quarter of the time of the default
_KEPT_IMAGES = 16  # a single view is rendered once at each focus


class _VirtualLens(SoftwareSource):
    """Common part of both sources."""

    def __init__(self, config: Config) -> None:
        self._config, self._settings = config, config.rgbd
        self._focus = _positions(config.rgbd)
        self._sweeps = itertools.cycle(sweep_order(len(self._focus), config.camera.sweep))
        self._pending: deque[tuple[int, int, int, int]] = deque()
        self._sweep_id = -1
        self._noise: Noise | None = None
        self.size, self.intrinsics = (0, 0), Intrinsics(0.0, 0.0, 0.0, 0.0)  # of the newest view
        self.frames_per_sweep = len(self._focus)
        self.description = (
            f"virtual lens, {1e3 * config.rgbd.focal_length_m:.3g} mm f/{config.rgbd.f_number:.3g}, "
            f"{len(self._focus)} focus positions from {min(self._focus):.3g} to {max(self._focus):.3g} dioptres, over "
        )

    def _next_place(self, restart: bool) -> tuple[int, int, int, int]:
        """Sweep id, index, number of images and focus number of the next image; `restart`: of a new sweep."""
        if restart or not self._pending:
            self._sweep_id = (self._sweep_id + 1) % 2**32
            order = next(self._sweeps)
            self._pending = deque((self._sweep_id, index, len(order), i) for index, i in enumerate(order))
        return self._pending.popleft()

    def _reduced(self, view: RgbdView) -> RgbdView:
        height, width = view.depth_m.shape
        return view.reduced(working_size((height, width), self._settings.max_megapixels))

    def _image(self, view: RgbdView, focus_diopters: float) -> NDArray[np.uint8]:
        """Image without noise."""
        f, n = self._settings.focal_length_m, self._settings.f_number
        camera = Camera(f, n, pixel_pitch_from_intrinsics(view.intrinsics.fx, f))
        images = render_images(
            view.rgb, view.depth_m, camera, [focus_diopters], noise=0.0, breathing=False, layer_step_px=_LAYER_STEP_PX
        )
        return np.asarray(images[0], np.uint8)

    def _frame(self, view: RgbdView, image: NDArray[np.uint8], place: tuple[int, int, int, int]) -> SourceFrame:
        if self._noise is None or image.shape[:2] != self.size:
            self._noise = Noise((image.shape[0], image.shape[1]), self._config.camera.noise)
        self.size, self.intrinsics = (image.shape[0], image.shape[1]), view.intrinsics
        self.distortion = view.distortion
        sweep_id, index, count, number = place
        focus = FocusMetadata(
            stamp_ns=view.stamp_ns,
            focus_diopters=self._focus[number],
            focus_start_diopters=self._focus[number],
            focus_end_diopters=self._focus[number],
            focus_sigma_diopters=0.0,
            lens_state=LensState.STATIONARY,
            focal_length_m=self._settings.focal_length_m,
            f_number=self._settings.f_number,
            magnification=1.0,
            sweep_id=sweep_id,
            index=index,
            count=count,
        )
        return SourceFrame(self._noise(image), focus, true_depth_m=view.depth_m, frame_id=view.frame_id)


class RecordedRgbd(_VirtualLens):
    """Views of a folder or a bag, repeated for ever, one image each.

    Poses of a folder go along, from the place of its first view. The next views are rendered meanwhile, one by each
    core. Raises ValueError or OSError for a recording that is none; unreadable images are raised while it plays.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._views = recording(config)
        first = next(iter(self._views), None)
        if first is None:
            raise ValueError(f"{config.rgbd.path}: no colour image has a depth image within rgbd.match_tolerance_s")
        self._origin = first.pose
        first = self._reduced(first)
        self.size, self.intrinsics = (first.depth_m.shape[0], first.depth_m.shape[1]), first.intrinsics
        self.description += f"{Path(config.rgbd.path).name}, {self.size[1]} x {self.size[0]}"

    def frames(self) -> Generator[SourceFrame, None, None]:
        """Yield frames without end; each repetition begins a new sweep."""
        workers = os.cpu_count() or 1
        with ThreadPoolExecutor(workers) as pool:
            kept: dict[tuple[int, int], Future[NDArray[np.uint8]]] = {}
            ahead: deque[tuple[RgbdView, tuple[int, int, int, int], Future[NDArray[np.uint8]]]] = deque()
            last = 0
            try:
                for view in self._forever():
                    place = self._next_place(restart=view.number < last)
                    last = view.number
                    key = (view.number, place[-1])
                    if key not in kept:
                        kept[key] = pool.submit(self._image, view, self._focus[place[-1]])
                    while len(kept) > _KEPT_IMAGES + workers:
                        kept.pop(next(iter(kept)))
                    ahead.append((view, place, kept[key]))
                    if len(ahead) > workers:
                        yield self._sent(*ahead.popleft())
            finally:
                pool.shutdown(cancel_futures=True)

    def _sent(self, view: RgbdView, place: tuple[int, int, int, int], image: Future[NDArray[np.uint8]]) -> SourceFrame:
        frame = self._frame(view, image.result(), place)
        if view.pose is None or self._origin is None:
            return frame
        return dataclasses.replace(frame, moved=self._origin.inverse().after(view.pose))

    def _forever(self) -> Iterator[RgbdView]:
        while True:
            yield from map(self._reduced, self._views)


class LiveRgbd(_VirtualLens):
    """Live topics of colour, depth and intrinsics; images have the stamps and frame of the colour.

    Views that arrive while one is rendered are left out.
    """

    paced = True

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        settings = config.rgbd
        self._matcher = RgbdMatcher(settings.match_tolerance_s, config.limits)
        self._newest: RgbdView | None = None
        self._counts = {"left out": 0}
        self.counts: Mapping[str, int] = self._counts
        self.description += f"{settings.color} and {settings.depth}"

    def connect(self, transport: Transport) -> None:
        """Subscribe."""
        settings = self._settings
        for part, topic, kind in (
            ("color", settings.color, IMAGE),
            ("depth", settings.depth, IMAGE),
            ("camera_info", settings.camera_info, CAMERA_INFO),
        ):
            transport.create_subscription(topic, kind, partial(self._add, part), SENSOR_DATA)

    def _add(self, part: str, msg: Message) -> None:
        view = self._matcher.add(part, msg)
        if view is not None:
            self._counts["left out"] += self._newest is not None
            self._newest = view

    def frames(self) -> Generator[SourceFrame | None, None, None]:
        """Yield the newest view as a frame, None without a new one."""
        while True:
            view, self._newest = self._newest, None
            if view is None:
                yield None
                continue
            view, place = self._reduced(view), self._next_place(restart=False)
            frame = self._frame(view, self._image(view, self._focus[place[-1]]), place)
            yield dataclasses.replace(frame, stamped=True)


def _positions(settings: RgbdConfig) -> list[float]:
    """Focus positions of a sweep in dioptres."""
    positions = list(numbers(settings.focus_diopters, "rgbd.focus_diopters"))
    if not 2 <= len(positions) <= MAX_FRAMES:
        raise ValueError(f"rgbd.focus_diopters: expected 2 to {MAX_FRAMES} positions, received {len(positions)}")
    for focus in positions:
        check_focus(focus, settings.focal_length_m, "rgbd.focus_diopters")
    return positions
