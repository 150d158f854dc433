"""Public datasets, in tiny files of their true format that the tests write: DefocusNet, NYU, DDFF."""

import os

import cv2
import numpy as np
import pytest
from scipy.io import savemat

from dfs_research.evaluation.rendered import EVALUATION_CAMERAS
from dfs_research.training.datasets import open_dataset
from dfs_research.training.ddff import BASELINE_M, FOCAL_PX, VIEWS, ddff_camera
from dfs_research.training.defocusnet import read_depth
from dfs_research.training.settings import TrainingSettings
from dfs_ros.cli.main import main
from dfs_ros.optics.thin_lens import coc_px

os.environ["OPENCV_IO_ENABLE_OPENEXR"] = "1"
h5py = pytest.importorskip("h5py", reason="the datasets in HDF5 need h5py")

SETTINGS = TrainingSettings()
FOCUS_M = (0.1, 0.15, 0.3, 0.7, 1.5)


def random_image(seed, height=40, width=48):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_defocusnet(folder, scenes=5):
    folder.mkdir()
    for s in range(scenes):
        for i in range(5):
            cv2.imwrite(str(folder / f"{s:06d}_{i + 1:02d}All.tif"), random_image(10 * s + i)[..., ::-1])
        depth = np.full((40, 48, 3), 0.5 + s, np.float32)
        depth[0, 0], depth[0, 1], depth[0, 2] = 0.0, np.inf, 3.5
        assert cv2.imwrite(str(folder / f"{s:06d}Dpt.exr"), depth)
    return folder


# --- DefocusNet


def test_defocusnet_images_depth_and_split(tmp_path):
    folder = write_defocusnet(tmp_path / "fs")
    train, validation = (open_dataset("defocusnet", SETTINGS, data=folder, part=p) for p in ("train", "validation"))
    assert (train.count, validation.count) == (4, 1) and list(train.prepare(1)) == [4]
    stacks = train.load()
    assert len(stacks) == 4 and len(stacks[1:3]) == 2
    stack = stacks[1].stack
    np.testing.assert_allclose(1.0 / stack.focus_diopters, FOCUS_M)
    for i in range(5):
        np.testing.assert_array_equal(stack.images[i], random_image(10 + i))
    assert stack.camera.focal_length_m == 2.9e-3 and stack.camera.f_number == 1.0
    assert stack.camera.pixel_pitch_m == pytest.approx(12.11e-6, rel=1e-3)
    depth = stacks[1].depth_m
    assert depth.dtype == np.float32 and (depth[1:] == 1.5).all() and np.isnan(depth[0, :3]).all()
    assert (validation.load()[0].depth_m[5] != depth[5]).all()
    assert "4 stacks of the part train" in train.describe()


def test_defocusnet_at_some_focus_distances(tmp_path):
    """As in the paper's table 3."""
    folder = write_defocusnet(tmp_path / "fs")
    chosen = TrainingSettings(camera="defocusnet", focus_distances_m=(1.5, 0.1, 0.3))
    stack = open_dataset("defocusnet", chosen, data=folder).load()[0].stack
    np.testing.assert_allclose(1.0 / stack.focus_diopters, [0.1, 0.3, 1.5])
    np.testing.assert_array_equal(stack.images[1], random_image(2))
    for wrong, message in [((0.1, 0.4), "0.4 m: the DefocusNet data has"), ((0.1, 0.1), "two or more different")]:
        with pytest.raises(ValueError, match=message):
            open_dataset("defocusnet", TrainingSettings(camera="defocusnet", focus_distances_m=wrong), data=folder)


def test_defocusnet_files_that_are_missing_or_damaged(tmp_path):
    with pytest.raises(FileNotFoundError, match="five images each"):
        open_dataset("defocusnet", SETTINGS, data=tmp_path)
    with pytest.raises(FileNotFoundError, match="five images each"):
        open_dataset("defocusnet", SETTINGS, data=tmp_path / "nothing")
    folder = write_defocusnet(tmp_path / "fs")
    (folder / "000002_03All.tif").unlink()
    with pytest.raises(FileNotFoundError, match=r"000002Dpt\.exr.* found 4 images"):
        open_dataset("defocusnet", SETTINGS, data=folder)
    (tmp_path / "bad.exr").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"bad\.exr"):
        read_depth(tmp_path / "bad.exr")
    with pytest.raises(FileNotFoundError, match="too few"):
        open_dataset("defocusnet", SETTINGS, data=write_defocusnet(tmp_path / "one", 1), part="validation")


