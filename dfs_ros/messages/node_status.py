"""Counts of unused images and stacks in the depth node's diagnostics, by cause."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from dfs_ros.messages.convert import Diagnostic
from dfs_ros.stacks.assembler import EVENTS, OUTCOMES

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

_UNUSABLE = ("bad_image", "bad_focus", "bad_camera_info")
_NO_DEPTH = ("wrong_camera_info", "no_lens", "failed")


def number(status: Diagnostic, key: str) -> float:
    """Number of a value; NaN if missing, not finite or over 10^15."""
    try:
        value = float(str(status.values.get(key, "")))
    except ValueError:
        return math.nan
    return value if abs(value) <= _MOST_NUMBER else math.nan


class Account(NamedTuple):
    """Account of images or stacks: `total` is the sum of `outcomes`, by name, without zeros."""

    total: int
    outcomes: Mapping[str, int]


NO_ACCOUNT = Account(0, {})


def image_account(counts: Mapping[str, int]) -> Account:
    """Account of the images that the camera sent while depth was wanted, by the counts of a depth node."""
    named = {"in stacks": counts.get("used", 0), "never arrived": counts.get("dropped", 0)}
    named |= {name.replace("_", " "): counts.get(name, 0) for name in OUTCOMES if name != "used"}
    total = counts.get("received", 0) + counts.get("dropped", 0)
    named["waiting"] = max(total - sum(named.values()), 0)
    return Account(total, {name: count for name, count in named.items() if count})


def stack_account(counts: Mapping[str, int]) -> Account:
    """Account of the stacks of these images."""
    named = {"depth images": counts.get("published", 0), "superseded by a newer one": counts.get("superseded", 0)}
    named |= {name.replace("_", " "): counts.get(name, 0) for name in _NO_DEPTH}
    total = counts.get("stacks", 0)
    named["under way or not wanted"] = max(total - sum(named.values()), 0)
    return Account(total, {name: count for name, count in named.items() if count})


def unusable(counts: Mapping[str, int]) -> dict[str, int]:
    """Messages that could not be used, by cause, without zeros; such images are none of the account."""
    return {name.replace("_", " "): counts[name] for name in _UNUSABLE if counts.get(name)}


def counts_of(status: Diagnostic) -> dict[str, int]:
    """All counts of a depth node's status."""
    known = (*OUTCOMES, *EVENTS, *FAULTS, "published", "superseded")
    return {name: int(count) for name in known if (count := number(status, name)) > 0}


def drops(status: Diagnostic) -> dict[str, int]:
    """Unused images, messages and stacks, by cause, without zeros."""
    return {cause: int(count) for cause in DROP_CAUSES if (count := number(status, cause)) > 0}
