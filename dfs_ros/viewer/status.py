"""Status values of the viewer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ViewerStatus:
    """Status of the depth node; NaN or empty = unknown (a dash, or left out).

    Parameters
    ----------
    input_hz, depth_hz
        Images that come in and depth images that go out, per second.
    latency_s
        From the stamp of a depth image to the moment it was received.
    depth_count
        Depth images so far.
    drops
        Frames not used, by cause.
    camera
        One line on camera and lens.
    warnings
        One line each, as diagnostics report them; the worst first.
    received
        Whether diagnostics arrived at all: without them "no warnings" would say too much.
    """

    input_hz: float = math.nan
    depth_hz: float = math.nan
    latency_s: float = math.nan
    depth_count: float = math.nan
    drops: Mapping[str, int] = field(default_factory=dict)
    camera: str = ""
    warnings: tuple[str, ...] = ()
    received: bool = False


@dataclass(frozen=True)
class FocusSample:
    """Focus of one image, dioptres (NaN = unknown) at a time."""

    stamp_ns: int
    focus_diopters: float
