"""The V4L2 camera on linuxpy as it is, with only the kernel played: what it sends, and what it leaves."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("linuxpy", reason="linuxpy is not installed: pip install linuxpy")

from v4l2_kernel import EXPOSURE, EXPOSURE_AUTO, FOCUS_AUTO
from v4l2_rig import Bench, bench, first, taken

from dfs_ros.camera.source import SweepCamera
from dfs_ros.config import StackConfig
from dfs_ros.lens.calibration import PARAMETERS, LensCalibration
from dfs_ros.messages.convert import CAMERA_INFO, IMAGE, stamp_ns
from dfs_ros.messages.convert import FOCUS as FOCUS_TYPE
from dfs_ros.messages.definitions import message_class
from dfs_ros.stacks.assembler import StackAssembler
from dfs_ros.transport.local import LocalBus, LocalTransport
from dfs_ros.types import LensState

__all__ = ["bench"]  # fixtures


@pytest.mark.parametrize("code", ["GREY", "YUYV", "MJPG"])
@pytest.mark.parametrize("at_start", [True, False])
def test_no_image_is_taken_before_the_lens_has_arrived(bench: Bench, code: str, at_start: bool) -> None:
    bench.plug_in(start_of_exposure=at_start)
    source = bench.source({"pixel_format": code})
    frames = first(source, 60)
    assert source.size == (48, 64)
    good = taken(frames)
    assert len(good) >= 5
    for i, frame in enumerate(good):
        place = [(0, i), (1, i - 5), (2, i - 10), (3, i - 15)][i // 5]
        assert (frame.focus.sweep_id, frame.focus.index, frame.focus.count) == (*place, 5)
        assert frame.source == "COMMANDED"
        # The picture of this camera is where its lens truly was, averaged over the exposure.
        grey = {"GREY": frame.raw_position, "MJPG": frame.raw_position}.get(code)
        seen = float(frame.image.mean())
        expected = grey if grey is not None else np.clip((frame.raw_position - 16) * 255 / 219, 0, 255)
        assert seen == pytest.approx(expected, abs=1.5), i
        assert frame.focus.focus_diopters == pytest.approx(frame.raw_position / 50)
        assert frame.focus.focus_sigma_diopters == pytest.approx(0.1)
    order = [frame.raw_position for frame in good[:10]]
    assert order[:5] == [250, 190, 125, 60, 0]  # steps of 5: what the lens can, and its true dioptres
    assert order[5:] == [0, 60, 125, 190, 250][: len(order) - 5]
    moving = [f for f in frames if f.focus.lens_state == LensState.MOVING]
    assert moving
    for frame in moving:
        assert (frame.source, frame.focus.count) == ("INTERPOLATED", 0)
        low, high = sorted((frame.focus.focus_start_diopters, frame.focus.focus_end_diopters))
        assert low <= frame.focus.focus_diopters <= high


def test_stamps_rise_and_are_of_the_exposure(bench: Bench) -> None:
    import time

    before = time.time_ns()
    stamps = [f.focus.stamp_ns for f in first(bench.source(), 20)]
    assert before - 10**9 < stamps[0] and stamps[-1] < time.time_ns()
    assert all(b > a for a, b in itertools.pairwise(stamps))


def test_sweeps_become_whole_stacks(bench: Bench) -> None:
    assembler = StackAssembler(StackConfig(max_span_s=60.0))  # of a busy machine
    stacks = []
    for frame in first(bench.source({"positions": 3}), 60):
        stacks += assembler.add_focus(frame.focus)
        stacks += assembler.add_image(frame.focus.stamp_ns, frame.image)
    assert len(stacks) >= 2
    assert all(stack.complete for stack in stacks)
    assert sorted(f.focus_diopters for f in stacks[0].frames) == pytest.approx([0.0, 2.5, 5.0])
    counts = assembler.counts
    assert counts["moving"] > 0
    assert counts["dropped"] == counts["incomplete"] == counts["same_focus"] == counts["late"] == 0


def test_autofocus_is_switched_off_and_everything_set_back(bench: Bench) -> None:
    frames = bench.source({"exposure_s": 0.005}).frames()
    next(frames)
    assert [bench.camera.control(c).value for c in (FOCUS_AUTO, EXPOSURE_AUTO, EXPOSURE)] == [0, 1, 50]
    assert bench.camera.log[0] == (FOCUS_AUTO, 0)  # else focus_absolute is refused
    assert bench.camera.streaming
    frames.close()
    assert not bench.camera.streaming
    values = {c.name: c.value for c in bench.camera.controls}
    assert values == {
        "Auto Exposure": 3,
        "Exposure Time, Absolute": 250,
        "Focus, Absolute": 40,
        "Focus, Automatic Continuous": 1,
    }
    assert bench.camera.log[-1] == (FOCUS_AUTO, 1)  # last, as focus_absolute can only be set without


def test_fixed_exposure_is_told(bench: Bench) -> None:
    frames = first(bench.source({"exposure_s": 0.005}), 3)
    assert {f.focus.exposure_ns for f in frames} == {5_000_000}
    assert {f.focus.exposure_ns for f in first(bench.source(), 3)} == {0}


def test_lost_and_damaged_images_are_counted(bench: Bench) -> None:
    bench.plug_in(damage=range(0, 10**9, 7))
    source = bench.source()
    frames = first(source, 20)
    assert source.counts["damaged"] >= 2
    assert all(f.image.shape == (48, 64) for f in frames)
    bench.plug_in(lose=range(3, 10**9, 5))
    source = bench.source()
    first(source, 20)
    assert source.counts["lost"] >= 4


def test_commanded_positions_and_calibrated_intrinsics(bench: Bench) -> None:
    info = bench.folder / "camera.yaml"
    matrix = {"rows": 3, "cols": 3, "data": [70.0, 0, 32.5, 0, 71.0, 24.5, 0, 0, 1]}
    document = {"image_width": 64, "image_height": 48, "camera_matrix": matrix}
    info.write_text(yaml.safe_dump({**document, "distortion_coefficients": {"data": [0.1, 0, 0, 0, 0]}}))
    source = bench.source({"focus_diopters": "4, 1", "camera_info": str(info)}, lens={"f_number": 2.0})
    assert [f.raw_position for f in taken(first(source, 16))][:2] == [200, 50]
    assert source.intrinsics == (70.0, 71.0, 32.5, 24.5)
    assert source.distortion == (0.1, 0.0, 0.0, 0.0, 0.0)
    assert bench.source().intrinsics == pytest.approx((4000 / 3, 4000 / 3, 31.5, 23.5))


def test_as_messages_of_a_node(bench: Bench) -> None:
    bus = LocalBus()
    camera, listener = LocalTransport("camera", bus), LocalTransport("listener", bus)
    got: dict[str, list[Any]] = {"image": [], "camera_info": [], "focus": []}
    for topic, kind in (("image", IMAGE), ("camera_info", CAMERA_INFO), ("focus", FOCUS_TYPE)):
        listener.create_subscription(topic, kind, got[topic].append)
    config = bench.config()
    sweeping = SweepCamera(camera, bench.source(), config.camera)
    camera.manage(sweeping)
    while len(got["image"]) < 12:
        camera.spin_once(1.0)
        while listener.spin_once(0):
            pass
    sweeping.close()
    constants: Any = message_class(FOCUS_TYPE)
    assert {m.source for m in got["focus"]} <= {constants.COMMANDED, constants.INTERPOLATED}
    assert {m.calibration for m in got["focus"]} == {constants.CALIBRATED}
    assert {m.raw_unit for m in got["focus"]} == {"focus_absolute"}
    for messages in zip(*got.values(), strict=True):
        assert len({(stamp_ns(m.header.stamp), m.header.frame_id) for m in messages}) == 1
    assert bench.camera.control(FOCUS_AUTO).value == 1
    sweeping.activate()  # a node that is configured and activated once more
    camera.spin_once(1.0)
    assert bench.camera.streaming
    sweeping.close()
    assert not bench.camera.streaming


def test_the_camera_describes_itself(bench: Bench) -> None:
    """The description names the camera, and a sweep's length includes what settles."""
    source = bench.source({"settle_s": 0.1})
    assert source.description.startswith("Fake Webcam at ")
    assert "5 focus positions from 0 to 5 dioptres, each settles for 0.1 s" in source.description
    assert source.frames_per_sweep == 5 * 12


