"""Training of every network: recipes, exact resumption, one camera, scale augmentation, several processes, command."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from ports import new_port

from dfs_research.baselines import load_module
from dfs_research.evaluation.predictors import predictor
from dfs_research.training.cameras import TRAINING_CAMERAS, training_camera
from dfs_research.training.loop import Trainer
from dfs_research.training.recipes import (
    SCALES,
    augmented,
    constraint_losses,
    make_recipe,
    masked_mean,
    randomly_scaled,
    scaled,
    subsampled,
)
from dfs_research.training.settings import NETWORKS, PRESETS, TrainingSettings, preset
from dfs_research.training.stacks import Sources, StackSet
from dfs_ros.cli.main import main
from dfs_ros.optics.thin_lens import coc_px

SIZE = 64


def settings_of(network, **changes):
    small = {"steps": 4, "crop_px": SIZE, "bf16": False, "camera": "B", "hypotheses": 6, "width": 0.1}
    return preset("smoke", **{"network": network, **small, **changes})


@pytest.fixture(scope="module")
def stacks(rendered):
    return StackSet(Sources(), 2, size_px=SIZE, folder=rendered, setup=training_camera("B")).load()


@pytest.fixture(scope="module")
def any_stacks(rendered):
    return StackSet(Sources(), 4, size_px=SIZE, folder=rendered).load()


# --- one camera


def test_stacks_of_one_camera_have_its_lens_and_focus(stacks):
    setup = TRAINING_CAMERAS["B"]
    for made in stacks:
        assert made.stack.camera.f_number == setup.camera.f_number
        np.testing.assert_allclose(made.stack.focus_diopters, setup.focus_diopters)
        assert 0.6 * 0.5 < 1.0 / np.nanmedian(made.depth_m) < 1.2 * 2.2


def test_training_cameras():
    chosen = training_camera("defocusnet", (0.1, 0.3, 1.5))
    np.testing.assert_allclose(chosen.focus_diopters, [10.0, 10.0 / 3.0, 2.0 / 3.0])
    assert chosen.camera == TRAINING_CAMERAS["defocusnet"].camera
    # The blur that the paper's lens gives, from its equation.
    assert float(coc_px(1 / 0.3, np.array([10.0]), chosen.camera)[0]) == pytest.approx(4.77, abs=0.01)
    for wrong, message in [((0.1,), "two or more"), ((0.1, -1.0), "two or more"), ((0.1, 0.001), "focus distance")]:
        with pytest.raises(ValueError, match=message):
            training_camera("defocusnet", wrong)
    with pytest.raises(ValueError, match="unknown 'Z'; known: A, B, C"):
        training_camera("Z")


def test_recipe_of_the_stacks_depends_on_the_camera(tmp_path):
    sets = [
        StackSet(Sources(), 2, folder=tmp_path, setup=s) for s in (None, training_camera("B"), training_camera("C"))
    ]
    assert len({s.recipe() for s in sets}) == 3
    assert "one lens, 8 mm, f/1.4" in sets[1].describe() and "random lenses" in sets[0].describe()


def test_settings_that_do_not_go_together_are_refused():
    for wrong, message in [
        ({"network": "heavy"}, "network: expected one of light, ddfs, dualfocus, direct"),
        ({"camera": "Z"}, "camera: expected one of any, A, B, C, defocusnet"),
        ({"focus_distances_m": (1.0, 2.0), "camera": "any"}, "name it too"),
        ({"min_depth_m": 3.0, "max_depth_m": 1.0}, "less than max_depth_m"),
    ]:
        with pytest.raises(ValueError, match=message):
            preset("smoke", **wrong)
    assert {p.network for p in PRESETS.values()} == set(NETWORKS)
    assert all(preset(name) == settings for name, settings in PRESETS.items())


# --- samples and losses


def test_scaling_depth_and_camera_leaves_the_blur(stacks):
    """DDFS, section 3.1: what the images show of a scene and of one as much larger is the same."""
    made = stacks[0]
    depth = np.array([0.5, 1.0, 4.0])
    before = coc_px(1.0 / depth[:, None], made.stack.focus_diopters, made.stack.camera)
    for scale in (1.5, 9.0):
        larger = scaled(made.stack, scale)
        after = coc_px(1.0 / (scale * depth[:, None]), larger.focus_diopters, larger.camera)
        np.testing.assert_allclose(after, before, rtol=1e-9)
        np.testing.assert_array_equal(larger.images, made.stack.images)


def test_random_scales_are_those_of_the_paper_and_stay_within_the_hypotheses(stacks):
    assert SCALES[0] == 1.0 and SCALES[1] == 1.5 and SCALES[-1] == 9.0 and len(SCALES) == 17
    depths = np.linspace(0.3, 10.0, 8)
    made = dataclasses.replace(stacks[0], depth_m=np.full((SIZE, SIZE), 1.0, np.float32))
    seen = set()
    for seed in range(60):
        stack, depth_m = randomly_scaled(np.random.default_rng(seed), made.stack, made.depth_m, depths)
        ratio = float(np.nanmedian(depth_m))
        assert stack.camera.focal_length_m / made.stack.camera.focal_length_m == pytest.approx(ratio)
        seen.add(round(ratio, 3))
    assert seen <= set(SCALES) and len(seen) > 10
    far = np.full((SIZE, SIZE), 4.0, np.float32)
    drawn = {float(randomly_scaled(np.random.default_rng(i), made.stack, far, depths)[1][0, 0]) / 4 for i in range(40)}
    assert drawn == {1.0, 1.5, 2.0, 2.5}


def test_augmented_samples_keep_images_and_depth_together(stacks):
    """Away from the photo's edges a near and a far half stay where the images change with focus."""
    made = stacks[0]
    marked = np.zeros((SIZE, SIZE), np.float32)
    marked[20:30, 40:60] = 1.0
    images = np.repeat((255 * marked[None, ..., None]).astype(np.uint8), 5, axis=0).repeat(3, axis=-1)
    made = dataclasses.replace(made, stack=dataclasses.replace(made.stack, images=images), depth_m=1.0 + marked)
    for seed in range(8):
        stack, depth_m = augmented(np.random.default_rng(seed), made, 48)
        assert stack.images.shape == (5, 48, 48, 3)
        bright = stack.images[0, :, :, 0] > 127
        np.testing.assert_array_equal(bright, depth_m > 1.5)
    with pytest.raises(ValueError, match="does not fit"):
        augmented(np.random.default_rng(0), made, 96)


