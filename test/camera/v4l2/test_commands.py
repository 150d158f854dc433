"""The commands around a V4L2 camera: what there is, and the table of its lens, measured point by point."""

from __future__ import annotations

import math

import numpy as np
import pytest
import yaml

pytest.importorskip("linuxpy", reason="linuxpy is not installed: pip install linuxpy")

from v4l2_kernel import FakeCamera, plugged_in
from v4l2_rig import Bench, bench, no_focus

from dfs_ros.camera.sharpest import sharpest_position, sharpness, spread
from dfs_ros.camera.v4l2.probe import describe_cameras
from dfs_ros.cli.main import main

__all__ = ["bench"]  # fixtures


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
    assert "lens.calibration: expected a file" in capsys.readouterr().err
    assert main(["camera", "--source", "v4l2", device, "--calibration", str(bench.table)]) == 2
    assert "v4l2.camera_info: expected a camera calibration" in capsys.readouterr().err
    assert main(["camera", "--source", "v4l2", "a", "b"]) == 2
    assert (
        "--source: expected 'sim', 'stack DIR', 'v4l2 [DEVICE]', 'picamera2 [NUMBER]', 'oak [ID]' or"
        in capsys.readouterr().err
    )


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
