"""The V4L2 camera where something is wrong: with the device, the settings, the calibration."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest
import yaml

pytest.importorskip("linuxpy", reason="linuxpy is not installed: pip install linuxpy")

from v4l2_kernel import FOCUS, FOCUS_AUTO, FakeCamera, plugged_in
from v4l2_rig import TABLE, Bench, bench, first, no_focus, taken

__all__ = ["bench"]  # fixtures


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
        (
            refusing("S_EXT_CTRLS", errno.EACCES),
            PermissionError,
            "focus_automatic_continuous = 0: the camera refused it",
        ),
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


class HoldsTheLens(FakeCamera):
    """Refuses the focus for a while after autofocus was turned off, as some webcams do."""

    refusals_left = 3
    reason = errno.EACCES

    def _s_ext_ctrls(self, controls: Any) -> None:
        if controls.controls[0].id == FOCUS and self.refusals_left:
            self.refusals_left -= 1
            raise OSError(self.reason, "Permission denied")
        super()._s_ext_ctrls(controls)


@pytest.mark.parametrize("reason", [errno.EACCES, errno.EBUSY])
def test_a_lens_that_autofocus_holds_a_little_longer(
    bench: Bench, reason: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfs_ros.camera.v4l2.device._PATIENCE_NS", 240 * 10**9)
    camera = bench.camera = HoldsTheLens(bench.folder / "video0")
    camera.reason = reason
    plugged_in(bench.monkeypatch, camera)
    frames = taken(first(bench.source(), 8))
    assert camera.refusals_left == 0
    assert frames and all(abs(50 * f.focus.focus_diopters - float(f.image.flat[0])) <= 1 for f in frames)


def test_a_lens_that_autofocus_never_gives_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfs_ros.camera.v4l2.device._PATIENCE_NS", 0)
    camera = bench.camera = HoldsTheLens(bench.folder / "video0")
    camera.refusals_left = 10**9
    plugged_in(bench.monkeypatch, camera)
    with pytest.raises(PermissionError, match=r"focus_absolute = \d+: the camera refused it for a second: .*autofocus"):
        first(bench.source(), 1)


def test_a_camera_that_is_unplugged(bench: Bench) -> None:
    bench.plug_in(stops_after=20)
    with pytest.raises(OSError, match="the camera is gone"):
        first(bench.source(), 1000)


def test_a_camera_that_sends_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfs_ros.camera.v4l2.device.select.select", lambda *arguments: ([], [], []))
    with pytest.raises(TimeoutError, match=r"Fake Webcam\): no image for 0\.2 s"):
        first(bench.source({"timeout_s": 0.2}), 1)
    assert bench.camera.control(FOCUS_AUTO).value == 1


@pytest.mark.parametrize(
    ("v4l2", "words"),
    [
        ({"calibration": ""}, "lens.calibration: expected a file that says which focus_absolute is which dioptres"),
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
