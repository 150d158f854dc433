"""Mutated messages to depth node, viewer and monitor: after some, one of the next two stacks must give the depth.

Every field is set to 0, -1, the largest and smallest values, NaN, infinity, long and odd text, and arrays of other
lengths; CDR is cut, repeated and flipped.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.faults.parts import Options, Row
from benchmarks.faults.rig import TOPICS, Rig
from dfs_ros.messages.convert import IMAGE, Diagnostic, diagnostics_message
from dfs_ros.messages.definitions import Message, message, serialize
from dfs_ros.messages.images import depth_message
from dfs_ros.node.outputs import TOPICS as OUTPUTS

_COUNT = 2000
_BETWEEN_STACKS = 8
_INTEGERS = (0, -1, 1, 2, 255, 256, 10**9, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1, -(2**31), 2**63 - 1)
_FLOATS = (0.0, -1.0, math.nan, math.inf, -math.inf, 1e-300, 1e300, 3.4e38, 30.0, 0.5)
_TEXTS = (
    "",
    "inf",
    "nan",
    "9" * 5000,
    "1e999",
    "-1",
    "a\n\x1b[2J",
    "\u202e",
    "rgb16",
    "bayer_rggb8",
    "nv12",
    "x" * 70_000,
)
_LENGTHS = (0, 1, 3, 1000, 300_000)


def run(options: Options) -> list[Row]:
    """One row for each topic."""
    random_ = random.Random(options.seed)
    rig = Rig()
    tried = dict.fromkeys(TOPICS, 0)
    broke = dict.fromkeys(TOPICS, 0)
    notes = dict.fromkeys(TOPICS, "")
    try:
        rig.sweep()
        if not rig.is_right(rig.sweep()):
            return [Row("messages", 1, 1, "no depth without a fault either")]
        count = options.count or _COUNT
        for first in range(0, count, _BETWEEN_STACKS):
            if options.time_is_over:
                break
            what = ""
            try:
                rig.send_frame(0)
                for _ in range(min(_BETWEEN_STACKS, count - first)):
                    topic = random_.choice(list(TOPICS))
                    cdr, change = mutated(topic, rig, random_)
                    what += f"{topic}, {change}; "
                    tried[topic] += 1
                    rig.send(topic, cdr)
                good = any(rig.is_right(rig.sweep()) for _ in range(2))
                rig.advance(10**9)  # timers, diagnostics, the state of the viewer
                problem = "" if good else "no depth of the two stacks that follow"
            except Exception as error:  # this would have ended the node
                problem = f"{type(error).__name__}: {error}"
                rig.close()
                rig = Rig()
                rig.sweep()
            if problem:
                broke[topic] += 1
                notes[topic] = notes[topic] or f"{what}{problem}"
    finally:
        rig.close()
    return [Row(f"messages: {topic}", tried[topic], broke[topic], notes[topic]) for topic in TOPICS if tried[topic]]


def mutated(topic: str, rig: Rig, random_: random.Random) -> tuple[bytes, str]:
    """CDR of a message with a fault, and its description."""
    kind = TOPICS[topic]
    for _ in range(100):
        msg = copy.deepcopy(_valid(topic, rig))
        if random_.random() < 0.3:
            return _spoilt(bytes(serialize(msg, kind)), random_)
        what = "; ".join(_mutate(msg, random_) for _ in range(random_.choice((1, 1, 1, 2))))
        try:
            return bytes(serialize(msg, kind)), what
        except ValueError:  # the field cannot hold the value
            continue
    return b"", "empty"


def _valid(topic: str, rig: Rig) -> Message:
    inputs = rig.messages(1)
    if topic in inputs:
        return inputs[topic]
    if topic == "/diagnostics":
        status = Diagnostic("WARN", "late images", {"late": 3, "LensPosition": 1.5, "used": 9, "state": "computing"})
        return diagnostics_message({"dfs: depth": status, "dfs: transport": status}, rig.bus.now_ns())
    kind = OUTPUTS[topic]
    if topic.startswith("depth") and kind == IMAGE:
        return depth_message(np.full((24, 32), 0.9, np.float32), rig.bus.now_ns(), "lens")
    return inputs["camera_info"] if kind.endswith("Info") else inputs["image"] if kind == IMAGE else message(kind)


def _mutate(msg: Message, random_: random.Random) -> str:
    holder, name = random_.choice(list(_leaves(msg)))
    value = getattr(holder, name)
    new: Any
    if isinstance(value, np.ndarray) or (isinstance(value, list) and not value):
        new = np.resize(np.asarray(value), random_.choice(_LENGTHS)) if np.size(value) else value
        if np.size(new) and random_.random() < 0.5 and new.dtype.kind == "f":
            new = np.full(new.shape, random_.choice(_FLOATS), new.dtype)
        if np.shape(new) != np.shape(value) and isinstance(value, np.ndarray) and value.dtype.kind == "f":
            new = np.resize(new, value.shape) if random_.random() < 0.7 else new
    elif isinstance(value, list):
        new = value * random_.choice((0, 2, 1000))
    elif isinstance(value, str):
        new = random_.choice(_TEXTS)
    elif isinstance(value, float):
        new = random_.choice(_FLOATS)
    else:
        new = random_.choice(_INTEGERS)
    setattr(holder, name, new)
    return f"{name} = {str(new)[:40]!r}"


def _leaves(msg: Message) -> Iterator[tuple[Message, str]]:
    for name in msg.__dataclass_fields__:
        value = getattr(msg, name)
        if name.startswith("_"):
            continue
        if hasattr(value, "__dataclass_fields__"):
            yield from _leaves(value)
            continue
        yield msg, name
        for each in value if isinstance(value, list) else ():
            if hasattr(each, "__dataclass_fields__"):
                yield from _leaves(each)


def _spoilt(cdr: bytes, random_: random.Random) -> tuple[bytes, str]:
    at = random_.randrange(min(len(cdr), 200))
    kind = random_.choice(("cut", "repeated", "flipped", "length"))
    if kind == "cut":
        return cdr[:at], f"cut after {at} bytes"
    if kind == "repeated":
        return cdr[:at] + cdr[max(0, at - 16) :], f"16 bytes before {at} repeated"
    if kind == "length":
        return cdr[:at] + b"\xff\xff\xff\xff" + cdr[at + 4 :], f"4 bytes of 255 at {at}"
    return cdr[:at] + bytes([cdr[at] ^ 1 << random_.randrange(8)]) + cdr[at + 1 :], f"bit flipped in byte {at}"
