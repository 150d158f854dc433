"""Status values of the viewer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from dfs_ros.messages.node_status import NO_ACCOUNT, Account


@dataclass(frozen=True)
class ViewerStatus:
    """Status of the depth node; NaN or empty = unknown (a dash, or left out).

    Parameters
    ----------
    input_hz, depth_hz
        Rates of input images and of depth images, in Hz.
    latency_s
        Time from the stamp of a depth image to its reception.
    depth_count
        Depth images so far.
    images, stacks
        What became of the camera's images and of the stacks made of them.
    unusable
        Messages that could not be used, or that a full queue or the network lost, by cause.
    camera
        Line of text on camera and lens.
    warnings
        Lines of text from the diagnostics, the worst first.
    received
        True if diagnostics have arrived: without any, an empty list of warnings means nothing.
    error
        Line of text on the difference from the true depth, where a simulated camera tells it.
    stale_depth, stale_image
        Line of text on depth and input image that have not come for longer than they should; empty = fresh.
    """

    input_hz: float = math.nan
    depth_hz: float = math.nan
    latency_s: float = math.nan
    depth_count: float = math.nan
    images: Account = NO_ACCOUNT
    stacks: Account = NO_ACCOUNT
    unusable: Mapping[str, int] = field(default_factory=dict)
    camera: str = ""
    warnings: tuple[str, ...] = ()
    received: bool = False
    error: str = ""
    stale_depth: str = ""
    stale_image: str = ""


@dataclass(frozen=True)
class FocusSample:
    """Focus of one image, dioptres (NaN = unknown) at a time."""

    stamp_ns: int
    focus_diopters: float