@pytest.mark.parametrize("network", NETWORKS)
def test_batches_are_made_from_their_number_alone(network, any_stacks):
    """Also of stacks with different numbers of images."""
    recipe = make_recipe(settings_of(network, camera="any", samples_per_step=3))
    first, again, other = (recipe.batch(np.random.default_rng((0, n)), any_stacks) for n in (1, 1, 2))
    for a, b in zip(first, again, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
    same = [a.shape == b.shape and torch.equal(a, b) for a, b in zip(first, other, strict=True)]
    assert not all(same)


def test_means_leave_unknown_pixels_out_of_value_and_gradient():
    truth = torch.tensor([[[1.0, float("nan")], [3.0, 5.0]]])
    values = torch.tensor([[[1.0, 100.0], [2.0, 6.0]]], requires_grad=True)
    mean = masked_mean(values, truth)
    mean.backward()
    assert mean.item() == pytest.approx(3.0)
    torch.testing.assert_close(values.grad, torch.tensor([[[1 / 3, 0.0], [1 / 3, 1 / 3]]]))
    torch.testing.assert_close(
        subsampled(torch.arange(64.0).view(1, 8, 8), 4), torch.tensor([[[18.0, 22.0], [50, 54]]])
    )


def test_constraints_are_off_unless_weighed_and_then_count():
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(2, 8, 16, 16, generator=generator).softmax(dim=1).requires_grad_()
    truth = 7 * torch.rand(2, 16, 16, generator=generator)
    total, parts = constraint_losses(p, truth, TrainingSettings(), None)
    assert total.item() == 0.0 and parts == {}
    weighed = TrainingSettings(focal_weight=2.0, spatial_weight=0.5)
    surface = make_recipe(dataclasses.replace(weighed, network="light")).auxiliary
    total, parts = constraint_losses(p, truth, weighed, surface)
    assert total.item() == pytest.approx(2.0 * parts["focal"].item() + 0.5 * parts["spatial"].item(), rel=1e-5)
    total.backward()
    assert p.grad.abs().sum() > 0 and all(w.grad is not None for w in surface.parameters())


# --- the loop


@pytest.mark.parametrize(("network", "steps"), [("ddfs", 30), ("dualfocus", 60), ("direct", 60)])
def test_training_learns(network, steps, stacks):
    settings = settings_of(network, steps=steps, learning_rate=4e-3, warmup_steps=5, samples_per_step=2)
    losses = [step.loss for step in Trainer(settings, stacks).run()]
    assert np.isfinite(losses).all() and np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])


