"""The evaluation set: which scenes, which cameras, what truth, and the cache."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from places import DATA as DATA_FOLDER

from dfs_research.evaluation import rendered
from dfs_research.evaluation.rendered import EVALUATION_CAMERAS, evaluation_stacks, load_rgbd
from dfs_ros.simulation.render import decode
from dfs_ros.simulation.scenes import random_scene

DATA = DATA_FOLDER / "rgbd"


def write_scene(folder: Path, seed: int, depth_scale: float) -> None:
    scene = random_scene(seed, 96, 72, near_m=0.5, far_m=4.0)
    folder.mkdir(parents=True)
    depth_mm = np.rint(scene.depth_m * depth_scale * 1000).astype(np.uint16)
    depth_mm[10:20, 10:20] = 0
    cv2.imwrite(str(folder / "rgb.png"), scene.rgb[..., ::-1])
    cv2.imwrite(str(folder / "depth_mm.png"), depth_mm)
    (folder / "meta.json").write_text(json.dumps({"source": "rendered", "K": None}))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_scene(tmp_path / "photos" / "far", 1, 1.5)
    write_scene(tmp_path / "photos" / "near", 2, 0.25)
    return tmp_path / "photos"


def test_scenes_meet_the_cameras_they_suit(photos: Path, tmp_path: Path) -> None:
    stacks = list(evaluation_stacks(photos, width=48, cache=tmp_path / "cache"))
    assert [(s.camera_name, s.name) for s in stacks] == [
        ("A", "far"),
        ("B", "far"),
        ("B", "near"),
        ("C", "far"),
        ("C", "near"),
    ]
    for s in stacks:
        assert s.stack.camera == EVALUATION_CAMERAS[s.camera_name].camera
        np.testing.assert_array_equal(s.stack.focus_diopters, EVALUATION_CAMERAS[s.camera_name].focus_diopters)
        np.testing.assert_array_equal(s.stack.magnification, 1.0)
        assert s.stack.size == s.depth_m.shape == s.sharp.shape[:2] == (36, 48)
        assert np.isnan(s.depth_m[5:10, 5:10]).all() and np.isfinite(s.depth_m).sum() == 36 * 48 - 25


def test_truth_and_sharp_image_are_those_of_the_photo(photos: Path, tmp_path: Path) -> None:
    photo = load_rgbd(photos / "far")
    assert photo.rgb.shape == (72, 96, 3) and photo.meta["source"] == "rendered"
    (far,) = evaluation_stacks(photos, cameras=["A"], width=48, cache=tmp_path / "cache")
    np.testing.assert_array_equal(far.depth_m, photo.depth_m[1::2, 1::2])
    mean = decode(photo.rgb).reshape(36, 2, 48, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(decode(far.sharp), mean, atol=0.006)


def test_stacks_are_rendered_once_and_again_when_the_photo_changes(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    real = rendered.render_stack
    monkeypatch.setattr(rendered, "render_stack", lambda *a, **k: calls.append(1) or real(*a, **k))
    cache = tmp_path / "cache"

    def images() -> np.ndarray:
        (stack,) = evaluation_stacks(photos, cameras=["A"], width=48, cache=cache)
        return stack.stack.images

    first = images()
    np.testing.assert_array_equal(images(), first)
    assert len(calls) == 1
    depth = cv2.imread(str(photos / "far" / "depth_mm.png"), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(photos / "far" / "depth_mm.png"), depth + np.uint16(800))
    assert (images() != first).mean() > 0.1
    assert len(calls) == 2
    monkeypatch.setattr(rendered, "RENDERER_VERSION", -1)
    images()
    assert len(calls) == 3


def test_damaged_cache_is_rendered_again(photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = tmp_path / "cache"
    (first,) = evaluation_stacks(photos, cameras=["A"], width=48, cache=cache)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"no archive"):
        file.write_bytes(damaged)
        (again,) = evaluation_stacks(photos, cameras=["A"], width=48, cache=cache)
        np.testing.assert_array_equal(again.stack.images, first.stack.images)
        assert "damaged" in caplog.text
        assert file.read_bytes() == whole
    assert list(cache.iterdir()) == [file]


def test_cache_that_cannot_be_written_is_no_error(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    (stack,) = evaluation_stacks(photos, cameras=["A"], width=48, cache=blocked / "cache")
    assert len(stack.stack) == 3
    assert "cannot be written" in caplog.text


def test_cache_lies_in_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert rendered.cache_folder() == tmp_path / "dfs_ros" / "rendered"


def test_what_is_missing_or_wrong_is_named(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown \\['Z'\\]; known: A, B, C"):
        list(evaluation_stacks(photos, cameras=["A", "Z"]))
    with pytest.raises(FileNotFoundError, match="found none"):
        list(evaluation_stacks(tmp_path / "nowhere"))
    near = photos / "near"
    cv2.imwrite(str(near / "depth_mm.png"), np.zeros((70, 96), np.uint16))
    with pytest.raises(ValueError, match=r"depth_mm\.png: expected uint16 of shape \(72, 96\)"):
        load_rgbd(near)
    (near / "rgb.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"rgb\.png: not readable"):
        load_rgbd(near)
    (near / "rgb.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"rgb\.png"):
        load_rgbd(near)
    (photos / "far" / "meta.json").write_text("{")
    with pytest.raises(ValueError, match=r"meta\.json"):
        load_rgbd(photos / "far")


def test_camera_a_sees_the_eleven_far_scenes_of_the_photos() -> None:
    if not DATA.is_dir():
        pytest.skip(f"{DATA}: photos with depth are not here")
    far = [
        folder.name
        for folder in rendered.rgbd_folders(DATA)
        if np.nanmedian(load_rgbd(folder, 320).depth_m) > EVALUATION_CAMERAS["A"].min_median_depth_m
    ]
    assert len(far) == 11 and "nyu_rcnndepth" in far and not any("uoc" in name or "ycb" in name for name in far)
