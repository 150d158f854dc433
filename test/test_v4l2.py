"""The V4L2 camera on linuxpy as it is, with only the kernel played: what it sends, what it leaves, what it says."""

from __future__ import annotations

import errno
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("linuxpy", reason="linuxpy is not installed: pip install linuxpy")

from v4l2_kernel import EXPOSURE, EXPOSURE_AUTO, FOCUS, FOCUS_AUTO, FakeCamera, plugged_in

from dfs_ros.camera.sharpest import sharpest_position, sharpness, spread
from dfs_ros.camera.source import SourceFrame, SweepCamera
from dfs_ros.camera.v4l2 import V4l2Source
from dfs_ros.camera.v4l2_probe import describe_cameras
from dfs_ros.cli.main import main
from dfs_ros.config import Config
from dfs_ros.stack import StackAssembler
from dfs_ros.transport.definitions import message_class
from dfs_ros.transport.local import LocalBus, LocalTransport
from dfs_ros.transport.messages import CAMERA_INFO, IMAGE, stamp_ns
from dfs_ros.transport.messages import FOCUS as FOCUS_TYPE
from dfs_ros.types import LensState

LENS = {"focal_length_m": 0.004, "f_number": 2.0, "pixel_pitch_m": 3e-6}
TABLE = {
    "format": "lens-table/1",
    "unit": "focus_absolute",
    "points": [
        {"raw": 0, "focus_diopters": 0.0, "sigma_diopters": 0.1},
        {"raw": 250, "focus_diopters": 5.0, "sigma_diopters": 0.1},
    ],
}


