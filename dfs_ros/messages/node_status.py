"""Counts of unused images and stacks in the depth node's diagnostics, by cause."""

from __future__ import annotations

import math
from collections.abc import Mapping

from dfs_ros.messages.convert import Diagnostic
from dfs_ros.stacks.assembler import OUTCOMES

FAULTS: Mapping[str, str] = {
    "bad_image": "images that cannot be read: unsupported encoding, sizes that do not fit the data, too large",
    "bad_focus": "focus messages that make no sense: stamp, sweep, index or lens beyond the limits",
    "bad_camera_info": "camera_info messages that make no sense, or of an uncalibrated camera",
    "wrong_camera_info": "stacks whose camera_info is of another image size",
    "no_lens": "stacks without a known lens",
    "failed": "stacks of which no depth could be computed",
}
"""Causes that prevent depth, counted; each message or stack at most once."""

MAX_LATENCY_S = 60.0
"""Largest plausible latency; more means another clock, as of a recording with its old stamps."""

_MOST_NUMBER = 1e15

DROP_CAUSES = (*(name for name in OUTCOMES if name != "used"), "dropped", *FAULTS)
"""Keys of the counts of unused images, messages and stacks."""


def number(status: Diagnostic, key: str) -> float:
    """Number of a value; NaN if missing, not finite or over 10^15."""
    try:
        value = float(str(status.values.get(key, "")))
    except ValueError:
        return math.nan
    return value if abs(value) <= _MOST_NUMBER else math.nan


def drops(status: Diagnostic) -> dict[str, int]:
    """Unused images, messages and stacks, by cause, without zeros."""
    return {cause: int(count) for cause in DROP_CAUSES if (count := number(status, cause)) > 0}
