"""Clocks that are set: at most one stack is lost, the step is reported, and all rates are right within seconds."""

from __future__ import annotations

import math
import random

from benchmarks.faults.parts import Options, Row
from benchmarks.faults.rig import FOCUS_DIOPTERS, Rig
from dfs_ros.messages.node_status import number

_HOUR_NS = 3600 * 10**9
_DAY_NS = 24 * _HOUR_NS
CASES = {"an hour back": -_HOUR_NS, "an hour ahead": _HOUR_NS, "ten years ahead": 3650 * _DAY_NS}
_SWEEPS = 32  # three seconds
_LOOP_SWEEPS = 4


def run(options: Options) -> list[Row]:
    """A row for each step, at random moments of a sweep, and one for looping simulated time."""
    random_ = random.Random(options.seed)
    rows = []
    for name, step_ns in CASES.items():
        tried, broke, note = 0, 0, ""
        for _ in range(options.count or 3):
            if options.time_is_over:
                break
            problem = _step(step_ns, random_.randrange(len(FOCUS_DIOPTERS)))
            tried, broke, note = tried + 1, broke + bool(problem), note or problem
        rows.append(Row(f"clock: {name}", tried, broke, note))
    problem = _loop()
    return [*rows, Row("clock: simulated time in a loop", 1, int(bool(problem)), problem)]


def _step(step_ns: int, images_before: int) -> str:
    """Set the clock after some images of a sweep; return what broke."""
    rig = Rig()
    try:
        for _ in range(3):
            rig.sweep()
        if not rig.is_right(rig.sweep()):
            return "no depth without a fault either"
        for i in range(images_before):
            rig.send_frame(i)
        rig.bus.ahead_ns += step_ns
        for i in range(images_before, len(FOCUS_DIOPTERS)):
            rig.send_frame(i)
        rig.sweeps += 1
        right = [rig.is_right(rig.sweep()) for _ in range(_SWEEPS)]
        return _wrong(rig, right, lost=0, steps=1)
    finally:
        rig.close()


def _loop() -> str:
    """Stamps that begin again every few sweeps, as of a bag in a loop."""
    rig = Rig()
    try:
        for _ in range(3):
            rig.sweep()
        right = []
        loops = _SWEEPS // _LOOP_SWEEPS
        for _ in range(loops):
            before_ns = rig.bus.now_ns()
            right += [rig.is_right(rig.sweep()) for _ in range(_LOOP_SWEEPS)]
            rig.bus.ahead_ns -= rig.bus.now_ns() - before_ns + 10**9
        right.append(rig.is_right(rig.sweep()))
        return _wrong(rig, right, lost=loops, steps=loops)
    finally:
        rig.close()


def _wrong(rig: Rig, right: list[bool], lost: int, steps: int) -> str:
    if right.count(False) > lost:
        return f"{right.count(False)} stacks after the step gave no depth, {lost} may"
    for _ in range(12):  # diagnostics are a second old at most
        rig.sweep()
    status = rig.status["dfs: depth"]
    reported = number(status, "clock_reset") + number(status, "clock_ahead")
    if reported != steps:
        return f"{steps} steps of the clock, {reported:.0f} reported"
    expected_hz = 30.0
    rates = {
        "images_hz": number(status, "images_hz"),
        "depth_hz": len(FOCUS_DIOPTERS) * number(status, "depth_hz"),
        "rate of images in the viewer": rig.viewer.statuses[0].input_hz,
        "rate of depth in the viewer": len(FOCUS_DIOPTERS) * rig.viewer.statuses[0].depth_hz,
        "rate of depth in dfs run": len(FOCUS_DIOPTERS) * rig.monitor.depth_hz,
        "latency, as a rate": expected_hz if rig.viewer.statuses[0].latency_s < 1.0 else math.nan,
    }
    for name, value in rates.items():
        if not abs(value / expected_hz - 1.0) < 0.2:
            return f"{name}: expected {expected_hz:g}, received {value:.2f}"
    return ""
