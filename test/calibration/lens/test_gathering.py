"""Gathering of images of a board from a camera that sweeps its lens: what is kept, what the user is told."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from lens_rig import BOARD
from node_rig import MS, START_NS
from numpy.typing import NDArray

from dfs_ros.calibration.lens.gathering import Gathering, LensImage, gather, read_steps
from dfs_ros.calibration.lens.listening import LensListener
from dfs_ros.calibration.lens.response import StepImage, response_of, step_shares
from dfs_ros.config import Config
from dfs_ros.io.csv_table import read_table
from dfs_ros.messages.convert import (
    DIAGNOSTICS,
    FOCUS,
    IMAGE,
    Diagnostic,
    diagnostics_message,
    focus_message,
    image_message,
)
from dfs_ros.transport.local import LocalBus, LocalTransport
from dfs_ros.types import FocusMetadata, LensState

RAWS = (0.0, 10.0, 20.0, 30.0, 40.0)
UP_AND_DOWN = (*RAWS, *RAWS[-2::-1])
PERIOD_NS = 40 * MS


@functools.cache
def seen(pose: int, raw: float, halfway: bool = False) -> NDArray[np.uint8]:
    """Board at one of two distances, sharpest at 20; `halfway` there from the position before."""
    height, width = 4 * 90, 5 * 90
    sheet = np.full((height + 60, width + 60), 220, np.uint8)
    sheet[30:-30, 30:-30] = BOARD.pattern.generateImage((width, height))
    scale, aside = (0.42, 15.0) if pose == 0 else (0.22, 70.0)
    matrix = np.array([[scale, 0.04 * scale, aside], [0, scale, 20], [0.0003, 0, 1]])
    image = cv2.warpPerspective(sheet, matrix, (240, 180), borderValue=128)
    blur = abs((raw - 5 if halfway else raw) - 20) / 16 + 0.5
    return np.asarray(cv2.GaussianBlur(image, (0, 0), blur), np.uint8)


def swept(pose: int, raws: tuple[float, ...], start_ns: int = START_NS) -> Iterator[LensImage]:
    """Three images at each position: the lens as before, on its way, and there."""
    before = raws[0]
    for i, raw in enumerate(raws):
        command_ns = start_ns + 3 * i * PERIOD_NS
        for k, image in enumerate((seen(pose, before), seen(pose, raw, i > 0 and raw > before), seen(pose, raw))):
            yield LensImage(image, raw, command_ns + k * PERIOD_NS, command_ns)
        before = raw


def positions(folder: Path) -> list[tuple[float, int]]:
    _, lines = read_table(folder / "positions.csv", ("file", "raw_position", "stamp_ns", "sweep"))
    return [(float(row["raw_position"]), int(row["sweep"])) for _, row in lines]


def test_poses_are_kept_and_the_next_thing_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    gathering = Gathering(tmp_path, BOARD, 2, told.append)
    assert gathering.advice().startswith("show the board")
    for image in swept(0, UP_AND_DOWN):
        gathering.add(image)
    for image in swept(0, RAWS):  # still there
        gathering.add(image)
    assert len(told) == 1 and told[0].startswith("pose 1: ") and "next: move the board away" in told[0]
    for image in swept(1, (*UP_AND_DOWN, *RAWS[1:])):
        gathering.add(image)
    assert len(told) == 2 and gathering.whole and "next" not in told[1]
    near, far = gathering.shown
    assert far.distance_m / near.distance_m == pytest.approx(0.42 / 0.22, rel=0.1)
    gathering.finish()
    kept = positions(tmp_path)
    assert {sweep for _, sweep in kept} == {0, 1}
    assert all({raw for raw, number in kept if number == sweep} == set(RAWS) for sweep in (0, 1))
    assert len(list(tmp_path.glob("*.png"))) == len(kept)
    steps = read_steps(tmp_path / "steps.csv")
    assert {round(step.since_s, 3) for step in steps} == {0.0, 0.04, 0.08}
    assert all(step.share == pytest.approx(0.0, abs=0.02) for step in steps if step.since_s == 0)
    assert all(step.share == pytest.approx(1.0) for step in steps if step.since_s > 0.07)


def test_an_interrupt_keeps_what_is_there_and_a_later_call_adds(tmp_path: Path) -> None:
    def interrupted() -> Iterator[LensImage]:
        yield from swept(0, (*RAWS, 30.0))
        raise KeyboardInterrupt

    gathering = Gathering(tmp_path, BOARD, 2, lambda text: None)
    gather(interrupted(), gathering)
    assert not gathering.whole and positions(tmp_path) == [*((raw, 0) for raw in RAWS), (30.0, 0)]
    again = Gathering(tmp_path, BOARD, 2, lambda text: None)
    assert again.poses == 1
    gather(swept(1, (*UP_AND_DOWN, *RAWS)), again)
    assert again.whole and {sweep for _, sweep in positions(tmp_path)} == {0, 1}
    other = tmp_path / "other"
    other.mkdir()
    (other / "photo.jpg").touch()
    with pytest.raises(ValueError, match="expected a new or empty folder, or one that was gathered"):
        Gathering(other, BOARD, 2, lambda text: None)


def test_a_board_that_is_not_seen_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    gathering = Gathering(tmp_path / "none", BOARD, 1, told.append)
    for i in range(62):
        gathering.add(LensImage(np.full((60, 80), 90, np.uint8), float(i % 7), START_NS + i, START_NS + i))
    gathering.finish()
    assert len(told) == 1 and "the board is not seen: is --board as printed" in told[0]
    assert not (tmp_path / "none").exists()


def response_images(latency_s: float, travel_s: float, period_s: float = 0.033) -> list[StepImage]:
    return [
        StepImage(step, t, float(np.clip((t - latency_s) / travel_s, 0, 1)))
        for step in range(12)
        for t in (np.arange(10) * period_s + step / 12 * period_s).tolist()
    ]


def test_response_is_that_of_the_steps() -> None:
    found = response_of(response_images(0.07, 0.1))
    assert found is not None and found.steps == 12
    assert found.latency_s == pytest.approx(0.08, abs=0.006)  # a tenth of the way
    assert found.settle_s == pytest.approx(0.16, abs=0.006)  # nine tenths
    assert response_of(response_images(0.07, 0.1)[:30]) is None
    with pytest.raises(ValueError, match=r"the lens still moves 0\.3\d s after a command"):
        response_of(response_images(0.2, 0.2))
    one, other = seen(0, 20.0), seen(0, 40.0)
    mixed = np.rint(0.75 * one.astype(float) + 0.25 * other.astype(float)).astype(np.uint8)
    assert step_shares(one, [one, mixed, other]) == pytest.approx([0.0, 0.25, 1.0], abs=0.01)
    assert step_shares(one, [other, one]) == []


@pytest.mark.parametrize("source", ["focus", "commands", "diagnostics"])
def test_images_and_lens_positions_of_topics_meet(source: str) -> None:
    bus = LocalBus(START_NS)
    camera = LocalTransport("camera", bus)
    node = LocalTransport("calibrate", bus, config=Config.from_dict({"node": {"focus_source": source}}))
    images = camera.create_publisher("image", IMAGE)
    focus = camera.create_publisher("focus", FOCUS)
    diagnostics = camera.create_publisher("/diagnostics", DIAGNOSTICS)
    listener = LensListener(node)
    for i in range(6):
        stamp, raw = START_NS + i * PERIOD_NS, float(i // 2)
        images.publish(image_message(np.full((16, 16), i, np.uint8), stamp, "camera"))
        if source == "diagnostics":
            said = diagnostics_message({"camera": Diagnostic("OK", "", {"LensPosition": raw, "AfState": 0})}, stamp)
            diagnostics.publish(diagnostics_message({"other": Diagnostic("OK", "", {})}, stamp))
            diagnostics.publish(said)
        elif source == "focus" or i % 2 == 0:
            at_ns = stamp - (10 * MS if source == "commands" else 0)
            state = LensState.MOVING if i == 2 else LensState.UNKNOWN
            metadata = FocusMetadata(at_ns, 0.5, lens_state=state)
            focus.publish(focus_message(metadata, "camera", raw_position=raw, raw_unit="dac"))
        while node.spin_once(0):
            pass
    listener.finish()
    assert [int(each.grey[0, 0]) for each in listener.ready] == list(range(6))
    assert [each.raw for each in listener.ready] == [0, 0, 1, 1, 2, 2]
    late_ns = 10 * MS if source == "commands" else 0
    assert [each.stamp_ns - each.command_ns for each in listener.ready] == [late_ns, late_ns + PERIOD_NS] * 3
    assert listener.unit == ("LensPosition" if source == "diagnostics" else "dac")
    assert [each.moving for each in listener.ready][:3] == [False, False, source != "diagnostics"]
    with pytest.raises(ValueError, match="expected focus, commands or diagnostics"):
        LensListener(LocalTransport("other", bus, config=Config.from_dict({"node": {"focus_source": "schedule"}})))
