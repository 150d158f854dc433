"""Cameras that report the lens position of each image: Raspberry Pi and OAK, down to their libraries' calls."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lens_rig import true_calibration
from reporting_cameras import Sensor, plug_in_oak, plug_in_raspberry_pi

from dfs_ros.camera.raw_sweep import RawSweep, both_ways
from dfs_ros.camera.source import FrameSource, SourceFrame
from dfs_ros.camera.swept import clock_offset_ns
from dfs_ros.cli import calibrate_lens
from dfs_ros.cli.main import main
from dfs_ros.cli.participants import make_source, swept_camera
from dfs_ros.config import Config
from dfs_ros.io.stack_folder import load_stack
from dfs_ros.types import LensState

LENS = {"focal_length_m": 0.00474, "f_number": 1.8, "pixel_pitch_m": 1.4e-6}
TABLE = """format: lens-table/1
unit: {unit}
points: [{{raw: 0, focus_diopters: 0.5}}, {{raw: 200, focus_diopters: 10.5}}]
"""


def config_of(kind: str, **sections: dict[str, Any]) -> Config:
    camera = {"source": kind, "width": 36, "height": 32, "rate_hz": 30}
    reporting = {"settle_s": 0.11, "focus_diopters": "8, 4.5, 1", "timeout_s": 1.0}
    whole = {"camera": camera, "reporting": reporting, "lens": LENS}
    return Config.from_dict({name: {**whole.get(name, {}), **sections.get(name, {})} for name in {**whole, **sections}})


def first(source: FrameSource, count: int) -> list[SourceFrame]:
    frames = source.frames()
    try:
        return [frame for frame in itertools.islice(frames, count) if frame is not None]
    finally:
        frames.close()


def taken(frames: list[SourceFrame]) -> list[SourceFrame]:
    return [frame for frame in frames if frame.focus.lens_state == LensState.STATIONARY]


@pytest.fixture
def dac(tmp_path: Path) -> Path:
    file = tmp_path / "lens.yaml"
    file.write_text(TABLE.format(unit="lens_position"))
    return file


@pytest.mark.parametrize(
    ("kind", "plug_in", "level"), [("picamera2", plug_in_raspberry_pi, 20.0), ("oak", plug_in_oak, 1.0)]
)
def test_images_are_of_the_reported_position_after_the_lens_has_settled(
    kind: str, plug_in: Callable[[pytest.MonkeyPatch], Sensor], level: float, dac: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sensor = plug_in(monkeypatch)
    lens = {"calibration": str(dac)} if kind == "oak" else {}
    frames = first(make_source(config_of(kind, lens=lens)), 45)
    good = taken(frames)
    assert len(good) >= 8
    for i, frame in enumerate(good):
        assert (frame.focus.sweep_id, frame.focus.index, frame.focus.count) == (i // 3, i % 3, 3)
        assert frame.source == "REPORTED" and frame.focus.exposure_ns == sensor.exposure_ns
        assert int(frame.image[0, 0, 0]) == round(level * frame.raw_position)  # where the lens truly was
    raws = {"picamera2": [8, 4.5, 1, 1, 4.5, 8], "oak": [150, 80, 10, 10, 80, 150]}[kind]
    assert [frame.raw_position for frame in good[:6]] == raws
    assert [frame.focus.focus_diopters for frame in good[:6]] == pytest.approx([8, 4.5, 1, 1, 4.5, 8])
    assert {frame.calibration for frame in good} == {"CALIBRATED" if kind == "oak" else "APPROXIMATE"}
    assert any(frame.focus.lens_state == LensState.MOVING for frame in frames)
    hasty = taken(first(make_source(config_of(kind, lens=lens, reporting={"settle_s": 0.001})), 20))
    assert any(abs(int(f.image[0, 0, 0]) - level * f.raw_position) > 5 for f in hasty)  # the lens does lag


def test_a_sweep_for_calibration_tells_when_each_position_was_first_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    sensor = plug_in_raspberry_pi(monkeypatch)
    camera = swept_camera(config_of("picamera2"))
    swept = RawSweep(camera, 0.11, 5, both_ways)
    assert swept.positions == [0, 2.5, 5, 7.5, 10]
    images = list(itertools.islice(swept.images(), 90))
    settled = [each for each in images if each.sweep is not None]
    assert [each.raw for each in settled[:8]] == [0, 2.5, 5, 7.5, 10, 5, 0, 2.5]
    for each in settled:
        assert each.start_ns - each.command_ns >= 110_000_000
        assert (each.command_ns - 10**9) % sensor.period_ns in (0, sensor.exposure_ns + sensor.readout_ns)
        assert int(each.image[0, 0, 0]) == round(20 * each.raw)


def test_the_commands_of_the_tutorial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`dfs calibrate lens` and `dfs capture` with these cameras, as far as they go without a board."""
    plug_in_oak(monkeypatch)
    parser = argparse.ArgumentParser()
    calibrate_lens.add_arguments(parser)
    args = parser.parse_args(["--source", "oak", "--output", "lens.yaml", "--size", "36x32", "--positions", "6"])
    camera = calibrate_lens._swept_camera(args, Config())
    images = list(itertools.islice(calibrate_lens._swept_images(camera, args, Config()), 90))
    resting = [image for image in images if not image.moving]
    assert {image.raw for image in resting} == {0, 51, 102, 153, 204, 255}
    assert all(image.grey.shape == (32, 36) and image.grey[0, 0] == image.raw for image in resting)

    plug_in_raspberry_pi(monkeypatch)
    settings = {"reporting.focus_diopters": "8,4.5,1", "reporting.settle_s": "0.11", "lens.pixel_pitch_m": "1.4e-6"}
    settings |= {"lens.focal_length_m": "0.00474", "lens.f_number": "1.8", "stack.max_span_s": "60"}
    arguments = [text for name, value in settings.items() for text in ("--set", f"{name}={value}")]
    taken = tmp_path / "taken"
    assert main(["capture", "--output", str(taken), "--source", "picamera2", "--size", "36x32", *arguments]) == 0
    stack = load_stack(taken)
    assert sorted(stack.focus_diopters) == pytest.approx([1, 4.5, 8])
    assert [int(image[0, 0, 0]) for image in stack.images] == [round(20 * focus) for focus in stack.focus_diopters]