@pytest.mark.parametrize("network", NETWORKS)
def test_resumed_training_is_the_same_to_the_bit(network, stacks, tmp_path):
    """Also with the constraints, whose surface features are trained along."""
    more = {"spatial_weight": 0.1, "focal_weight": 0.1} if network in ("light", "ddfs") else {}
    settings = settings_of(network, hypotheses_per_step=24, **more)
    whole = Trainer(settings, stacks)
    losses = [step.loss for step in whole.run()]
    first = Trainer(settings, stacks)
    run = first.run()
    next(run), next(run)
    first.save_checkpoint(tmp_path / "checkpoint")
    run.close()
    torch.manual_seed(99)
    second = Trainer(settings, stacks)
    second.load_checkpoint(tmp_path / "checkpoint")
    assert [step.loss for step in second.run()] == losses[2:]
    for name, value in whole.averaged_weights().items():
        assert torch.equal(value, second.averaged_weights()[name]), name
    other = settings_of("direct" if network != "direct" else "dualfocus")
    with pytest.raises(ValueError, match="other settings"):
        Trainer(other, stacks).load_checkpoint(tmp_path / "checkpoint")


def test_kept_weights_are_a_mean_and_counters_are_counted(stacks):
    trainer = Trainer(settings_of("ddfs", average=0.9), stacks)
    list(trainer.run())
    kept, last = trainer.averaged_weights(), trainer.network.state_dict()
    assert not torch.equal(kept["encoder.conv1.0.weight"], last["encoder.conv1.0.weight"])
    assert int(kept["encoder.conv1.1.num_batches_tracked"]) == 4


# --- command


def command(folder, *more):
    arguments = ["train", "--preset", "smoke", "--steps", "2", "--stacks", "1", "--threads", "1"]
    return [*arguments, "--output", str(folder / "out"), "--cache", str(folder / "cache"), *more]


def run_command(folder, *more):
    return main(command(folder, *more))


def test_command_trains_any_network_for_one_camera(tmp_path, rendered, capsys, coarsely_rendered):
    assert run_command(tmp_path, "--network", "direct", "--camera", "B", "--focus-distances", "0.5,1,2") == 0
    card = (tmp_path / "out" / "smoke.md").read_text()
    assert "in the way of DefocusNet" in card and "focused at 2, 1, 0.5 dioptres" in card
    assert "- `network`: direct" in card and "- `focus_distances_m`: (0.5, 1.0, 2.0)" in card
    file = tmp_path / "out" / "smoke.safetensors"
    assert type(load_module(file)).__name__ == "DirectNetwork"
    stack = StackSet(Sources(), 1, size_px=SIZE, folder=rendered, setup=training_camera("B")).load()[0].stack
    depth, sigma = predictor(str(file))(stack, [0.5, 1.0, 2.0])
    assert depth.shape == (SIZE, SIZE) and (depth > 0).all() and sigma is None
    for wrong, message in [
        (["--focus-distances", "near"], "metres separated by commas"),
        (["--focus-distances", "1,2"], "name it too"),
        (["--camera", "Z"], "camera: expected one of"),
        (["--dataset", "nyu"], "expected --data"),
        (["--dataset", "nyu", "--data", str(tmp_path / "no.mat")], "no such file"),
        (["--network", "direct", "--camera", "B", "--bf16", "off", "--focus-distances", "0.5,1,2"], "other settings"),
    ]:
        assert run_command(tmp_path, *wrong) == 2
        assert message in capsys.readouterr().err


def test_two_processes_train_as_one_with_both_batches(tmp_path, monkeypatch, capsys, coarsely_rendered):
    """Two processes, named as by torchrun: the weights are those of one that sees both batches of every step."""
    options = ["--network", "direct", "--camera", "B", "--bf16", "off", "--device", "cpu", "--restart"]
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(new_port())}
    for name, value in {**address, "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    second = [sys.executable, "-m", "dfs_ros.cli.main", *command(tmp_path, *options)]
    environment = {**os.environ, "RANK": "1", "LOCAL_RANK": "1", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(second, stdout=subprocess.PIPE, env=environment) as process:
        assert run_command(tmp_path, *options) == 0
        assert process.communicate(timeout=250)[0] == b"" and process.returncode == 0
    assert capsys.readouterr().out.count("written:") == 1, "one process writes"
    assert "2 x cpu" in (tmp_path / "out" / "smoke.md").read_text()

    settings = preset("smoke", network="direct", camera="B", bf16=False, steps=2, stacks=1)
    data = StackSet(Sources.find(None), 1, folder=tmp_path / "cache", setup=training_camera("B"))
    trainer = Trainer(settings, data.load())

    def both(step):
        made = [trainer.recipe.batch(np.random.default_rng((0, 1, step, rank)), trainer.stacks) for rank in range(2)]
        return tuple(torch.cat(parts) for parts in zip(*made, strict=True))

    trainer._batch = both
    list(trainer.run())
    trained = load_module(tmp_path / "out" / "smoke.safetensors").state_dict()
    expected = trainer.averaged_weights()
    # The softmax over the images cancels it: its gradient is rounding alone, which AdamW scales to a whole step.
    del trained["attention.bias"], expected["attention.bias"]
    torch.testing.assert_close(trained, expected, atol=2e-6, rtol=1e-5)
