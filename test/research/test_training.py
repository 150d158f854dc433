"""Training data, loss, loop and command."""

import math

import cv2
import numpy as np
import pytest
import torch

from dfs_research.training.loop import Trainer
from dfs_research.training.loss import cross_entropy, pinball, training_loss
from dfs_research.training.samples import cropped, index_of, random_hypotheses, random_sample
from dfs_research.training.settings import TrainingSettings, preset
from dfs_research.training.stacks import Sources, StackSet, random_lens, random_stack
from dfs_ros.cost_volume.hypotheses import depth_hypotheses
from dfs_ros.depth.readout import median_and_spread as median_and_spread_numpy
from dfs_ros.depth.readout_torch import median_and_spread
from dfs_ros.network.light import LightArchitecture
from dfs_ros.network.weights import load_weights
from dfs_ros.optics.thin_lens import coc_px

SIZE = 64
SMALL = LightArchitecture(channels=(8, 8, 12, 16), image_channels=8)


def small_set(folder, count=2, seed=0):
    return StackSet(Sources(), count, seed=seed, size_px=SIZE, folder=folder)


def small_settings(**changes):
    return preset("smoke", **{"steps": 4, "crop_px": SIZE, "bf16": False, **changes})


@pytest.fixture(scope="module")
def stacks(rendered):
    return small_set(rendered).load()


# --- stacks


def test_a_stack_is_made_from_its_number_alone():
    first, again, other = (random_stack(np.random.default_rng((0, i)), Sources(), SIZE) for i in (5, 5, 6))
    np.testing.assert_array_equal(first.stack.images, again.stack.images)
    np.testing.assert_array_equal(first.depth_m, again.depth_m)
    assert first.stack.images.shape[1:] == (SIZE, SIZE, 3) and first.depth_m.shape == (SIZE, SIZE)
    assert other.stack.images.shape != first.stack.images.shape or (other.stack.images != first.stack.images).any()


def test_cache_gives_back_what_was_rendered(tmp_path):
    stack_set = small_set(tmp_path)
    assert list(stack_set.prepare(processes=1)) == [0, 1, 2]
    assert list(stack_set.prepare(processes=1)) == [2], "nothing is rendered twice"
    loaded = stack_set.load()
    direct = random_stack(np.random.default_rng((0, 1)), Sources(), SIZE)
    np.testing.assert_array_equal(loaded[1].stack.images, direct.stack.images)
    np.testing.assert_array_equal(loaded[1].stack.focus_diopters, direct.stack.focus_diopters)
    assert loaded[1].stack.camera.f_number == direct.stack.camera.f_number
    assert small_set(tmp_path, seed=1).recipe() != stack_set.recipe()


def test_photos_with_depth_become_scenes(tmp_path):
    scene = tmp_path / "room"
    scene.mkdir()
    rng = np.random.default_rng(0)
    cv2.imwrite(str(scene / "rgb.png"), rng.integers(0, 256, (90, 120, 3), dtype=np.uint8))
    depth = np.full((90, 120), 1500, np.uint16)
    depth[:, 60:] = 900
    depth[:20, :20] = 0
    cv2.imwrite(str(scene / "depth_mm.png"), depth)
    (scene / "meta.json").write_text("{}")
    sources = Sources.find(tmp_path)
    assert [path.name for path in sources.rgbd] == ["room"] and "room" in sources.describe()
    made = [random_stack(np.random.default_rng(i), sources, SIZE) for i in range(6)]
    ratios = [np.unique(m.depth_m[np.isfinite(m.depth_m)]) for m in made]
    from_photo = [r for r in ratios if len(r) == 2]
    assert from_photo and all(r[1] / r[0] == pytest.approx(1500 / 900, rel=1e-5) for r in from_photo)


def test_random_lenses_blur_by_2_to_25_px():
    inverse = np.linspace(0.3, 1.5, 500)
    widest = []
    for seed in range(60):
        camera, focus = random_lens(np.random.default_rng(seed), inverse, 176)
        assert 2 <= len(focus) <= 10 and (focus >= 0).all() and camera.focal_length_m * focus.max() < 0.5
        widest.append(float(coc_px(np.array([0.3, 1.5])[:, None], focus, camera).max()))
    assert 1.9 < min(widest) < 5 and 15 < max(widest) < 27


def test_stack_set_refuses_no_stacks():
    with pytest.raises(ValueError, match="1 or more"):
        small_set("unused", count=0)


# --- samples


def test_index_of_depth_in_either_order():
    depths = depth_hypotheses(0.5, 5.0, 10)
    depth = np.array([[0.5, 5.0, 1.0, 0.4, np.nan]], np.float32)
    index = index_of(depths, depth)[0]
    np.testing.assert_allclose(index[:3], [0.0, 9.0, 5.0], atol=1e-5)
    assert np.isnan(index[3:]).all(), "outside the range, and unknown"
    np.testing.assert_allclose(index_of(depths[::-1], depth)[0][:3], [9.0, 0.0, 4.0], atol=1e-5)


