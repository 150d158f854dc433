"""Diagnostics of a depth node, as they are read back; messages of one stamp, put together."""

from __future__ import annotations

import math

from dfs_ros.messages.convert import Diagnostic, diagnostics_from_message, diagnostics_message
from dfs_ros.messages.node_status import drops, number
from dfs_ros.messages.stamped import StampedSets


def test_diagnostics_survive_the_message() -> None:
    values = {"late": 3, "used": 7, "no_lens": 2, "moving": 0, "images_hz": "29.97"}
    sent = {
        "dfs: depth": Diagnostic("WARN", "slow", values),
        "dfs: transport": Diagnostic("STALE", ""),
    }
    received = diagnostics_from_message(diagnostics_message(sent, 5))
    assert {name: (status.level, status.message) for name, status in received.items()} == {
        "dfs: depth": ("WARN", "slow"),
        "dfs: transport": ("STALE", ""),
    }
    depth = received["dfs: depth"]
    assert drops(depth) == {"late": 3, "no_lens": 2}
    assert number(depth, "images_hz") == 29.97 and math.isnan(number(depth, "depth_hz"))


def test_incomplete_sets_go_when_newer_ones_wait_and_none_twice() -> None:
    sets = StampedSets(2, lambda parts: "image" in parts, newer=2, most=4)
    for stamp in (1, 2):
        assert sets.add("image", stamp, stamp) == []
    assert sets.add("image", 3, 3) == [(1, {"image": 1})]
    assert sets.add("focus", 1, 0.1) == []  # too late
    assert sets.add("focus", 3, 0.3) == [(3, {"image": 3, "focus": 0.3})]
    strict = StampedSets(2, most=2)
    for stamp in (1, 2, 3):
        assert strict.add("image", stamp, stamp) == []
    assert strict.add("focus", 1, 0.1) == []  # forgotten
    assert strict.add("focus", 3, 0.3) == [(3, {"image": 3, "focus": 0.3})]
