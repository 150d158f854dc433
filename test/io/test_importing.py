"""`dfs import`: photos with focus in a CSV file or in EXIF become a focal stack, or a clear error."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from photo_rig import LENS, photos, write_photo
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from dfs_ros.cli.main import main
from dfs_ros.io.importing import import_folder
from dfs_ros.io.stack_folder import load_stack

INFINITY = IFDRational(0xFFFFFFFF, 1)


# ---- focus from a CSV file -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "file,focus_diopters\nimg1.jpg,0\nimg0.jpg,2.5\n",
        "\ufefffile;focus_distance_m\r\nimg1.jpg;inf\r\nimg0.jpg;0.4\r\n\r\n",
        "focus_distance_m\tfile\ninf\timg1.jpg\n0.4\timg0.jpg",
        "file, focus_diopters, stamp_ns, magnification\nimg1.jpg, 0.0, ,\nimg0.jpg, 2.5, ,",
    ],
)
def test_focus_from_csv_in_its_order(tmp_path: Path, text: str) -> None:
    folder = photos(tmp_path / "photos", None, None, None)
    (tmp_path / "focus.csv").write_text(text, encoding="utf-8", newline="")
    imported = import_folder(folder, tmp_path / "stack", tmp_path / "focus.csv", **LENS)
    assert imported.left_out == ("img2.jpg",)
    assert imported.origins["focus"] == "focus.csv"
    stack = load_stack(tmp_path / "stack")
    np.testing.assert_allclose(stack.focus_diopters, [0.0, 2.5])
    assert (tmp_path / "stack" / "img1.jpg").read_bytes() == (folder / "img1.jpg").read_bytes()
    np.testing.assert_array_equal(stack.images[1], np.asarray(Image.open(folder / "img0.jpg")))
    assert sorted(p.name for p in (tmp_path / "stack").iterdir()) == ["img0.jpg", "img1.jpg", "stack.yaml"]
    assert sorted(p.name for p in folder.iterdir()) == ["img0.jpg", "img1.jpg", "img2.jpg"]


def test_optional_csv_columns(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", None, None)
    (tmp_path / "f.csv").write_text(
        "file,focus_diopters,focus_sigma_diopters,stamp_ns,magnification\nimg0.jpg,1,0.02,5,1.5\nimg1.jpg,2,,7,\n"
    )
    import_folder(folder, tmp_path / "stack", tmp_path / "f.csv", **LENS)
    stack = load_stack(tmp_path / "stack")
    assert stack.stamp_ns.tolist() == [5, 7]
    assert stack.magnification[0] == 1.5 and math.isnan(stack.magnification[1])
    assert stack.focus_sigma_diopters[0] == 0.02 and math.isnan(stack.focus_sigma_diopters[1])


@settings(max_examples=20, deadline=None)
@given(distances=st.lists(st.floats(0.02, 1e4), min_size=2, max_size=4, unique_by=lambda v: round(1 / v, 3)))
def test_distances_become_their_inverse(tmp_path_factory: pytest.TempPathFactory, distances: list[float]) -> None:
    tmp_path = tmp_path_factory.mktemp("csv")
    photos(tmp_path, *[None] * len(distances))
    rows = [f"img{i}.jpg,{distance!r}" for i, distance in enumerate(distances)]
    (tmp_path / "f.csv").write_text("\n".join(["file,focus_distance_m", *rows]))
    import_folder(tmp_path, csv=tmp_path / "f.csv", distance_from="lens", **LENS)
    np.testing.assert_array_equal(load_stack(tmp_path).focus_diopters, [1 / d for d in distances])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected the column file and either focus_diopters or focus_distance_m or, with a"),
        ("file\nimg0.jpg", "expected the column file and either focus_diopters or focus_distance_m or, with a"),
        ("file,focus_diopters,focus_distance_m\na,1,1", "either focus_diopters or focus_distance_m"),
        ("file,focus_dioptres\n", "focus_dioptres: unknown column; did you mean 'focus_diopters'?"),
        ("file,focus_diopters\n", "expected a line for each photo, received none"),
        ("file,focus_diopters\nimg0.jpg,1\nimg1.jpg\n", "line 3: expected 2 values, received 1"),
        ("file,focus_diopters\nimg0.jpg,1\nimg9.jpg,2\n", "img9.jpg: no such file"),
        (
            "file,focus_diopters\nimg0.jpg,1\nimg1.jpg,x\n",
            "line 3: focus_diopters: expected a finite number, received 'x'",
        ),
        (
            "file,focus_diopters\nimg0.jpg,1\nimg1.jpg,inf\n",
            "line 3: focus_diopters: expected a finite number, received 'inf'",
        ),
        ("file,focus_diopters\nimg0.jpg,1\nimg1.jpg,nan\n", "line 3: focus_diopters: expected a finite number"),
        ("file,focus_diopters\nimg0.jpg,1\nimg1.jpg,-1\n", "expected dioptres of 0 (infinity) or more, received -1.0"),
        ("file,focus_distance_m\nimg0.jpg,1\nimg1.jpg,0\n", "line 3: focus_distance_m: expected metres over 0, or inf"),
        (
            "file,focus_distance_m\nimg0.jpg,1\nimg1.jpg,nan\n",
            "line 3: focus_distance_m: expected metres over 0, or inf",
        ),
        ("file;focus_distance_m\nimg0.jpg;0,5\n", "expected metres over 0, or inf, received '0,5'"),
        ("file,focus_distance_m\nimg0.jpg,1\nimg1.jpg,0.003\n", "inside the focal length"),
        ("file,focus_diopters\nimg0.jpg,1\n", "at least 2 images"),
        ("file,focus_diopters\nimg0.jpg,1\nimg1.jpg,1\n", "all 2 images are at 1 dioptres"),
        ("file,focus_diopters\nimg0.jpg,1\nimg0.jpg,2\n", "'img0.jpg' is listed twice"),
        ("file,focus_diopters\nimg0.jpg,1\n../x.jpg,2\n", "line 3: file: expected the name of a photo in"),
        (
            "file,focus_diopters,stamp_ns\nimg0.jpg,1,-4\n",
            "line 2: stamp_ns: expected whole nanoseconds, received '-4'",
        ),
        ("file,focus_diopters,magnification\nimg0.jpg,1,big\n", "line 2: magnification: expected a finite number"),
    ],
)
def test_a_wrong_csv_is_refused_and_nothing_written(tmp_path: Path, text: str, message: str) -> None:
    folder = photos(tmp_path / "photos", None, None)
    (tmp_path / "f.csv").write_text(text)
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        import_folder(folder, tmp_path / "stack", tmp_path / "f.csv", **LENS)
    assert message in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.csv", "photos"]


def test_a_csv_that_is_no_text(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", None, None)
    with pytest.raises(ValueError, match=r"img0\.jpg: expected CSV text in UTF-8"):
        import_folder(folder, csv=folder / "img0.jpg", **LENS)
    with pytest.raises(FileNotFoundError, match=r"none\.csv: no such file"):
        import_folder(folder, csv=tmp_path / "none.csv", **LENS)


# ---- focus and lens from EXIF ----------------------------------------------------------------------------------------


def test_everything_from_exif(tmp_path: Path) -> None:
    folder = photos(tmp_path, 0.5, IFDRational(5, 4), INFINITY)
    imported = import_folder(folder)
    stack = load_stack(folder)
    np.testing.assert_allclose(stack.focus_diopters, [2.0, 0.8, 0.0])
    assert stack.camera.focal_length_m == pytest.approx(4.3e-3)
    assert stack.camera.f_number == pytest.approx(1.9)
    # Sensor diagonal 43.27 mm * 4.3 / 26 over an image diagonal of hypot(24, 32) = 40 px.
    assert stack.camera.pixel_pitch_m == pytest.approx(math.hypot(36e-3, 24e-3) * 4.3 / 26 / 40, rel=1e-6)
    assert imported.origins == {
        "focus": "EXIF SubjectDistance in metres",
        "focal length": "EXIF FocalLength",
        "f-number": "EXIF FNumber or ApertureValue",
        "pixel pitch": "EXIF FocalLengthIn35mmFilm",
    }
    assert sorted(p.name for p in folder.iterdir()) == ["img0.jpg", "img1.jpg", "img2.jpg", "stack.yaml"]
    assert "EXIF SubjectDistance in metres" in yaml.safe_load((folder / "stack.yaml").read_text())["note"]


def test_subject_distance_in_dioptres(tmp_path: Path) -> None:
    folder = photos(tmp_path, 0, 0.8176, 7.2327)
    import_folder(folder, focus_unit="diopters")
    np.testing.assert_allclose(load_stack(folder).focus_diopters, [0, 0.8176, 7.2327], rtol=1e-6)


@pytest.mark.parametrize(
    ("unit", "per_unit", "pitch_um"),
    [(None, 25400 / 4, 4.0), (2, 25400 / 4, 4.0), (3, 2500, 4.0), (4, 250, 4.0), (5, 0.25, 4.0)],
)
def test_pixel_pitch_from_the_focal_plane_resolution_first(
    tmp_path: Path, unit: int | None, per_unit: float, pitch_um: float
) -> None:
    tags = {"FocalPlaneXResolution": per_unit, "FocalPlaneResolutionUnit": unit}
    folder = photos(tmp_path, 0.5, 1.0, FocalLengthIn35mmFilm=None, **tags)
    imported = import_folder(folder)
    assert load_stack(folder).camera.pixel_pitch_m * 1e6 == pytest.approx(pitch_um, rel=1e-6)
    assert imported.origins["pixel pitch"] == "EXIF FocalPlaneXResolution"


def test_pixel_pitch_of_a_photo_that_was_resized(tmp_path: Path) -> None:
    # Taken at 320 x 240 with pixels of 1 um, now 32 x 24: a pixel stands for ten.
    tags = {"FocalPlaneXResolution": 1, "FocalPlaneResolutionUnit": 5, "FocalLengthIn35mmFilm": None}
    folder = photos(tmp_path / "resized", 0.5, 1.0, ExifImageWidth=320, ExifImageHeight=240, **tags)
    import_folder(folder)
    assert load_stack(folder).camera.pixel_pitch_m == pytest.approx(10e-6)
    # Taken at 240 x 320 and turned since.
    folder = photos(tmp_path / "turned", 0.5, 1.0, ExifImageWidth=24, ExifImageHeight=32, **tags)
    import_folder(folder)
    assert load_stack(folder).camera.pixel_pitch_m == pytest.approx(1e-6)


def test_aperture_value_where_there_is_no_f_number(tmp_path: Path) -> None:
    folder = photos(tmp_path, 0.5, 1.0, FNumber=None, ApertureValue=3.0)
    import_folder(folder)
    assert load_stack(folder).camera.f_number == pytest.approx(2**1.5)


def test_what_is_given_wins_over_exif(tmp_path: Path) -> None:
    folder = photos(tmp_path, 0.5, 1.0)
    imported = import_folder(folder, **LENS)
    camera = load_stack(folder).camera
    assert (camera.focal_length_m, camera.f_number, camera.pixel_pitch_m) == (0.004, 2.0, 4e-6)
    assert imported.origins["f-number"] == "the value given"


@pytest.mark.parametrize(
    ("distances", "tags", "message"),
    [
        ((0.5, None), {}, "img1.jpg: EXIF SubjectDistance: missing; give the focus of each photo in a CSV file"),
        ((0.5, 0), {}, "img1.jpg: EXIF SubjectDistance: 0 metres means unknown"),
        ((0.5, 0.001), {}, "inside the focal length"),
        ((0.5, 1.0), {"FocalLength": None}, "focal length: the photos' EXIF does not say; give --focal-length-mm"),
        ((0.5, 1.0), {"FNumber": None}, "f-number: the photos' EXIF does not say; give --f-number"),
        ((0.5, 1.0), {"FNumber": 0}, "f-number: the photos' EXIF does not say; give --f-number"),
        (
            (0.5, 1.0),
            {"FocalLengthIn35mmFilm": None},
            "pixel pitch: the photos' EXIF does not say; give --pixel-pitch-um",
        ),
        ((0.5, 1.0), {"FocalLengthIn35mmFilm": 0}, "pixel pitch: the photos' EXIF does not say"),
        ((0.5,), {}, "at least 2 images"),
        ((), {}, "expected photos (.jpg"),
    ],
)
def test_exif_that_does_not_say_enough(
    tmp_path: Path, distances: tuple[float | None, ...], tags: dict[str, Any], message: str
) -> None:
    folder = photos(tmp_path / "photos", *distances, **tags)
    folder.mkdir(exist_ok=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError) as caught:
        import_folder(folder)
    assert message in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_photos_with_different_lenses_are_refused(tmp_path: Path) -> None:
    folder = photos(tmp_path, 0.5, 1.0)
    write_photo(folder / "img2.jpg", 2, FocalLength=8.6, FNumber=1.9, FocalLengthIn35mmFilm=52, SubjectDistance=2.0)
    with pytest.raises(
        ValueError, match=r"focal length: expected one for all photos, received 0\.0043 in img0.* 0\.0086"
    ):
        import_folder(folder)


# ---- folders ---------------------------------------------------------------------------------------------------------


def test_damaged_photos_are_found_before_anything_is_written(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", 0.5, 1.0)
    data = (folder / "img1.jpg").read_bytes()
    (folder / "img1.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"img1\.jpg: the image is truncated or damaged"):
        import_folder(folder, tmp_path / "stack")
    write_photo(folder / "img1.jpg", 1, (24, 34), SubjectDistance=1.0)
    with pytest.raises(ValueError, match=r"img1\.jpg: expected 32 x 24 pixels .* received 34 x 24"):
        import_folder(folder, tmp_path / "stack")
    with pytest.raises(ValueError, match=r"img0\.jpg: expected at most 0\.0001 megapixels"):
        import_folder(folder, tmp_path / "stack", max_megapixels=1e-4)
    assert [p.name for p in tmp_path.iterdir()] == ["photos"]


def test_folders_that_are_in_the_way(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", 0.5, 1.0)
    with pytest.raises(FileNotFoundError, match=r"none: no such folder"):
        import_folder(tmp_path / "none")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    with pytest.raises(ValueError, match=r"full: expected a new or empty folder"):
        import_folder(folder, tmp_path / "full")
    with pytest.raises(ValueError, match=r"output .*: cannot be written"):
        import_folder(folder, tmp_path / "full" / "x" / "stack")
    with pytest.raises(ValueError, match=r"focus_unit: expected one of metres, diopters, received 'feet'"):
        import_folder(folder, focus_unit="feet")
    import_folder(folder, folder)  # the same as no output
    with pytest.raises(ValueError, match=r"photos: is a focal stack already; remove its stack\.yaml"):
        import_folder(folder)


def test_hidden_files_and_other_files_are_no_photos(tmp_path: Path) -> None:
    folder = photos(tmp_path, 0.5, 1.0)
    (folder / "._img0.jpg").write_bytes(b"resource fork")
    (folder / "notes.txt").write_text("")
    assert [f.file for f in import_folder(folder).description.frames] == ["img0.jpg", "img1.jpg"]


def test_ctrl_c_while_copying_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = photos(tmp_path / "photos", 0.5, 1.0)
    copies = []

    def interrupted(source: Path, target: Path) -> None:
        copies.append(target)
        target.write_bytes(source.read_bytes()[:100])
        if len(copies) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("shutil.copyfile", interrupted)
    with pytest.raises(KeyboardInterrupt):
        import_folder(folder, tmp_path / "stack")
    assert len(copies) == 2 and [p.name for p in tmp_path.iterdir()] == ["photos"]


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = photos(tmp_path / "photos", 0, 2.0, None, FocalLengthIn35mmFilm=None)
    (folder / "img2.jpg").unlink()
    options = ["--focal-length-mm", "4", "--pixel-pitch-um", "3.5", "--focus-unit", "diopters"]
    assert main(["import", str(folder), "--output", str(tmp_path / "stack"), *options]) == 0
    said = capsys.readouterr().out
    assert "focal length 4 mm (from the value given)" in said
    assert "f-number     1.9 (from EXIF FNumber or ApertureValue)" in said
    assert "img1.jpg                 2 dioptres = 0.5 m" in said
    assert f"dfs estimate {tmp_path / 'stack'}" in said
    assert load_stack(tmp_path / "stack").camera.pixel_pitch_m == pytest.approx(3.5e-6)


def test_the_command_fails_with_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = photos(tmp_path / "photos", 0.5, 1.0)
    assert main(["import", str(folder), "--f-number", "-2"]) == 2
    assert "camera.f_number: expected a finite number over 0 [1], received -2.0" in capsys.readouterr().err
    (tmp_path / "f.csv").write_text("file,focus_diopters\nimg0.jpg,1\n")
    assert main(["import", str(folder), "--csv", str(tmp_path / "f.csv")]) == 2
    assert "at least 2 images" in capsys.readouterr().err
    assert not (folder / "stack.yaml").exists()
