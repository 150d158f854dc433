"""Photos whose EXIF, focus or kind leaves a doubt: a warning or a refusal that names the cause and the way out."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from photo_rig import photos, textured, write_photo
from PIL import ExifTags, Image

from dfs_ros.cli.main import main
from dfs_ros.io import exif
from dfs_ros.io.importing import import_folder
from dfs_ros.io.stack_folder import load_stack

FILM_M = math.hypot(36e-3, 24e-3)
PITCH_BY_FILM_M = FILM_M * 4.3 / 26 / 40  # 26 mm of `photos`, and an image diagonal of 40 px


def refusal(folder: Path, **options: Any) -> str:
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(ValueError) as caught:
        import_folder(folder, **options)
    assert sorted(folder.parent.rglob("*")) == before
    return str(caught.value)


# ---- pixel pitch -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_plane", [False, True])
def test_a_photo_of_another_shape_than_its_exif_was_cropped(tmp_path: Path, with_plane: bool) -> None:
    plane = {"FocalPlaneXResolution": 1 / PITCH_BY_FILM_M / 100, "FocalPlaneResolutionUnit": 3} if with_plane else {}
    folder = photos(tmp_path / "p", 0.5, 1.0, ExifImageWidth=48, ExifImageHeight=32, **plane)
    message = refusal(folder)
    assert "img0.jpg: pixel pitch: EXIF is of 48 x 32 pixels, the photo has 32 x 24: it was cropped" in message
    assert "give --pixel-pitch-um" in message
    import_folder(folder, pixel_pitch_m=5e-6)
    assert load_stack(folder).camera.pixel_pitch_m == 5e-6


@pytest.mark.parametrize(
    ("factor", "believed"), [(1.0, True), (1.1, True), (1 / 1.1, True), (1.2, False), (0.4, False)]
)
def test_two_tags_of_the_pixel_pitch_must_agree(tmp_path: Path, factor: float, believed: bool) -> None:
    tags = {"FocalPlaneXResolution": 1e-2 / PITCH_BY_FILM_M / factor, "FocalPlaneResolutionUnit": 3}
    folder = photos(tmp_path / "p", 0.5, 1.0, **tags)
    if believed:
        assert import_folder(folder).origins["pixel pitch"] == "EXIF FocalPlaneXResolution"
        assert load_stack(folder).camera.pixel_pitch_m == pytest.approx(factor * PITCH_BY_FILM_M, rel=1e-4)
        return
    message = refusal(folder)
    assert f"{PITCH_BY_FILM_M * 1e6:.4g} um by FocalLengthIn35mmFilm; give --pixel-pitch-um" in message
    assert f"EXIF contradicts itself: {factor * PITCH_BY_FILM_M * 1e6:.4g} um by FocalPlaneXResolution" in message


# ---- focus -----------------------------------------------------------------------------------------------------------


def macro(folder: Path) -> Path:
    """Photos of a 60 mm lens, 0.25 and 0.32 m from it; EXIF counts from the sensor."""
    f = 0.060
    sensor = [u + f * u / (u - f) for u in (0.25, 0.32)]
    return photos(folder, *sensor, FocalLength=60, FocalLengthIn35mmFilm=90)


def test_distances_from_the_sensor(tmp_path: Path) -> None:
    message = refusal(macro(tmp_path / "p"))
    assert "img0.jpg: 0.3289 m may count from the lens or, as of still cameras, from the sensor" in message
    assert "0.25 m from the lens then: say which, --distance-from lens or sensor" in message
    assert "check the focal length of 60 mm" in message
    assert main(["import", str(tmp_path / "p"), "--distance-from", "sensor"]) == 0
    np.testing.assert_allclose(1 / load_stack(tmp_path / "p").focus_diopters, [0.25, 0.32], rtol=1e-6)
    import_folder(macro(tmp_path / "lens"), distance_from="lens")
    np.testing.assert_allclose(1 / load_stack(tmp_path / "lens").focus_diopters[0], 0.328947, rtol=1e-5)


def test_distances_of_a_table_too(tmp_path: Path) -> None:
    folder = photos(tmp_path / "p", 0.5, 1.0)
    (folder / "f.csv").write_text("file,focus_distance_m\nimg0.jpg,0.3289473684\nimg1.jpg,inf\n")
    lens = {"csv": folder / "f.csv", "focal_length_m": 0.06, "f_number": 4.0, "pixel_pitch_m": 4e-6}
    assert "--distance-from" in refusal(folder, **lens)
    import_folder(folder, distance_from="sensor", **lens)
    np.testing.assert_allclose(load_stack(folder).focus_diopters, [4.0, 0.0], rtol=1e-6)
    (folder / "stack.yaml").unlink()
    (folder / "f.csv").write_text("file,focus_diopters\nimg0.jpg,3.04\nimg1.jpg,0\n")  # dioptres count from the lens
    import_folder(folder, **lens)
    np.testing.assert_allclose(load_stack(folder).focus_diopters, [3.04, 0.0])


def test_a_distance_that_no_sensor_can_have(tmp_path: Path) -> None:
    folder = photos(tmp_path / "p", 0.2, 0.21, FocalLength=60, FocalLengthIn35mmFilm=90)
    assert "nearer than four focal lengths of 0.06 m" in refusal(folder, distance_from="sensor")
    import_folder(folder)  # so it is from the lens
    np.testing.assert_allclose(load_stack(folder).focus_diopters, [5.0, 1 / 0.21], rtol=1e-6)


def test_a_sweep_that_cannot_blur_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = photos(tmp_path / "p", 769, 952, 2000)
    assert main(["import", str(folder)]) == 0
    said = capsys.readouterr().err
    assert said.startswith("warning: focus from 0.0005 to 0.0013 dioptres changes blur by ")
    assert "the nearest focus is 769 m away: millimetres read as metres?" in said and said.count("\n") == 1


def test_photos_of_one_focus_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = photos(tmp_path / "p", 0.5, 1.0, 2.0)
    write_photo(folder / "output.jpg", 9, FocalLength=4.3, FNumber=1.9, FocalLengthIn35mmFilm=26, SubjectDistance=1.0)
    assert main(["import", str(folder)]) == 0
    said = capsys.readouterr().err
    assert said.startswith("warning: same focus: img1.jpg, output.jpg; if one is merged of all photos, or a copy")
    assert said.count("same focus") == 1
    assert import_folder(photos(tmp_path / "r", 0.5, 1.0, 1.01)).warnings == ()


# ---- what lies in the folder -----------------------------------------------------------------------------------------


def test_more_photos_than_a_stack_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    photos(folder, *np.linspace(0.5, 2.0, 70))
    message = refusal(folder)
    assert "at most 64 images, received 70 photos: leave photos out, such as all but every second one" in message
    assert "(--every 2)" in message
    assert main(["import", str(folder), "--every", "2"]) == 0
    assert "same focus" not in capsys.readouterr().err
    stack = load_stack(folder)
    by_name = sorted(range(70), key=lambda i: f"img{i}.jpg")
    np.testing.assert_allclose(1 / stack.focus_diopters, np.linspace(0.5, 2.0, 70)[by_name[::2]], rtol=1e-6)
    assert "every: expected 1 or more" in refusal(photos(tmp_path / "q", 0.5, 1.0), every=0)


def test_files_of_other_kinds_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    for i in range(3):
        (folder / f"IMG_{i}.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(200))
    (folder / "clip.mov").write_bytes(b"")
    message = refusal(folder)
    assert "received 1 video file: convert it (ffmpeg)" in message or "3 HEIC files: convert them" in message
    assert "3 HEIC files: convert them (heif-convert)" in message
    photos(folder, 0.5, 1.0)
    assert main(["import", str(folder)]) == 0
    assert "warning: left out: " in capsys.readouterr().err
    assert len(load_stack(folder)) == 2 and textured(0).shape == (24, 32, 3)


@pytest.mark.parametrize("tiny", [0.0, 1e-320, 1e300])
def test_numbers_of_exif_that_no_camera_has_are_unknown(tiny: float) -> None:
    for tag in (ExifTags.Base.FocalLengthIn35mmFilm, ExifTags.Base.FocalPlaneXResolution):
        assert math.isnan(exif._pixel_pitch({tag: tiny}, 640, 480, 0.004)[0])


# ---- focus without SubjectDistance -----------------------------------------------------------------------------------


def with_xmp(folder: Path, *distances: str) -> Path:
    """Photos without SubjectDistance, with Adobe's tag as attribute (the first) and as element."""
    photos(folder, *[None] * len(distances))
    for i, distance in enumerate(distances):
        tag = (
            f'aux:ApproximateFocusDistance="{distance}"/>' if i == 0 else f"><a:ApproximateFocusDistance>{distance}</a>"
        )
        path = folder / f"img{i}.jpg"
        with Image.open(path) as image:
            image.save(path, exif=image.getexif(), xmp=f"<rdf:Description {tag}".encode(), quality=95)
    return folder


