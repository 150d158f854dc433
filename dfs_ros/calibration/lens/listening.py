"""Images with the raw lens position, from the topics of a camera: live, or of a bag.

The lens position is that of the FrameFocus of the image's stamp, of the last command before it (`node.focus_source`
commands), or LensPosition on /diagnostics (diagnostics).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from dfs_ros.calibration.lens.gathering import LensImage
from dfs_ros.config import Config
from dfs_ros.messages.compressed import image_from_compressed
from dfs_ros.messages.convert import (
    COMPRESSED,
    DIAGNOSTICS,
    FOCUS,
    IMAGE,
    Message,
    focus_from_diagnostics,
    image_from_message,
    stamp_ns,
)
from dfs_ros.transport.bag.files import BagReader
from dfs_ros.transport.bag.topics import choose_topics
from dfs_ros.transport.bag.transport import BagTransport
from dfs_ros.transport.base import Qos, Transport
from dfs_ros.transport.names import resolve_name
from dfs_ros.types import LensState

NODE_NAME = "dfs_calibrate"
_KEPT = 64
_QOS = Qos(reliable=False, depth=30)


class _Position(NamedTuple):
    stamp_ns: int
    raw: float
    moving: bool


class LensListener:
    """Listener to `image` (or `image/compressed`) and, by `node.focus_source`, `focus` or `/diagnostics`.

    `ready`: images whose lens position is known, in the order of stamps, for the caller to take out; `unit`: unit of
    the positions, once one came; `images`, `reports`: numbers of messages so far.
    """

    def __init__(self, transport: Transport) -> None:
        settings = transport.parameters.config.node
        if settings.focus_source == "schedule":
            raise ValueError("node.focus_source: expected focus, commands or diagnostics, received schedule")
        self.ready: deque[LensImage] = deque()
        self._commanded = settings.focus_source == "commands"
        self._tolerance_ns = transport.parameters.config.stack.match_tolerance_ns
        self._images: deque[tuple[int, NDArray[np.uint8]]] = deque(maxlen=_KEPT)
        self._positions: deque[_Position] = deque(maxlen=_KEPT)
        self._since = _Position(0, math.nan, False)  # first report of the present position
        self.unit = ""
        self.images = self.reports = 0
        subscribe = transport.create_subscription
        if settings.image_transport == "compressed":
            subscribe(transport.resolve("image") + "/compressed", COMPRESSED, self._on_image, _QOS)
        else:
            subscribe("image", IMAGE, self._on_image, _QOS)
        if settings.focus_source == "diagnostics":
            subscribe("/diagnostics", DIAGNOSTICS, self._on_diagnostics, _QOS)
        else:
            subscribe("focus", FOCUS, self._on_focus, _QOS)

    def finish(self) -> None:
        """Pass on the images that wait for a later command."""
        self._match(last=True)

    def _on_image(self, msg: Message) -> None:
        image = image_from_compressed(msg) if hasattr(msg, "format") else image_from_message(msg)
        grey = image if image.ndim == 2 else np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
        self.images += 1
        self._images.append((stamp_ns(msg.header.stamp), grey))
        self._match()

    def _on_focus(self, msg: Message) -> None:
        raw, unit = float(msg.raw_position), str(msg.raw_unit)
        if not unit or math.isnan(raw):  # the driver has dioptres of its own alone
            raw, unit = float(msg.focus_diopters), "diopters"
        self._add(_Position(stamp_ns(msg.header.stamp), raw, msg.lens_state == LensState.MOVING), unit)

    def _on_diagnostics(self, msg: Message) -> None:
        focus = focus_from_diagnostics(msg)
        if focus is not None:
            moving = focus.lens_state == LensState.MOVING
            self._add(_Position(focus.stamp_ns, focus.raw_position, moving), focus.raw_unit)

    def _add(self, position: _Position, unit: str) -> None:
        if not math.isfinite(position.raw):
            return
        self.reports += 1
        self.unit = unit
        self._positions.append(position)
        self._match()

    def _match(self, last: bool = False) -> None:
        while self._images and self._positions:
            stamp, grey = self._images[0]
            newest = self._positions[-1].stamp_ns
            if self._commanded:
                # A later command may still be under way; the next image is proof enough that it is not.
                if not (last or newest > stamp or len(self._images) > 1):
                    return
                found = next((p for p in reversed(self._positions) if p.stamp_ns <= stamp), None)
            else:
                found = min(self._positions, key=lambda p: abs(p.stamp_ns - stamp))
                if abs(found.stamp_ns - stamp) > self._tolerance_ns:
                    if newest <= stamp:
                        return
                    found = None
            self._images.popleft()
            if found is not None:
                if self._commanded or found.raw != self._since.raw:
                    self._since = found
                self.ready.append(LensImage(grey, found.raw, stamp, self._since.stamp_ns, found.moving))


def live_images(transport: Transport, listener: LensListener) -> Iterator[LensImage]:
    """Yield the images of a node without end, while it spins."""
    while True:
        transport.spin_once(0.1)
        yield from _taken(listener)


def bag_images(bag: Path, config: Config, remappings: Mapping[str, str], units: list[str]) -> Iterator[LensImage]:
    """Yield the images of a bag; append the unit of their lens positions to `units`.

    Raises FileNotFoundError or ValueError for a bag without images or lens positions.
    """
    # The pixel pitch stands for camera_info, which calibration does without.
    config = config.updated({"lens": {"pixel_pitch_m": config.lens.pixel_pitch_m or 1e-6}})
    with BagReader(bag) as reader:
        resolve = partial(resolve_name, node_name=NODE_NAME, namespace="/", remappings=remappings)
        chosen = choose_topics(reader, resolve, remappings, config)
        topics = [topic for topic in (chosen.image, chosen.focus) if topic is not None]
        start_ns, names = reader.start_ns, chosen.remappings
        with BagTransport(NODE_NAME, None, start_ns, remappings=names, config=chosen.config) as transport:
            listener = LensListener(transport)
            for message in reader.messages(topics):
                transport.play(message)
                yield from _taken(listener)
            listener.finish()
            yield from _taken(listener)
            units.append(listener.unit)


def _taken(listener: LensListener) -> Iterator[LensImage]:
    while listener.ready:
        yield listener.ready.popleft()