def test_hypotheses_hold_the_scene_and_vary():
    inverse = np.linspace(0.4, 1.6, 400)
    rng = np.random.default_rng(0)
    drawn = [random_hypotheses(rng, inverse, 32) for _ in range(100)]
    assert all(1 / d.max() <= 0.4 + 0.01 and 1 / d.min() >= 1.6 - 0.01 for d in drawn)
    ascending = sum(d[0] < d[-1] for d in drawn)
    assert 30 < ascending < 70
    spans = [1 / d.min() - 1 / d.max() for d in drawn]
    assert min(spans) < 1.6 and max(spans) > 4.0


def test_samples_vary_and_show_the_truth(stacks):
    """The lowest energy is where the truth is, wherever there is texture: input and target belong together."""
    errors = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        sample = random_sample(rng, stacks[seed % 2], 32, 0)
        assert sample.energy.shape == sample.smoothed.shape == (32, SIZE, SIZE) and sample.image.shape == (
            4,
            SIZE,
            SIZE,
        )
        assert np.isfinite(sample.energy).all() and sample.image.min() >= 0 and sample.image.max() <= 1
        known = np.isfinite(sample.truth)
        errors.append(np.median(np.abs(sample.smoothed.argmin(axis=0) - sample.truth)[known]))
    assert np.median(errors) < 1.5
    first, again = (random_sample(np.random.default_rng(3), stacks[0], 32, 0) for _ in range(2))
    np.testing.assert_array_equal(first.energy, again.energy)


def test_costs_between_few_hypotheses_are_interpolated_and_the_truth_goes_with_them(stacks):
    few, many = (random_sample(np.random.default_rng(3), stacks[0], 16, least) for least in (0, 60))
    assert few.energy.shape[0] == 16 and many.energy.shape[0] == 61
    np.testing.assert_allclose(many.energy[::4], few.energy, atol=1e-5)
    np.testing.assert_allclose(many.truth, 4 * few.truth, atol=1e-3)


def test_crops_stay_together(stacks):
    rng = np.random.default_rng(0)
    sample = random_sample(rng, stacks[0], 8, 0)
    part = cropped(sample, np.random.default_rng(1), 32)
    assert part.energy.shape == (8, 32, 32) and part.image.shape == (4, 32, 32) and part.truth.shape == (32, 32)
    rows, columns = np.nonzero((sample.image[0] == part.image[0, 0, 0]) & (sample.energy[0] == part.energy[0, 0, 0]))
    row, column = rows[0], columns[0]
    np.testing.assert_array_equal(part.truth, sample.truth[row : row + 32, column : column + 32])
    with pytest.raises(ValueError, match="multiple of 32"):
        cropped(sample, rng, 40)


# --- loss


def test_readout_is_the_same_to_train_and_to_run():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (2, 24, 9, 11)).astype(np.float32)
    p = torch.softmax(torch.from_numpy(logits), dim=1)
    index, sigma = median_and_spread(p)
    for b in range(2):
        expected_index, expected_sigma = median_and_spread_numpy(p[b].numpy())
        np.testing.assert_allclose(index[b], expected_index, atol=1e-4)
        np.testing.assert_allclose(sigma[b], expected_sigma, atol=1e-3)


def test_cross_entropy_is_least_at_the_truth():
    target = torch.tensor([[[2.25]]])
    best = torch.full((1, 6, 1, 1), 1e-6)
    best[0, 2], best[0, 3] = 2 / 3, 1 / 3
    assert float(median_and_spread(best)[0]) == pytest.approx(2.25, abs=1e-4), "read out, it is the truth"
    least = cross_entropy(best.log(), target)
    assert float(least) == pytest.approx(-(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3)), rel=1e-4)
    for other in (0.5, 0.8):
        wrong = best.clone()
        wrong[0, 2], wrong[0, 3] = other, 1 - other
        assert cross_entropy(wrong.log(), target) > least
    last = torch.full((1, 6, 1, 1), 1e-6)
    last[0, 5] = 1.0
    assert float(cross_entropy(last.log(), torch.tensor([[[5.0]]]))) == pytest.approx(0.0, abs=1e-5)


def test_pinball_is_least_where_683_of_1000_errors_are_within():
    error = torch.from_numpy(np.abs(np.random.default_rng(0).standard_normal(20000)))
    sigmas = np.linspace(0.5, 2.0, 61)
    losses = [float(pinball(error, torch.tensor(s)).mean()) for s in sigmas]
    assert sigmas[int(np.argmin(losses))] == pytest.approx(1.0, abs=0.05), "of a Gaussian that is its sigma"