def test_focus_from_xmp(tmp_path: Path) -> None:
    folder = with_xmp(tmp_path / "p", "50/100", "4294967295/1", "2/1")
    imported = import_folder(folder)
    assert imported.origins["focus"] == "XMP ApproximateFocusDistance"
    np.testing.assert_allclose(load_stack(folder).focus_diopters, [2.0, 0.0, 0.5])
    message = refusal(with_xmp(tmp_path / "unknown", "50/100", "0/0"))
    assert (
        "img0.jpg: EXIF SubjectDistance: missing; give the focus of each photo in a CSV file (--csv) or by" in message
    )


def test_focus_from_maker_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an exiftool that answers what the real one prints of a Nikon, a Canon and photos that say nothing."""
    folder = photos(tmp_path / "p", None, None, None)
    answers = [
        {"FocusDistance": "0.45 m"},
        {"FocusDistanceUpper": "2.5 m", "FocusDistanceLower": "2 m"},
        {"FocusDistance": "inf"},
    ]
    rows = [{"SourceFile": str(folder / f"img{i}.jpg"), **answer} for i, answer in enumerate(answers)]
    tool = tmp_path / "bin" / "exiftool"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(rows)}\nEND\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    imported = import_folder(folder, tmp_path / "stack")
    assert imported.origins["focus"] == "maker notes, by exiftool"
    stack = load_stack(tmp_path / "stack")
    np.testing.assert_allclose(stack.focus_diopters, [1 / 0.45, 0.45, 0.0], atol=1e-6)
    np.testing.assert_allclose(stack.focus_sigma_diopters, [math.nan, 0.1 / math.sqrt(12), math.nan], atol=1e-6)
    for broken in ("not json", json.dumps(rows[:2]), json.dumps([{"SourceFile": rows[0]["SourceFile"]}] * 3)):
        tool.write_text(f"#!/bin/sh\ncat <<'END'\n{broken}\nEND\n")
        assert "SubjectDistance: missing" in refusal(folder)


def test_focus_from_file_names(tmp_path: Path) -> None:
    folder = photos(tmp_path / "p", None, None)
    for i, name in enumerate(("desk_25cm.jpg", "desk_infcm.jpg")):
        (folder / f"img{i}.jpg").rename(folder / name)
    command = ["import", str(folder), "--output", str(tmp_path / "stack"), "--focus-from-name"]
    assert main([*command, r"_(\d+|inf)cm"]) == 0
    np.testing.assert_allclose(load_stack(tmp_path / "stack").focus_diopters, [4.0, 0.0])
    for pattern, words in (
        ("(", "expected a regular expression"),
        (r"\d+cm", "expected one group of digits, followed by mm, cm, m or D"),
        (r"(\d+)", "expected one group of digits, followed by mm, cm, m or D"),
        (r"(\d+)mm", r"desk_25cm.jpg: expected a name with (\d+)mm; leave the photo out"),
    ):
        assert words in refusal(folder, focus_from_name=pattern)
    assert "received both" in refusal(folder, focus_from_name=r"(\d+)cm", csv=folder / "x.csv")
    dioptres = photos(tmp_path / "d", None, None)
    for i, name in enumerate(("a1.5D.jpg", "a0.25D.jpg")):
        (dioptres / f"img{i}.jpg").rename(dioptres / name)
    import_folder(dioptres, focus_from_name=r"a([\d.]+)D")
    np.testing.assert_allclose(sorted(load_stack(dioptres).focus_diopters), [0.25, 1.5])