def test_a_calibrated_lens_gives_focus_scale_lens_and_intrinsics(bench: Bench) -> None:
    names = ("fx_px", "cx_px", "cy_px", "k1", "k2", "breathing1", "breathing2", "focus0", "focus1", "focus2")
    values = np.array([60.0, 32.0, 23.0, 0.1, 0.0, 0.02, 0.0, 2.5, 2.5, 0.0, 0.08, 0, 0, 0, 0.002, 0, 0.3, 0.1, 0])
    covariance = np.diag(np.full(len(values), 1e-8))
    covariance[7, 7] = 0.05**2
    assert PARAMETERS[: len(names)] == names
    lens = LensCalibration((48, 64), 125.0, 125.0, values, covariance, unit="focus_absolute")
    bench.table.write_bytes(lens.yaml())
    source = bench.source(lens={})
    assert source.intrinsics[2:] == (32.0, 23.0)
    assert source.intrinsics[0] == pytest.approx(lens.camera.fx_px)
    assert source.distortion[:2] == (0.1, 0.0)
    good = taken(first(source, 70))[:10]
    down, up = good[1:5], good[6:10]
    for frames, direction in ((down, -1), (up, 1)):
        for frame in frames:
            e = (frame.raw_position - 125) / 125 - direction * 0.04
            assert frame.focus.focus_diopters == pytest.approx(max(2.5 + 2.5 * e, 0.0), abs=1e-5)
            assert frame.focus.focus_sigma_diopters == pytest.approx(np.hypot(0.05, 0.01), rel=0.01)
            scale = frame.focus.magnification * source.intrinsics[0] / 60.0
            assert scale == pytest.approx(1 + 0.02 * e, abs=1e-6)
            assert (frame.focus.focal_length_m, frame.focus.f_number) == (
                lens.camera.focal_length_m,
                lens.camera.f_number,
            )
    bench.table.write_bytes(LensCalibration((60, 80), 125.0, 125.0, values, covariance).yaml())
    with pytest.raises(ValueError, match="is of 80 x 60 pixels, the images have 64 x 48: calibrate at that size"):
        bench.source()