def test_loss_counts_known_pixels_only_and_prefers_the_truth():
    truth = torch.full((1, 8, 8), 3.0)
    truth[0, :, 4:] = float("nan")
    d = torch.arange(10.0)[:, None, None]
    right = (-4.0 * (d - 3.0).abs()).expand(10, 8, 8)[None].clone()
    score = torch.zeros(1, 10, 2, 2)
    loss, parts = training_loss(right, score, truth)
    assert float(parts["distance"]) == pytest.approx(0.0, abs=1e-3)
    changed = right.clone()
    changed[..., 4:] = torch.randn(1, 10, 8, 4)
    torch.testing.assert_close(training_loss(changed, score, truth)[0], loss)
    wrong = (-4.0 * (d - 6.0).abs()).expand(10, 8, 8)[None].clone()
    worse, parts = training_loss(wrong, score, truth)
    assert float(parts["distance"]) == pytest.approx(3.0, abs=1e-3) and worse > loss + 5
    nothing, _ = training_loss(right, score, torch.full((1, 8, 8), float("nan")))
    assert float(nothing) == 0.0


# --- loop


def test_training_learns(stacks):
    """On two stacks the loss of the same batches falls well below where it begins, which is no bad answer already."""
    trainer = Trainer(
        small_settings(steps=140, learning_rate=1.6e-2, warmup_steps=5, hypotheses_per_step=16), stacks, SMALL
    )
    batches = [trainer.recipe.batch(np.random.default_rng((9, i)), stacks) for i in range(8)]

    def loss() -> float:
        with torch.inference_mode():
            return float(np.mean([trainer.recipe.loss(batch)[0] for batch in batches]))

    before = loss()
    losses = [step.loss for step in trainer.run()]
    assert len(losses) == 140 and np.isfinite(losses).all()
    assert loss() < 0.87 * before


def test_resumed_training_gives_the_same_weights(stacks, tmp_path):
    whole = Trainer(small_settings(), stacks, SMALL)
    steps = list(whole.run())
    assert [step.step for step in steps] == [1, 2, 3, 4] and steps[-1].remaining_s == pytest.approx(0.0, abs=1e-6)
    first = Trainer(small_settings(), stacks, SMALL)
    run = first.run()
    next(run), next(run)
    first.save_checkpoint(tmp_path / "checkpoint")
    run.close()
    second = Trainer(small_settings(), stacks, SMALL)
    second.load_checkpoint(tmp_path / "checkpoint")
    assert [step.step for step in second.run()] == [3, 4]
    for name, value in whole.averaged_weights().items():
        assert torch.equal(value, second.averaged_weights()[name]), name
    assert any(not torch.equal(v, first.averaged_weights()[n]) for n, v in whole.averaged_weights().items())


def test_checkpoints_of_other_trainings_are_refused(stacks, tmp_path):
    Trainer(small_settings(), stacks, SMALL).save_checkpoint(tmp_path / "checkpoint")
    with pytest.raises(ValueError, match="other settings"):
        Trainer(small_settings(seed=1), stacks, SMALL).load_checkpoint(tmp_path / "checkpoint")
    with pytest.raises(ValueError, match="other architecture"):
        Trainer(small_settings(), stacks).load_checkpoint(tmp_path / "checkpoint")
    (tmp_path / "damaged").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="not readable"):
        Trainer(small_settings(), stacks, SMALL).load_checkpoint(tmp_path / "damaged")


def test_time_limit_ends_the_training_early(stacks):
    trainer = Trainer(small_settings(steps=100000, hours=0.5 / 3600.0), stacks, SMALL)
    steps = list(trainer.run())
    assert 1 <= len(steps) < 100000 and steps[-1].learning_rate < steps[0].learning_rate * 2
    assert steps[-1].elapsed_s >= 0.5  # or it would have gone on


def test_settings_are_checked():
    assert preset("light", steps=7).steps == 7 and preset("light", steps=None) == TrainingSettings()
    with pytest.raises(ValueError, match="unknown 'heavy'; known: light"):
        preset("heavy")
    with pytest.raises(ValueError, match="steps: expected 1 to"):
        preset("light", steps=0)
    with pytest.raises(ValueError, match="multiple of 32"):
        preset("light", crop_px=100)


# --- command


def test_command_trains_and_writes_network_and_card(tmp_path, capsys, monkeypatch, coarsely_rendered):
    from dfs_ros.cli.main import main

    monkeypatch.setattr("dfs_research.training.sigma.WIDTH_PX", 96)  # of the scenes that calibrate
    arguments = ["train", "--preset", "smoke", "--steps", "2", "--stacks", "1", "--threads", "1"]
    arguments += ["--output", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"), "--name", "tiny"]
    assert main(arguments) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"tiny.safetensors", "tiny.md", "tiny.checkpoint"}
    card = (tmp_path / "out" / "tiny.md").read_text()
    assert "2 steps" in card and "1 focal stacks" in card
    network = load_weights(tmp_path / "out" / "tiny.safetensors")
    assert network.architecture == LightArchitecture()
    # Once more has nothing to train: it calibrates, and the card still tells how the training ended.
    assert main(arguments) == 0
    assert (tmp_path / "out" / "tiny.md").read_text() == card and "At the end, mean of the last 200 steps: loss" in card
    assert main([*arguments, "--bf16", "off"]) == 2
    assert "other settings" in capsys.readouterr().err
    assert main([*arguments[:-2], "--name", "../up"]) == 2
    assert main(["train", "--preset", "nonesuch", "--output", str(tmp_path / "out")]) == 2