# --- NYU


def write_nyu(file, scenes=3):
    """The order of MATLAB's arrays: columns before rows."""
    with h5py.File(file, "w") as opened:
        images = np.stack([random_image(s, 60, 80) for s in range(scenes)])
        opened["images"] = images.transpose(0, 3, 2, 1)
        depth = np.full((scenes, 60, 80), 2.0, np.float32)
        depth[:, :, 40:] = 4.0
        depth[:, 20:24, 20:24] = 0.0
        opened["depths"] = depth.transpose(0, 2, 1)
    return file


def test_nyu_is_rendered_upright_through_the_papers_camera(tmp_path):
    file = write_nyu(tmp_path / "nyu_depth_v2_labeled.mat")
    data = open_dataset("nyu", SETTINGS, data=file, cache=tmp_path / "cache")
    assert data.count == 3 and list(data.prepare(1)) == [1, 2, 3]
    made = data.load()[1]
    camera = EVALUATION_CAMERAS["A"]
    np.testing.assert_allclose(1.0 / made.stack.focus_diopters, [2.0, 4.0, 8.0])
    assert made.stack.camera.focal_length_m == camera.camera.focal_length_m
    assert made.depth_m.shape == (44, 64) and made.stack.images.shape == (3, 44, 64, 3)
    assert np.isnan(made.depth_m[12:16, 12:16]).all() and (made.depth_m[:, :12] == 2.0).all()
    assert (made.depth_m[:, 32:] == 4.0).all()
    # Focused at 2 m, the near half is the photo itself.
    sharp = random_image(1, 60, 80)[8:-8, 8:-8]
    difference = np.abs(made.stack.images[0].astype(int) - sharp)
    assert np.median(difference[:, 2:10]) <= 2 and np.median(difference[:, 50:]) > 20
    again = open_dataset("nyu", SETTINGS, data=file, cache=tmp_path / "cache").load()[1]
    np.testing.assert_array_equal(again.stack.images, made.stack.images)
    other = TrainingSettings(camera="B")
    assert len(open_dataset("nyu", other, data=file, cache=tmp_path / "cache").load()[0].stack) == 5


def test_nyu_official_split(tmp_path):
    file = write_nyu(tmp_path / "nyu_depth_v2_labeled.mat")
    assert open_dataset("nyu", SETTINGS, data=file, cache=tmp_path).scenes == (0, 1, 2)
    with pytest.raises(ValueError, match="none of its 3 scenes is for validation"):
        open_dataset("nyu", SETTINGS, data=file, part="validation", cache=tmp_path)
    savemat(tmp_path / "splits.mat", {"trainNdxs": np.array([[1], [3]]), "testNdxs": np.array([[2]])})
    assert open_dataset("nyu", SETTINGS, data=file, cache=tmp_path).scenes == (0, 2)
    assert open_dataset("nyu", SETTINGS, data=file, part="validation", cache=tmp_path).scenes == (1,)
    savemat(tmp_path / "splits.mat", {"other": np.zeros(3)})
    with pytest.raises(ValueError, match="trainNdxs and testNdxs"):
        open_dataset("nyu", SETTINGS, data=file, cache=tmp_path)


# --- DDFF


def write_ddff(file, scenes=2, **changes):
    arrays = {
        "stack_train": np.stack([[random_image(10 * s + f) for f in range(10)] for s in range(scenes)]),
        "disp_train": np.full((scenes, 40, 48), 0.14, np.float32),
        "stack_val": np.stack([[random_image(90 + f) for f in range(10)]]),
        "disp_val": np.full((1, 1, 40, 48), 0.07, np.float32),
    }
    arrays["disp_train"][:, 0, :5] = 0.0
    with h5py.File(file, "w") as opened:
        for name, value in (arrays | changes).items():
            if value is not None:
                opened[name] = value
    return file


