"""Predictions on disk: kept, found again, never mixed."""

import json

import numpy as np
import pytest

from dfs_research.evaluation.conditions import ROBUSTNESS, STANDARD, Condition
from dfs_research.evaluation.methods import Prediction
from dfs_research.evaluation.predictions import PredictionFolder, predict
from dfs_research.evaluation.rendered import EVALUATION_CAMERAS, RenderedStack
from dfs_research.evaluation.table import score_files
from dfs_ros.config import Config
from dfs_ros.types import FocalStack

CONFIG = Config.from_dict({"hypotheses": {"min_depth_m": 0.4, "max_depth_m": 4.0, "count": 8}})


def rendered(name="room", seed=0):
    setup = EVALUATION_CAMERAS["B"]
    images = np.random.default_rng(seed).integers(0, 256, (5, 20, 24, 3), np.uint8)
    stack = FocalStack(images, np.array(setup.focus_diopters), setup.camera)
    return RenderedStack(name, "B", stack, np.full((20, 24), 2.0, np.float32), images[0])


def constant(depth_m, calls, sigma_m=None):
    def method(stack):
        calls.append(stack.camera.f_number)
        sigma = None if sigma_m is None else np.full(stack.size, sigma_m, np.float32)
        return Prediction(np.full(stack.size, depth_m, np.float32), sigma)

    return method


def test_what_was_saved_is_loaded_and_scored(tmp_path):
    folder = PredictionFolder(tmp_path, "none", CONFIG)
    assert folder.load(rendered()) is None
    calls = []
    predict({"none": constant(2.2, calls, 0.25)}, {"none": folder}, [rendered()])
    stored = PredictionFolder(tmp_path, "none", CONFIG).load(rendered())
    np.testing.assert_array_equal(stored.prediction.depth_m, np.float32(2.2))
    np.testing.assert_array_equal(stored.prediction.sigma_m, np.float32(0.25))
    assert stored.seconds > 0 and stored.commit
    (score,) = score_files([folder], [rendered()])
    assert score.values["abs_rel"] == pytest.approx(0.1, rel=1e-5) and score.values["within_sigma"] == 1.0
    assert score.values["seconds"] == stored.seconds


def test_an_interrupted_run_goes_on_where_it_was(tmp_path):
    calls, stacks = [], [rendered("a"), rendered("b"), rendered("c")]
    folders = {"none": PredictionFolder(tmp_path, "none", CONFIG)}

    def interrupted(stack):
        if len(calls) == 2:
            raise KeyboardInterrupt
        return constant(2.0, calls)(stack)

    with pytest.raises(KeyboardInterrupt):
        predict({"none": interrupted}, folders, stacks)
    with pytest.raises(FileNotFoundError, match=r"scene c.*predict it first"):
        score_files(folders.values(), stacks)
    done = []
    predict({"none": constant(2.0, calls)}, folders, stacks, progress=done.append)
    assert len(calls) == 3 and done == ["B a none", "B b none", "B c none"]
    assert [score.scene for score in score_files(folders.values(), stacks)] == ["a", "b", "c"]


def test_other_images_are_predicted_again(tmp_path):
    folder, calls = PredictionFolder(tmp_path, "none", CONFIG), []
    for seed in (0, 0, 1):
        predict({"none": constant(2.0 + seed, calls)}, {"none": folder}, [rendered(seed=seed)])
    assert len(calls) == 2
    assert folder.load(rendered(seed=0)) is None and folder.load(rendered(seed=1)) is not None


def test_other_configurations_are_refused_and_named(tmp_path):
    folder = PredictionFolder(tmp_path, "none", CONFIG)
    predict({"none": constant(2.0, [])}, {"none": folder}, [rendered()])
    PredictionFolder(tmp_path, "none", CONFIG)
    PredictionFolder(tmp_path, "residual", CONFIG)
    other = CONFIG.updated({"hypotheses": {"count": 9}, "regularization": {"smoothness": 0.3}})
    with pytest.raises(ValueError, match=r"another hypotheses\.count, regularization\.smoothness.*another folder"):
        PredictionFolder(tmp_path, "none", other)
    (tmp_path / "standard" / "none" / "method.json").write_text("{")
    with pytest.raises(ValueError, match="not readable"):
        PredictionFolder(tmp_path, "none", CONFIG)


def test_other_weights_are_refused(tmp_path, monkeypatch):
    weights = tmp_path / "mine.safetensors"
    weights.write_bytes(b"one")
    folder = PredictionFolder(tmp_path / "p", str(weights), CONFIG)
    predict({"mine": constant(2.0, [])}, {"mine": folder}, [rendered()])
    weights.write_bytes(b"two")
    with pytest.raises(ValueError, match="weights_sha256"):
        PredictionFolder(tmp_path / "p", str(weights), CONFIG)


def test_damaged_predictions_are_named(tmp_path):
    folder = PredictionFolder(tmp_path, "none", CONFIG)
    predict({"none": constant(2.0, [])}, {"none": folder}, [rendered()])
    place = folder.folder / "B_room"
    np.save(place / "depth.npy", np.zeros((3, 4), np.float32))
    with pytest.raises(ValueError, match=r"depth\.npy: expected float32 of shape \(20, 24\)"):
        folder.load(rendered())
    (place / "depth.npy").write_bytes(b"no array")
    with pytest.raises(ValueError, match=r"depth\.npy: not readable"):
        folder.load(rendered())
    assert json.loads((place / "made.json").read_text())["sigma"] is False


def test_a_wrong_lens_is_told_to_the_method_and_kept_apart(tmp_path):
    condition, calls = Condition("wide", f_number_error=0.1), []
    folders = {"none": PredictionFolder(tmp_path, "none", CONFIG, condition)}
    predict({"none": constant(2.0, calls)}, folders, [rendered()], condition)
    assert calls == [pytest.approx(1.1 * EVALUATION_CAMERAS["B"].camera.f_number)]
    assert PredictionFolder(tmp_path, "none", CONFIG, STANDARD).load(rendered()) is None


def test_conditions_skip_scenes_beyond_their_hypotheses(tmp_path):
    near = next(c for c in ROBUSTNESS if c.hypotheses.get("max_depth_m") == 3.0)
    assert near.configured(CONFIG).hypotheses.max_depth_m == 3.0
    assert near.configured(CONFIG).hypotheses.count == 8
    room = rendered()
    assert near.suits(room) and STANDARD.suits(room)
    room.depth_m[0, :2] = 3.5  # 2 of 480 pixels
    assert near.suits(room)
    room.depth_m[0, :3] = 3.5
    assert not near.suits(room) and STANDARD.suits(room)
    calls = []
    folders = {"none": PredictionFolder(tmp_path, "none", CONFIG, near)}
    predict({"none": constant(2.0, calls)}, folders, [room], near)
    assert not calls and score_files(folders.values(), [room], near) == []


def test_settings_that_no_estimate_depends_on_do_not_matter(tmp_path):
    folder = PredictionFolder(tmp_path, "none", CONFIG)
    predict({"none": constant(2.0, [])}, {"none": folder}, [rendered()])
    other = CONFIG.updated({"viewer": {"port": 9000}})
    assert PredictionFolder(tmp_path, "none", other).load(rendered()) is not None
