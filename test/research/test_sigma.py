"""Calibration of sigma: the factor does what it says, ships with the weights, and comes from scenes of its own."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from dfs_research.evaluation.protocol import FARTHEST_M, HYPOTHESES
from dfs_research.evaluation.rendered import EVALUATION_CAMERAS
from dfs_research.training import sigma as calibration
from dfs_research.training.sigma import SHARE_WITHIN_SIGMA, calibration_stacks, fit_sigma_scale
from dfs_research.training.stacks import PARTS, Sources, StackSet
from dfs_ros.config import CostConfig, NetworkConfig
from dfs_ros.depth.readout import SIGMA_FLOOR, at_index, median_and_spread, read_out, sigma_in_use
from dfs_ros.depth.scene_range import rms_px_per_diopter
from dfs_ros.network import load_network
from dfs_ros.network.light import LightArchitecture, LightNetwork
from dfs_ros.network.weights import save_network, sigma_scale_of

SMALL = LightArchitecture(channels=(8, 8, 12, 16), image_channels=8)


@pytest.fixture(scope="module")
def stacks(rendered):
    return StackSet(Sources(), 2, size_px=64, folder=rendered).load()


@pytest.fixture(scope="module")
def network() -> LightNetwork:
    torch.manual_seed(0)
    return LightNetwork(SMALL)


def test_the_share_of_errors_within_the_calibrated_sigma(network, stacks) -> None:
    """By the formula of use: the linear part and the superlinear one, in dioptres."""
    fit = fit_sigma_scale(network, stacks)
    within, count = 0, 0
    for index, rendered in enumerate(stacks):
        rng = np.random.default_rng((calibration._SEED, index))
        stack = calibration.disturbed(rng, rendered.stack, calibration._AS_DESCRIBED)
        depths_m = calibration.depth_hypotheses(calibration.nearest_of(stack), FARTHEST_M, HYPOTHESES)
        sample = calibration.sample_of(rng, stack, rendered.depth_m, depths_m, CostConfig())
        with torch.inference_mode():
            inputs = (torch.from_numpy(x)[None] for x in (sample.energy, sample.smoothed, sample.image))
            probability = network(*inputs)[0].numpy()
        diopters, spread = read_out(probability, depths_m, fit.scale)
        sigma = sigma_in_use(spread, rms_px_per_diopter(stack))
        known = np.isfinite(sample.truth)
        error = np.abs(diopters - at_index(1.0 / depths_m, sample.truth))
        within += np.count_nonzero(error[known] <= sigma[known] * 1.0001)
        count += np.count_nonzero(known)
    assert within / count == pytest.approx(SHARE_WITHIN_SIGMA, abs=0.02)
    assert fit.stacks == 2 and 0.0 < fit.within < 1.0
    assert fit_sigma_scale(network, stacks) == fit


def test_stacks_without_known_depth_are_refused(network, stacks) -> None:
    unknown = dataclasses.replace(stacks[0], depth_m=np.full_like(stacks[0].depth_m, np.nan))
    with pytest.raises(ValueError, match="expected 1 stack or more with known depth"):
        fit_sigma_scale(network, [unknown])


def test_the_scale_multiplies_the_spread_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    probability = rng.dirichlet(np.ones(6), (3, 4)).transpose(2, 0, 1).astype(np.float32)
    index, plain = median_and_spread(probability)
    scaled_index, scaled = median_and_spread(probability, 2.5)
    np.testing.assert_array_equal(index, scaled_index)
    np.testing.assert_allclose(scaled - SIGMA_FLOOR, 2.5 * (plain - SIGMA_FLOOR), rtol=1e-5)
    depths_m = np.linspace(1.0, 2.0, 6)
    assert (read_out(probability, depths_m, 2.5)[1] > read_out(probability, depths_m)[1]).all()


def test_the_scale_ships_with_the_weights(tmp_path, network) -> None:
    file = tmp_path / "network.safetensors"
    save_network(file, network.state_dict(), SMALL, {}, 0.75)
    assert sigma_scale_of(file) == 0.75
    assert load_network(NetworkConfig(name=str(file)), "cpu").sigma_scale == 0.75
    save_network(file, network.state_dict(), SMALL, {}, float("nan"))
    with pytest.raises(ValueError, match="expected a positive sigma_scale"):
        sigma_scale_of(file)


def test_scenes_are_for_one_part_only(tmp_path) -> None:
    for i in range(12):
        folder = tmp_path / f"scene{i:02d}"
        folder.mkdir()
        (folder / "depth_mm.png").touch()
    parts = {part: {path.name for path in Sources.find(tmp_path, part).rgbd} for part in PARTS}
    assert [len(parts[part]) for part in PARTS] == [8, 2, 2]
    assert len(set.union(*parts.values())) == 12
    held_out = Sources.find(tmp_path, "calibration")
    assert {path.parent.name for path in held_out.photos} == parts["calibration"]
    with pytest.raises(ValueError, match="part: expected one of train, validation, calibration"):
        Sources.find(tmp_path, "test")


def test_calibration_stacks_are_whole_scenes_through_random_lenses_and_known_cameras(monkeypatch) -> None:
    monkeypatch.setattr(calibration, "WIDTH_PX", 64)
    first, second, third, fourth = calibration_stacks(None, 4)
    assert first.stack.size == (48, 64) == first.depth_m.shape
    known = [setup.camera for setup in EVALUATION_CAMERAS.values()]
    assert second.stack.camera in known and fourth.stack.camera in known
    assert first.stack.camera not in known and first.stack.camera != third.stack.camera
    again = next(calibration_stacks(None, 1))
    np.testing.assert_array_equal(again.stack.images, first.stack.images)
