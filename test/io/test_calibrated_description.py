"""`stack.yaml` with raw lens positions and a calibration."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from lens_rig import LENS, true_calibration
from PIL import Image
from stack_folder_rig import assert_refused

from dfs_ros.io.images import ImageFile
from dfs_ros.io.stack_description import read_description
from dfs_ros.io.stack_folder import load_stack
from dfs_ros.types import Camera

RAWS = (25.0, 50.0, 75.0)


def write_stack(folder: Path, raws: tuple[float, ...] = RAWS, **changes: Any) -> Path:
    folder.mkdir()
    (folder / "lens.yaml").write_bytes(true_calibration().yaml())
    rng = np.random.default_rng(0)
    for i in range(len(raws)):
        Image.fromarray(rng.integers(0, 256, LENS.size, np.uint8)).save(folder / f"{i}.png")
    frames = [{"file": f"{i}.png", "raw_position": raw} for i, raw in enumerate(raws)]
    document = {"format": "focal-stack/1", "calibration": "lens.yaml", "frames": frames, **changes}
    (folder / "stack.yaml").write_text(yaml.safe_dump(document))
    return folder


def test_raw_positions_become_focus_with_doubt_and_the_camera_is_that_of_the_calibration(tmp_path: Path) -> None:
    stack, lens = load_stack(write_stack(tmp_path / "stack")), true_calibration()
    told = [lens.mean_focus_of(raw, direction) for raw, direction in zip(RAWS, (0, 1, 1), strict=True)]
    np.testing.assert_allclose(stack.focus_diopters, [focus for focus, _ in told], atol=1e-6)
    np.testing.assert_allclose(stack.focus_sigma_diopters, [sigma for _, sigma in told], atol=1e-6)
    np.testing.assert_allclose(stack.magnification[1], lens.magnification_of(50.0, 1), atol=1e-6)
    assert stack.camera.field is not None and stack.camera.field.curvature == pytest.approx(lens["curvature"])
    assert stack.camera.f_number == pytest.approx(lens.camera.f_number)


def test_a_camera_of_its_own_has_no_focal_surface_and_a_value_of_its_own_wins(tmp_path: Path) -> None:
    camera = {"focal_length_m": 0.004, "f_number": 2.0, "pixel_pitch_m": 4e-6}
    frames = [{"file": f"{i}.png", "raw_position": raw, "stamp_ns": 9 - i} for i, raw in enumerate(RAWS)]
    frames[0]["focus_sigma_diopters"] = 0.5
    stack = load_stack(write_stack(tmp_path / "stack", camera=camera, frames=frames))
    assert stack.camera == Camera(**camera)
    lens = true_calibration()
    # By their stamps the lens went down; the spread of the focal surface is doubt of the focus alone.
    assert stack.focus_diopters[1] == pytest.approx(lens.focus_of(50.0, -1)[0], abs=1e-6)
    assert stack.focus_sigma_diopters[1] == pytest.approx(lens.focus_of(50.0, -1)[1], abs=1e-6)
    assert stack.focus_sigma_diopters[0] == 0.5


def test_photos_that_lie_are_turned_before_their_size_counts_and_need_no_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [{"file": f"{i}.jpg", "raw_position": raw} for i, raw in enumerate(RAWS)]
    folder = write_stack(tmp_path / "stack", frames=[{**frame, "file": "0.png"} for frame in frames])
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise for viewing
    document = yaml.safe_load((folder / "stack.yaml").read_text())
    (folder / "stack.yaml").write_text(yaml.safe_dump({**document, "frames": frames}))
    lying = np.random.default_rng(0).integers(0, 256, LENS.size[::-1], np.uint8)
    for i in range(len(RAWS)):
        Image.fromarray(lying).save(folder / f"{i}.jpg", exif=exif)
    assert load_stack(folder).size == LENS.size
    monkeypatch.setattr(ImageFile, "_load", None)
    assert read_description(folder).camera.field is not None
    Image.fromarray(lying).save(folder / "0.jpg")
    assert_refused(folder, ValueError, "0.jpg: expected 256 x 192 pixels, as lens.yaml is of, received 192 x 256")


def test_what_the_calibration_does_not_cover_is_refused(tmp_path: Path) -> None:
    assert_refused(
        write_stack(tmp_path / "beyond", (25.0, 180.0)), ValueError, "frames[1].raw_position: 180 lies outside of lens"
    )
    bare = [{"file": "0.png", "focus_diopters": 1.0}, {"file": "1.png", "focus_diopters": 2.0}]
    assert_refused(write_stack(tmp_path / "bare", frames=bare), ValueError, "frames[0].raw_position: expected a finite")
    both = [{"file": "0.png", "focus_diopters": 1.0, "raw_position": 5}, {"file": "1.png", "raw_position": 50}]
    assert_refused(write_stack(tmp_path / "both", frames=both), ValueError, "expected raw_position or focus_diopters")
    assert_refused(
        write_stack(tmp_path / "none", calibration="x.yaml"), FileNotFoundError, "calibration", "no such file"
    )
    other = write_stack(tmp_path / "other")
    (other / "lens.yaml").write_bytes(dataclasses.replace(true_calibration(), size=(480, 640)).yaml())
    assert_refused(
        other, ValueError, "0.png: expected 640 x 480 pixels, as lens.yaml is of, received 256 x 192: is the"
    )
    without = write_stack(tmp_path / "without")
    document = yaml.safe_load((without / "stack.yaml").read_text())
    del document["calibration"]
    (without / "stack.yaml").write_text(yaml.safe_dump(document))
    assert_refused(without, ValueError, "raw_position")