def test_ddff_disparity_becomes_depth_and_focus(tmp_path):
    file = write_ddff(tmp_path / "ddff.h5")
    data = open_dataset("ddff12", SETTINGS, data=file)
    made = data.load()[1]
    np.testing.assert_array_equal(made.stack.images[3], random_image(13))
    focus_m = 1.0 / made.stack.focus_diopters
    assert focus_m[0] == pytest.approx(0.5) and focus_m[-1] == pytest.approx(7.0)
    # Even steps of disparity, from .2825 to .0202 px: the values of the paper.
    disparity = FOCAL_PX * BASELINE_M * made.stack.focus_diopters
    np.testing.assert_allclose(disparity[[0, -1]], [0.28248, 0.02018], atol=2e-4)
    np.testing.assert_allclose(np.diff(disparity), np.diff(disparity)[0])
    assert np.isnan(made.depth_m[0, :5]).all()
    assert made.depth_m[5, 5] == pytest.approx(FOCAL_PX * BASELINE_M / 0.14)
    validation = open_dataset("ddff12", SETTINGS, data=file, part="validation")
    assert validation.count == 1 and validation.load()[0].depth_m.shape == (40, 48)


def test_ddff_lens_blurs_as_the_views_spread():
    """9 |disparity - that in focus| px, but for the focal length that the lens is shorter than the distance."""
    depth, focus = np.array([0.6, 1.0, 3.0]), np.array([1.0])
    spread = VIEWS * FOCAL_PX * BASELINE_M * np.abs(1.0 / depth - focus)
    np.testing.assert_allclose(coc_px(1.0 / depth, focus, ddff_camera()), spread, rtol=0.02)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"disp_train": None}, "disp_train is missing"),
        ({"disp_train": np.zeros((2, 20, 48), np.float32)}, r"\(N, F, H, W, 3\)"),
        ({"stack_train": np.zeros((2, 10, 40, 48), np.uint8)}, r"\(N, F, H, W, 3\)"),
    ],
)
def test_ddff_other_files_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        open_dataset("ddff12", SETTINGS, data=write_ddff(tmp_path / "ddff.h5", **changes))


def test_files_that_are_not_hdf5_are_refused(tmp_path):
    (tmp_path / "file.mat").write_bytes(b"MATLAB 5.0 MAT-file")
    for name in ("nyu", "ddff12"):
        with pytest.raises(ValueError, match="not readable as HDF5"):
            open_dataset(name, SETTINGS, data=tmp_path / "file.mat", cache=tmp_path)
        with pytest.raises(FileNotFoundError, match="no such file"):
            open_dataset(name, SETTINGS, data=tmp_path / "nothing.h5", cache=tmp_path)
    with h5py.File(tmp_path / "empty.mat", "w") as opened:
        opened["labels"] = np.zeros(3)
    with pytest.raises(ValueError, match="images is missing, it has labels"):
        open_dataset("nyu", SETTINGS, data=tmp_path / "empty.mat", cache=tmp_path)
    with pytest.raises(ValueError, match="expected --data"):
        open_dataset("nyu", SETTINGS)
    with pytest.raises(ValueError, match="expected one of rendered, defocusnet"):
        open_dataset("other", SETTINGS)


def test_training_on_a_dataset_by_the_command(tmp_path):
    write_ddff(tmp_path / "ddff.h5")
    arguments = ["train", "--preset", "smoke", "--network", "direct", "--dataset", "ddff12", "--steps", "2"]
    arguments += ["--data", str(tmp_path / "ddff.h5"), "--output", str(tmp_path / "out"), "--threads", "1"]
    assert main(arguments) == 2, "crops are larger than these images"
    folder = write_defocusnet(tmp_path / "fs")
    for file in folder.glob("*All.tif"):
        cv2.imwrite(str(file), cv2.resize(cv2.imread(str(file)), (112, 112)))
    for file in folder.glob("*Dpt.exr"):
        cv2.imwrite(str(file), cv2.resize(cv2.imread(str(file), cv2.IMREAD_UNCHANGED), (112, 112)))
    arguments[arguments.index("ddff12")] = "defocusnet"
    arguments[arguments.index(str(tmp_path / "ddff.h5"))] = str(folder)
    assert main([*arguments, "--focus-distances", "0.1,0.3,1.5"]) == 0
    card = (tmp_path / "out" / "smoke.md").read_text()
    assert "DefocusNet data, 4 stacks of the part train, focused at 0.1, 0.3, 1.5 m" in card.replace("\n", " ")