class Bench:
    """A camera that is plugged in, and its settings."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.monkeypatch = monkeypatch
        self.table = folder / "lens.yaml"
        self.table.write_text(yaml.safe_dump(TABLE))
        self.plug_in()

    def plug_in(self, **options: Any) -> FakeCamera:
        self.camera = FakeCamera(self.folder / "video0", **options)
        plugged_in(self.monkeypatch, self.camera)
        return self.camera

    def config(self, v4l2: dict[str, Any] | None = None, **sections: dict[str, Any]) -> Config:
        device = {"device": str(self.camera.path), "calibration": str(self.table), "settle_s": 0.03}
        values = {
            "v4l2": {**device, "pixel_format": "GREY", **(v4l2 or {})},
            "camera": {"source": "v4l2", "width": 64, "height": 48, "rate_hz": 100},
            "lens": LENS,
        }
        return Config.from_dict({**values, **sections})

    def source(self, v4l2: dict[str, Any] | None = None, **sections: dict[str, Any]) -> V4l2Source:
        config = self.config(v4l2, **sections)
        return V4l2Source(config.v4l2, config.camera, config.lens)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def first(source: V4l2Source, count: int) -> list[SourceFrame]:
    frames = source.frames()
    try:
        return list(itertools.islice(frames, count))
    finally:
        frames.close()


def taken(frames: list[SourceFrame]) -> list[SourceFrame]:
    return [f for f in frames if f.focus.lens_state == LensState.STATIONARY]


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
    assembler = StackAssembler()
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
    bench.plug_in(damage=frozenset(range(0, 400, 7)))
    source = bench.source()
    frames = first(source, 20)
    assert source.counts["damaged"] >= 2
    assert all(f.image.shape == (48, 64) for f in frames)
    bench.plug_in(lose=frozenset(range(3, 400, 5)))
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


# -- what can be wrong -------------------------------------------------------------------------------------------------


def no_focus(bench: Bench) -> None:
    camera = bench.plug_in()
    camera.controls = [c for c in camera.controls if c.id not in (FOCUS, FOCUS_AUTO)]


def refusing(name: str, number: int) -> Callable[[Bench], None]:
    return lambda bench: bench.camera.refuse.update({name: number})


@pytest.mark.parametrize(
    ("spoil", "kind", "words"),
    [
        (
            no_focus,
            ValueError,
            "has no focus that can be set (focus_absolute); its controls: auto_exposure (0 to 3), "
            "exposure_time_absolute (3 to 2047)",
        ),
        (refusing("S_FMT", errno.EBUSY), OSError, "format 64 x 48 GREY: in use by another program"),
        (refusing("S_FMT", errno.EINVAL), OSError, "format 64 x 48 GREY: the device refuses it"),
        (refusing("STREAMON", errno.ENOSPC), OSError, "capture: the USB bus has no room for it"),
        (refusing("DQBUF", errno.ENODEV), OSError, "capture: the camera is gone"),
        (refusing("S_EXT_CTRLS", errno.EACCES), PermissionError, "focus_automatic_continuous = 0: not allowed"),
        (lambda bench: bench.plug_in(width=80), ValueError, "the device offers 80 x 48 GREY; it has GREY 80x48"),
        (lambda bench: bench.plug_in(codes=("MJPG",)), ValueError, "the device offers 64 x 48 MJPG"),
    ],
)
def test_cameras_that_cannot_be_used(bench: Bench, spoil: Callable[[Bench], None], kind: type, words: str) -> None:
    spoil(bench)
    with pytest.raises(kind) as error:
        first(bench.source(), 3)
    assert words in str(error.value)
    assert not bench.camera.streaming


def test_a_camera_that_is_unplugged(bench: Bench) -> None:
    bench.plug_in(stops_after=20)
    with pytest.raises(OSError, match="the camera is gone"):
        first(bench.source(), 1000)


def test_a_camera_that_sends_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfs_ros.camera.v4l2_device.select.select", lambda *arguments: ([], [], []))
    with pytest.raises(TimeoutError, match=r"Fake Webcam\): no image for 0\.2 s"):
        first(bench.source({"timeout_s": 0.2}), 1)
    assert bench.camera.control(FOCUS_AUTO).value == 1


@pytest.mark.parametrize(
    ("v4l2", "words"),
    [
        ({"calibration": ""}, "v4l2.calibration: expected a file that says which focus_absolute is which dioptres"),
        ({"focus_diopters": "1"}, "v4l2.focus_diopters: expected 2 to 64 positions, received 1"),
        ({"focus_diopters": "1, x"}, "expected numbers with commas between"),
        ({"focus_diopters": "1, 9"}, "expected 0 to 5 dioptres, which the lens calibration covers, received 9"),
        ({"focus_diopters": "1, 1.01"}, "expected focus positions that differ for the lens, received focus_absolute"),
        ({"positions": 60}, "expected focus positions that differ for the lens"),
        ({"exposure_s": 9.0}, "v4l2.exposure_s: expected 0.0003 to 0.2047 s, received 9"),
    ],
)
def test_settings_that_make_no_sense(bench: Bench, v4l2: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError) as error:
        first(bench.source(v4l2), 1)
    assert words in str(error.value)
    assert bench.camera.control(FOCUS_AUTO).value == 1


def test_a_calibration_of_another_lens(bench: Bench) -> None:
    bench.table.write_text(
        yaml.safe_dump({**TABLE, "points": [{"raw": 0, "focus_diopters": 0}, {"raw": 900, "focus_diopters": 5}]})
    )
    with pytest.raises(ValueError, match=r"5 dioptres is focus_absolute 900, the camera takes 0 to 250"):
        bench.source()


def test_without_intrinsics(bench: Bench) -> None:
    with pytest.raises(ValueError, match=r"v4l2\.camera_info: expected a camera calibration"):
        bench.source(lens={"f_number": 2.0})


def test_no_such_camera(bench: Bench) -> None:
    with pytest.raises(FileNotFoundError, match=r"video7: no such camera; there is"):
        bench.source({"device": str(bench.folder / "video7")})


def test_a_file_that_is_no_camera(bench: Bench) -> None:
    other = bench.folder / "notes.txt"
    other.write_text("no camera")
    with pytest.raises(OSError, match=r"notes\.txt: is no video device"):
        bench.source({"device": str(other)})


# -- commands ----------------------------------------------------------------------------------------------------------


def test_probing(bench: Bench) -> None:
    text = describe_cameras(bench.folder)
    assert "video0: Fake Webcam: focus_absolute from 0 to 250 in steps of 5" in text
    assert "formats: GREY 64x48; YUYV 64x48; MJPG 64x48" in text
    assert "focus_absolute (0 to 250)" in text
    no_focus(bench)
    assert "Fake Webcam: focus cannot be set" in describe_cameras(bench.folder)
    assert "no V4L2 cameras" in describe_cameras(bench.folder / "none")


def test_the_camera_command_refuses_before_it_starts(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    device = str(bench.camera.path)
    assert main(["camera", "--source", "v4l2", device]) == 2
    assert "v4l2.calibration: expected a file" in capsys.readouterr().err
    assert main(["camera", "--source", "v4l2", device, "--calibration", str(bench.table)]) == 2
    assert "v4l2.camera_info: expected a camera calibration" in capsys.readouterr().err
    assert main(["camera", "--source", "v4l2", "a", "b"]) == 2
    assert "--source: expected 'sim', 'stack DIR' or 'v4l2 [DEVICE]'" in capsys.readouterr().err


class SharpAt(FakeCamera):
    """Sees a chequerboard that is sharp where the lens is at `sharp_at`."""

    sharp_at = 117.0

    def _pixels(self, level: float) -> bytes:
        import cv2

        y, x = np.indices((self.height, self.width))
        board = (((x // 4) + (y // 4)) % 2 * 160 + 40).astype(np.float32)
        blurred = cv2.GaussianBlur(board, (0, 0), 0.5 + abs(level - self.sharp_at) / 25)
        return np.rint(blurred).astype(np.uint8).tobytes()


def test_a_table_is_measured_point_by_point(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.camera = SharpAt(bench.folder / "video1", rate_hz=200, travel_s=0.004)
    plugged_in(bench.monkeypatch, bench.camera)
    table = bench.folder / "new.yaml"
    options = ["--size", "64x48", "--pixel-format", "GREY", "--rate", "200", "--settle", "0.005", "--repeats", "2"]

    def point(distance: str, sharp_at: float) -> int:
        SharpAt.sharp_at = sharp_at
        command = ["focus-table", str(bench.camera.path), "--distance", distance, "--output", str(table)]
        return main([*command, "--positions", "26", *options])

    assert point("0.5", 117.0) == 0
    assert "2 dioptres; the first point; one more at least" in capsys.readouterr().out
    assert point("0.25", 203.0) == 0
    assert point("inf", 31.0) == 0
    document = yaml.safe_load(table.read_text())
    assert [p["focus_diopters"] for p in document["points"]] == [0.0, 2.0, 4.0]
    assert [p["raw"] for p in document["points"]] == pytest.approx([31, 117, 203], abs=3)
    assert all(0.005 < p["sigma_diopters"] < 0.2 for p in document["points"][::2])
    before = table.read_text()
    assert point("0.3", 60.0) == 2  # 3.3 dioptres where the lens is focused at less than 2
    assert "expected rising or falling throughout" in capsys.readouterr().err
    assert table.read_text() == before
    assert point("0.25", 198.0) == 0  # measured again, in place of the first time
    assert [p["raw"] for p in yaml.safe_load(table.read_text())["points"]] == pytest.approx([31, 117, 198], abs=3)


def test_sharpness_peaks() -> None:
    x = np.arange(0.0, 250.0, 10.0)
    values = np.exp(-(((x - 123.4) / 30) ** 2)) + 1e-3
    assert sharpest_position(x, values) == pytest.approx(123.4, abs=0.5)
    with pytest.raises(ValueError, match="no lens position is clearly sharper"):
        sharpest_position(x, np.ones_like(x))
    with pytest.raises(ValueError, match="is the end of the lens's range"):
        sharpest_position(x, np.exp(-x / 30))
    with pytest.raises(ValueError, match="expected five or more"):
        sharpest_position(x[:3], values[:3])
    assert spread([10.0, 12.0, 14.0], 1.0) == pytest.approx(2 / math.sqrt(3))
    assert spread([10.0], 6.0) == pytest.approx(6 / math.sqrt(12))


def test_sharpness_is_free_of_exposure_and_falls_with_blur() -> None:
    import cv2

    rng = np.random.default_rng(1)
    sharp = cv2.GaussianBlur(rng.uniform(40, 120, (60, 80)).astype(np.float32), (0, 0), 1.0)
    blurred = cv2.GaussianBlur(sharp, (0, 0), 2.0)
    one, brighter, soft = (sharpness(np.rint(image).astype(np.uint8)) for image in (sharp, 2 * sharp, blurred))
    assert brighter == pytest.approx(one, rel=0.03)
    assert soft < 0.3 * one


def test_the_camera_describes_itself(bench: Bench) -> None:
    """The description names the camera, and a sweep's length includes what settles."""
    source = bench.source({"settle_s": 0.1})
    assert source.description.startswith("Fake Webcam at ")
    assert "5 focus positions from 0 to 5 dioptres, each settles for 0.1 s" in source.description
    assert source.frames_per_sweep == 5 * 12
