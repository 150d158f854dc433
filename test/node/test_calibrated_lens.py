"""Depth node with a calibration of the lens: focus by raw positions, its doubt, lens and camera_info."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from node_rig import CAMERA, ERROR, PLANE_M, SIZE, Rig

from dfs_ros.config import LensConfig
from dfs_ros.lens.calibration import PARAMETERS, LensCalibration
from dfs_ros.messages.convert import camera_info_from_message, depth_from_message, focus_message, image_message
from dfs_ros.node.lens import LensTracker
from dfs_ros.optics.pinhole import intrinsics
from dfs_ros.types import FocusMetadata, LensState

OFFSET_SIGMA = 0.1  # dioptres


def calibration(unit: str = "dac", size: tuple[int, int] = SIZE, **changes: float) -> LensCalibration:
    """The rig's camera: raw 0 to 250 are 0.4 to 2.4 dioptres; it hardly breathes, as the rig's images."""
    values = dict.fromkeys(PARAMETERS, 0.0) | {
        **{"fx_px": intrinsics(CAMERA, SIZE).fx, "cx_px": (SIZE[1] - 1) / 2, "cy_px": (SIZE[0] - 1) / 2},
        **{"k1": 0.05, "k2": -0.01, "breathing1": 1e-3, "focus0": 1.4, "focus1": 1.0, "softness_px2": 0.2},
        **{"aperture_m": CAMERA.focal_length_m / CAMERA.f_number / (1 - CAMERA.focal_length_m * 1.4), **changes},
    }
    variance = [OFFSET_SIGMA**2 if name == "focus0" else 0.0 for name in PARAMETERS]
    return LensCalibration(size, 125.0, 125.0, np.array([values[n] for n in PARAMETERS]), np.diag(variance), unit=unit)


def written(folder: Path, lens: LensCalibration) -> dict[str, dict[str, Any]]:
    """Settings of the node, with the file of a calibration."""
    file = folder / "lens.yaml"
    file.write_bytes(lens.yaml())
    return {"lens": {"calibration": str(file)}}


def send_raw(rig: Rig, beyond: float = 0.0, **changes: Any) -> None:
    """A sweep of a driver that knows nothing but lens positions, without camera_info."""
    unknown = dict.fromkeys(("focus_diopters", "focal_length_m", "f_number", "magnification"), math.nan) | changes
    for i, focus in enumerate(rig.stack.focus_diopters):
        stamp, raw = rig.bus.now_ns(), 125 + 125 * (float(focus) - 1.4) + beyond
        said = focus_message(
            rig.focus(i, stamp, **unknown), "lens", calibration="UNCALIBRATED", raw_position=raw, raw_unit="dac"
        )
        rig.send("focus", said)
        rig.send("image", image_message(rig.stack.images[i], stamp, "lens"))
        rig.advance(1000 / 30)
    rig.sweeps += 1


def test_raw_positions_make_depth_with_doubt_and_calibrated_camera_info(
    make_rig: Callable[..., Rig], tmp_path: Path
) -> None:
    lens = calibration()
    rig = make_rig(written(tmp_path, lens))
    rig.listen("depth/image", "depth/sigma", "depth/camera_info")
    send_raw(rig)
    (depth,) = (depth_from_message(message) for message in rig.depths())
    (sigma,) = (depth_from_message(message) for message in rig.received["depth/sigma"])
    # The rendered blur rises by 4 % over the sweep, that of the calibration does not.
    assert np.nanmedian(depth) == pytest.approx(PLANE_M, rel=0.04)
    assert np.nanmedian(sigma / depth**2) == pytest.approx(OFFSET_SIGMA, rel=0.2)  # of the focus, more than of pixels
    (info,) = (camera_info_from_message(message) for message in rig.received["depth/camera_info"])
    assert info.distortion == pytest.approx((0.05, -0.01, 0.0, 0.0, 0.0))
    assert info.intrinsics.fx == pytest.approx(lens["fx_px"], rel=2e-3)
    assert (info.intrinsics.cx, info.intrinsics.cy) == pytest.approx((lens["cx_px"], lens["cy_px"]))


def test_images_within_the_settling_time_of_the_calibration_are_dropped(
    make_rig: Callable[..., Rig], tmp_path: Path
) -> None:
    settled = written(tmp_path, dataclasses.replace(calibration(), settle_s=0.05))
    for settings, state, moving in (
        ({**settled, "schedule": {"settle_s": 0.1}}, LensState.UNKNOWN, 2),  # the settings have precedence
        (settled, LensState.UNKNOWN, 2),
        (settled, LensState.STATIONARY, 0),  # the driver knows
    ):
        rig = make_rig(settings)
        rig.listen("depth/image")
        send_raw(rig, lens_state=state)
        assert int(rig.status()[2]["moving"]) == moving, (settings, state)


def test_what_the_calibration_does_not_cover_makes_no_depth(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    for lens, beyond, counter, words in (
        (calibration(), 1000.0, "invalid_focus", ""),
        (calibration("focus_absolute"), 0.0, "bad_focus", "expected lens positions in focus_absolute"),
        (calibration(size=(48, 64)), 0.0, "no_lens", "is of 64 x 48 pixels, the images have 96 x 72: is the"),
    ):
        rig = make_rig(written(tmp_path, lens))
        rig.listen("depth/image")
        send_raw(rig, beyond)
        level, text, values = rig.status()
        assert not rig.depths() and level == ERROR, values
        assert int(values[counter]) >= 1 and words in text, (text, values)


def test_the_direction_of_travel_and_reports_that_are_calibrated(tmp_path: Path) -> None:
    settings = written(tmp_path, calibration("LensPosition", hysteresis=0.1))
    tracker = LensTracker(LensConfig(**settings["lens"]))

    def focus(raw: float) -> float:
        told = FocusMetadata(0, 9.0, raw_position=raw, raw_unit="LensPosition")
        found = tracker.calibrated(told)
        assert found is not None
        return found.focus_diopters

    assert [focus(raw) for raw in (0.0, 125.0, 250.0, 125.0)] == pytest.approx([0.4, 1.35, 2.35, 1.45], abs=1e-6)
    told = FocusMetadata(0, 1.0, raw_position=math.nan)
    assert tracker.calibrated(told) is told
    tracker.rectified = True
    assert tracker.plumb_bob(0, lambda *a, **k: None) == ()
    with pytest.raises(FileNotFoundError, match="no such file"):
        LensTracker(LensConfig(calibration="none.yaml"))