def test_stamps_do_not_jump_where_the_thread_loses_its_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """For 20 ms, between the clock of the camera and that of the wall, at the first two attempts."""
    now, lost = [1000], [20_000_000, 20_000_000]

    def wall_ns() -> int:
        now[0] += lost.pop() if lost else 0
        return now[0] + 7_000_000

    monkeypatch.setattr("dfs_ros.camera.swept.time.time_ns", wall_ns)
    assert clock_offset_ns(lambda: now[0]) == 7_000_000
    assert lost == []


def test_a_square_size_that_contradicts_the_dioptres_of_the_camera() -> None:
    known = true_calibration()
    for squares, words in ((1.0, ""), (0.7, "a dioptre of the camera measures 1.43: is square_m, as printed, right?")):
        half_range = known["focus1"] * squares  # dioptres of the board are inverse distances in squares
        lens = dataclasses.replace(known, unit="LensPosition", raw_centre=known["focus0"], raw_half_range=half_range)
        warnings = calibrate_lens._against_nominal(lens)
        assert len(warnings) == bool(words) and words in "".join(warnings)


def test_a_lens_that_does_not_go_where_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    sensor = plug_in_raspberry_pi(monkeypatch)
    source = make_source(config_of("picamera2"))
    sensor.deaf = True
    with pytest.raises(
        TimeoutError, match=r"imx708 .*: the lens does not go to LensPosition 8: its images report 1 aft"
    ):
        first(source, 1)


def test_cameras_that_cannot_be_used(dac: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in_raspberry_pi(monkeypatch)
    for reporting, camera, words in (
        ({"device": "1"}, {}, "expected the number of a camera, received '1'; there is 0: imx708"),
        ({}, {"width": 34, "height": 40}, "expected 34 x 40 BGR888, the camera offers 32 x 40"),
    ):
        with pytest.raises(ValueError, match=words):
            make_source(config_of("picamera2", reporting=reporting, camera=camera))
    with pytest.raises(
        ValueError, match=r"is of lens positions in lens_position, .* has LensPosition: is the calibration"
    ):
        make_source(config_of("picamera2", lens={"calibration": str(dac)}))
    plug_in_raspberry_pi(monkeypatch, fixed_lens=True)
    with pytest.raises(ValueError, match="has no focus that can be set"):
        make_source(config_of("picamera2"))
    plug_in_oak(monkeypatch)
    with pytest.raises(ValueError, match=r"lens\.calibration: expected a file that says which lens_position"):
        make_source(config_of("oak"))
    with pytest.raises(OSError, match="no OAK camera absent: Cannot find any device"):
        make_source(config_of("oak", reporting={"device": "absent"}, lens={"calibration": str(dac)}))
    plug_in_oak(monkeypatch, fixed_lens=True)
    with pytest.raises(ValueError, match="none of its cameras has a focus motor: IMX378 at CAM_A"):
        make_source(config_of("oak", lens={"calibration": str(dac)}))


@pytest.mark.parametrize(("kind", "words"), [("picamera2", "apt install python3-picamera2"), ("oak", "depthai>=3'")])
def test_a_missing_library_is_named(
    kind: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, {"oak": "depthai"}.get(kind, kind), None)
    assert main(["camera", "--source", kind]) == 1
    assert words in capsys.readouterr().err
    assert main(["calibrate", "lens", "--source", kind, "--output", str(tmp_path / "lens.yaml")]) == 1
    assert words in capsys.readouterr().err


def test_messages_of_depthai_itself() -> None:
    """The real library's messages, without a device: units, times and byte order."""
    dai = pytest.importorskip("depthai", reason="depthai is not installed: pip install 'depthai>=3'")
    from dfs_ros.camera.oak import OakCamera

    camera = OakCamera.__new__(OakCamera)
    camera._dai, camera._period_ns = dai, 33_000_000
    image = dai.ImgFrame()
    bgr = np.zeros((8, 12, 3), np.uint8)
    bgr[..., 0] = 200
    image.setCvFrame(bgr, dai.ImgFrame.Type.BGR888i)
    image.setSequenceNum(7)
    frame = camera.frame_of(image)
    assert frame.image is not None and frame.image[0, 0].tolist() == [0, 0, 200]
    assert frame.sequence == 7 and frame.raw == 0.0
    assert frame.end_ns - frame.start_ns == 33_000_000
    video = dai.ImgFrame()  # as the camera is asked for
    video.setType(dai.ImgFrame.Type.NV12)
    video.setWidth(12).setHeight(8)
    video.setData(np.r_[np.full(96, 180), np.full(48, 128)].astype(np.uint8))
    grey = camera.frame_of(video).image
    assert grey is not None and grey.shape == (8, 12, 3) and np.ptp(grey) == 0
    command = dai.CameraControl()
    command.setManualFocus(120)
    assert command.getLensPosition() == 120
    assert abs(camera.now_ns() - time.monotonic_ns()) < 10**9
