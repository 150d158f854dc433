"""Views of colour and registered depth from messages, live or in a bag, and the choice of a recording."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from dfs_ros.camera.camera_file import load_camera_file
from dfs_ros.config import Config, LimitsConfig
from dfs_ros.io.rgbd_folder import RgbdFolder, RgbdView
from dfs_ros.messages.compressed import image_from_compressed
from dfs_ros.messages.convert import (
    CAMERA_INFO,
    COMPRESSED,
    IMAGE,
    CameraInfo,
    Message,
    camera_info_from_message,
    depth_from_message,
    image_from_message,
    stamp_ns,
)
from dfs_ros.messages.definitions import deserialize
from dfs_ros.messages.limits import check_size
from dfs_ros.transport.bag.files import BagReader

_WAITING = 8  # colour and depth images that wait for each other


class RgbdMatcher:
    """Views from messages of colour, depth and camera_info: each colour with the depth nearest in time.

    The colour waits for a depth within `tolerance_s` of its stamp.
    """

    def __init__(self, tolerance_s: float, limits: LimitsConfig) -> None:
        self._tolerance_ns, self._limits = round(tolerance_s * 1e9), limits
        self._waiting: dict[str, deque[Message]] = {
            "color": deque(maxlen=_WAITING),
            "depth": deque(maxlen=_WAITING),
        }
        self._info: CameraInfo | None = None
        self._count = 0

    def add(self, part: str, msg: Message) -> RgbdView | None:
        """Add a message of color, depth or camera_info; return the view that it completes.

        Raises ValueError for images and intrinsics that are none, or not of one view.
        """
        if part == "camera_info":
            self._info = camera_info_from_message(msg)
            return None
        others = self._waiting["depth" if part == "color" else "color"]
        stamp = stamp_ns(msg.header.stamp)
        other = min(others, key=lambda each: abs(stamp_ns(each.header.stamp) - stamp), default=None)
        if self._info is None or other is None or abs(stamp_ns(other.header.stamp) - stamp) > self._tolerance_ns:
            self._waiting[part].append(msg)
            return None
        while others and others[0] is not other:  # older ones have lost their partners
            others.popleft()
        others.popleft()
        return self._view(*((msg, other) if part == "color" else (other, msg)), self._info)

    def _view(self, color: Message, depth: Message, info: CameraInfo) -> RgbdView:
        size = (int(depth.height), int(depth.width))
        check_size(size, "depth", self._limits)
        if info.size != size:
            raise ValueError(
                f"depth: expected the size of camera_info, {info.size[1]} x {info.size[0]}, received {size[1]} x "
                f"{size[0]}; register the depth to the colour images (depth_image_proc)"
            )
        if any(info.distortion) and info.distortion_model != "plumb_bob":
            raise ValueError(f"camera_info: expected plumb_bob, received {info.distortion_model}; rectify the images")
        if hasattr(color, "format"):
            rgb = image_from_compressed(color)
        else:
            check_size((int(color.height), int(color.width)), "colour", self._limits)
            rgb = image_from_message(color)
        if abs(rgb.shape[1] * size[0] / (rgb.shape[0] * size[1]) - 1) > 0.02:
            raise ValueError(f"colour: expected the view of the depth, {size[1]} x {size[0]}, received {rgb.shape}")
        if rgb.ndim == 2:
            rgb = np.repeat(rgb[..., None], 3, axis=2)
        depth_m = depth_from_message(depth)
        if not (depth_m > 0).any():
            raise ValueError("depth: expected metres over 0, received none")
        known = np.where(depth_m > 0, depth_m, np.float32(np.nan))
        distortion = info.distortion[:5] if any(info.distortion) else ()
        self._count += 1
        stamp, frame_id = stamp_ns(color.header.stamp), str(color.header.frame_id)
        return RgbdView(rgb, known, info.intrinsics, distortion, self._count - 1, None, stamp, frame_id)


class RgbdBag:
    """Views of a bag, in the order of their reception."""

    def __init__(self, config: Config) -> None:
        self._config = config
        with BagReader(config.rgbd.path) as bag:
            self._topics(bag)

    def _topics(self, bag: BagReader) -> dict[str, str]:
        """Part of each topic."""
        settings = self._config.rgbd
        wanted = {settings.color: "color", settings.depth: "depth", settings.camera_info: "camera_info"}
        kinds = {"color": (IMAGE, COMPRESSED), "depth": (IMAGE,), "camera_info": (CAMERA_INFO,)}
        found = {
            topic.name: wanted[name]
            for topic in bag.topics
            for name in (topic.name, topic.name.removeprefix("/"))
            if name in wanted and topic.type_name in kinds[wanted[name]]
        }
        for name, part in wanted.items():
            if part not in found.values():
                raise ValueError(
                    f"bag {bag.path}: expected {' or '.join(kinds[part])} on {name}; set rgbd.{part} to its topic. "
                    f"Topics in the bag:\n{bag.listing()}"
                )
        return found

    def __iter__(self) -> Iterator[RgbdView]:
        matcher = RgbdMatcher(self._config.rgbd.match_tolerance_s, self._config.limits)
        with BagReader(self._config.rgbd.path) as bag:
            parts = self._topics(bag)
            for message in bag.messages([topic for topic in bag.topics if topic.name in parts]):
                view = matcher.add(parts[message.topic.name], deserialize(message.data, message.topic.type_name))
                if view is not None:
                    yield view


def recording(config: Config) -> Iterable[RgbdView]:
    """Views of `rgbd.path`. Raises FileNotFoundError or ValueError for what is none."""
    settings = config.rgbd
    path = Path(settings.path)
    if not path.exists():
        raise FileNotFoundError(f"rgbd.path {path}: no such folder or bag")
    if path.is_file() or (path / "metadata.yaml").is_file():
        return RgbdBag(config)
    calibration = load_camera_file(settings.calibration) if settings.calibration else None
    return RgbdFolder(path, calibration, settings.depth_unit_m, settings.match_tolerance_s, config.limits)
