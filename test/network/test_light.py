"""The light network, what it is fed with, what is read out of it, and its files."""

import json

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import save_file

from dfs_ros.config import NetworkConfig
from dfs_ros.cost_volume.halving import half_size
from dfs_ros.cost_volume.hypotheses import depth_hypotheses
from dfs_ros.depth.guide import guide_image, image_channels
from dfs_ros.depth.readout import SIGMA_FLOOR, at_index, median_and_spread, read_out
from dfs_ros.depth.regularization import probability_of
from dfs_ros.network import Network, known_models, load_network
from dfs_ros.network.light import LightArchitecture, LightNetwork
from dfs_ros.network.runners.torch import TorchRunner
from dfs_ros.network.weights import FORMAT, load_module, load_weights, model_file, save_network

SMALL = LightArchitecture(channels=(8, 8, 12, 16), image_channels=8)


def stirred(seed=0, architecture=SMALL):
    """A network whose every weight counts: untrained, its scores are 0 and hide the rest."""
    torch.manual_seed(seed)
    network = LightNetwork(architecture)
    with torch.no_grad():
        network.score.weight.normal_(std=0.2)
        network.pixel.weight.normal_(std=0.2)
    return network.eval()


def inputs(depths=12, height=64, width=96, seed=1):
    rng = np.random.default_rng(seed)
    energy, smoothed = rng.normal(0, 1, (2, depths, *half_size((height, width)))).astype(np.float32)
    guide = rng.random((height, width), dtype=np.float32)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return energy, smoothed, guide, image


def network_of(module):
    return Network("test", TorchRunner(module, "cpu"))


def probability(module, energy, smoothed, image):
    with torch.inference_mode():
        return module(*(torch.from_numpy(np.ascontiguousarray(x))[None] for x in (energy, smoothed, image)))[0].numpy()


def test_probability_adds_up_at_any_size_and_number_of_hypotheses():
    for depths, height, width in [(2, 64, 64), (7, 50, 75), (33, 64, 37)]:
        p = network_of(stirred()).probability(*inputs(depths, height, width))
        assert p.shape == (depths, *half_size((height, width))) and p.dtype == np.float32
        assert p.min() >= 0
        np.testing.assert_allclose(p.sum(axis=0), 1.0, atol=1e-5)


def test_untrained_it_is_the_answer_of_the_smoothed_energy():
    torch.manual_seed(0)
    module = LightNetwork(SMALL)
    with torch.no_grad():
        module.pixel.weight.zero_()
    energy, smoothed, guide, image = inputs()
    p = network_of(module.eval()).probability(energy, smoothed, guide, image)
    np.testing.assert_allclose(p, probability_of(smoothed, SMALL.initial_sharpness), atol=1e-5)


def test_more_hypotheses_on_either_side_move_the_answer_along():
    """Weights are shared along depth: hypotheses that explain nothing, added before, shift the rest and no more."""
    module = stirred()
    energy, smoothed, guide, image = inputs(depths=64)
    image = image_channels(guide, image)
    added = 8
    # Far from both ends the same curve, with hopeless hypotheses around it, must be answered the same.
    hopeless = np.full((80, *energy.shape[1:]), 20.0, np.float32)
    first = [np.concatenate([hopeless, x[:16], hopeless]) for x in (energy, smoothed)]
    moved = [np.concatenate([hopeless, hopeless[:added], x[:16], hopeless[:-added]]) for x in (energy, smoothed)]
    p, q = probability(module, *first, image), probability(module, *moved, image)
    # Clarity is a mean over all hypotheses, as many in both.
    np.testing.assert_allclose(q[added:], p[:-added], atol=1e-4)
    assert np.abs(q - p).max() > 0.1  # the comparison can tell


def test_an_offset_of_the_energy_does_not_matter():
    energy, smoothed, guide, image = inputs()
    network = network_of(stirred())
    p = network.probability(energy, smoothed, guide, image)
    q = network.probability(energy - 5.0, smoothed + 3.0, guide, image)
    np.testing.assert_allclose(p, q, atol=1e-3)


def test_hypotheses_beyond_whole_groups_count_as_all_others():
    module = stirred()
    energy, smoothed, guide, image = inputs(depths=9)
    planes = image_channels(guide, image)
    p = probability(module, energy, smoothed, planes)
    assert p.shape[0] == 9
    other = energy.copy()
    other[8] += 2.0
    assert np.abs(probability(module, other, smoothed, planes) - p)[8].max() > 1e-4


def test_padding_does_not_reach_far():
    energy, smoothed, guide, image = inputs(depths=6, height=70, width=90)
    p = network_of(stirred()).probability(energy, smoothed, guide, image)
    assert np.isfinite(p).all() and p.shape == (6, 35, 45)


def test_inputs_that_do_not_belong_together_are_refused():
    energy, smoothed, guide, image = inputs()
    network = network_of(stirred())
    with pytest.raises(ValueError, match=r"received \(12, 32, 48\) and \(11, 32, 48\)"):
        network.probability(energy, smoothed[1:], guide, image)
    with pytest.raises(ValueError, match="D of 2 or more"):
        network.probability(energy[:1], smoothed[:1], guide, image)
    with pytest.raises(ValueError, match="guide and image"):
        network.probability(energy, smoothed, guide[1:], image)


def test_the_light_network_is_light():
    assert sum(p.numel() for p in LightNetwork().parameters()) < 2_000_000


def test_guide_is_the_mean_brightness():
    images = np.zeros((2, 16, 20, 3), np.uint8)
    images[0, 3, 5] = 255
    guide = guide_image(images)
    assert guide.dtype == np.float32 and guide[3, 5] == pytest.approx(0.5) and guide.sum() == pytest.approx(0.5)
    assert guide_image(images[..., 0])[3, 5] == pytest.approx(0.5)
    grey = image_channels(guide, images[0, ..., 0])
    np.testing.assert_array_equal(grey, image_channels(guide, images[0]))


# --- readout


def probability_at(positions, depths=20):
    """(D, 1, N): each pixel's probability shared between two hypotheses so that their median is where it should be."""
    p = np.zeros((depths, 1, len(positions)), np.float32)
    for n, position in enumerate(positions):
        below = min(int(position), depths - 2)
        g = position - below
        above = g / (g + 0.5) if g < 0.5 else 0.5 / (1.5 - g)
        p[below, 0, n], p[below + 1, 0, n] = 1.0 - above, above
    return p


def sharpest_sigma(positions):
    """Of :func:`probability_at`: a hypothesis alone has nothing but the floor, two that share have half a step."""
    near = np.abs(np.asarray(positions) - np.rint(positions))
    return np.sqrt(np.pi / 2) * near * (1.5 - near) / (near + 0.5) + SIGMA_FLOOR


def test_readout_finds_positions_between_hypotheses():
    positions = np.array([0.0, 0.3, 4.0, 7.5, 11.9, 19.0])
    index, sigma = median_and_spread(probability_at(positions))
    np.testing.assert_allclose(index[0], positions, atol=1e-5)
    np.testing.assert_allclose(sigma[0], sharpest_sigma(positions), atol=1e-4)


def test_a_second_peak_makes_unsure_but_does_not_pull():
    p = np.zeros((20, 1, 1), np.float32)
    p[5], p[15] = 0.7, 0.3
    index, sigma = median_and_spread(p)
    assert index[0, 0] == pytest.approx(4.5 + 0.5 / 0.7, abs=1e-5)
    assert sigma[0, 0] == pytest.approx(np.sqrt(np.pi / 2) * (0.3 * 9.786 + 0.7 * 0.214) + SIGMA_FLOOR, abs=0.01)


def test_sigma_of_a_gaussian_is_its_own():
    d = np.arange(64, dtype=np.float64)[:, None, None]
    p = np.exp(-0.5 * ((d - 30.0) / 6.0) ** 2)
    _, sigma = median_and_spread((p / p.sum(axis=0)).astype(np.float32))
    assert sigma[0, 0] == pytest.approx(6.0 + SIGMA_FLOOR, rel=0.01)


def test_readout_in_dioptres_either_way_round():
    depths = depth_hypotheses(0.5, 5.0, 20)
    p = probability_at([3.0, 10.25])
    step = (2.0 - 0.2) / 19
    inverse, sigma = read_out(p, depths)
    np.testing.assert_allclose(inverse[0], 2.0 - step * np.array([3.0, 10.25]), rtol=1e-5)
    np.testing.assert_allclose(sigma[0], step * sharpest_sigma([3.0, 10.25]), rtol=1e-2)
    inverse_up, sigma_up = read_out(p[::-1].copy(), depths[::-1])
    np.testing.assert_allclose(inverse_up, inverse, rtol=1e-5)
    np.testing.assert_allclose(sigma_up, sigma, rtol=1e-2)


def test_readout_with_uneven_hypotheses():
    inverse, sigma = read_out(probability_at([0.5, 2.0], depths=3), [1.0, 2.0, 10.0])
    np.testing.assert_allclose(inverse[0], [0.75, 0.1], rtol=1e-5)
    np.testing.assert_allclose(sigma[0], sharpest_sigma([0.5, 2.0]) * np.array([0.475, 0.4]), rtol=0.02)
    assert at_index([1.0, 3.0], np.array([0.25], np.float32))[0] == pytest.approx(1.5)


def test_readout_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"received \(20, 1, 1\) and \(3,\)"):
        read_out(probability_at([5.0]), [1.0, 2.0, 3.0])


def test_readout_of_a_broad_probability_is_its_median():
    rng = np.random.default_rng(0)
    p = rng.random((15, 4, 5)).astype(np.float32)
    p /= p.sum(axis=0)
    index, _ = median_and_spread(p)
    cells = np.clip(index - np.arange(15)[:, None, None] + 0.5, 0.0, 1.0)  # share of each cell below the median
    np.testing.assert_allclose((p * cells).sum(axis=0), 0.5, atol=1e-5)


# --- files


def test_saved_and_loaded_it_answers_the_same(tmp_path):
    module = stirred()
    file = tmp_path / "mine.safetensors"
    save_network(file, module.state_dict(), SMALL, {"steps": 3})
    assert [path.name for path in tmp_path.iterdir()] == ["mine.safetensors"]
    network = load_network(NetworkConfig(name=str(file), precision="fp32"), device="cpu")
    np.testing.assert_array_equal(network.probability(*inputs()), network_of(module).probability(*inputs()))
    assert "torch on cpu" in network.description


def test_unknown_names_list_what_there_is():
    with pytest.raises(FileNotFoundError, match=r"unknown model; known: .*none"):
        load_network(NetworkConfig(name="heavy"))
    with pytest.raises(FileNotFoundError, match="no such file"):
        model_file("nowhere/light.safetensors")
    with pytest.raises(ValueError, match="none is the regularised argmin"):
        load_network(NetworkConfig(name="none"))


def test_files_that_are_no_networks_are_refused(tmp_path):
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"not weights")
    with pytest.raises(ValueError, match="not readable as safetensors"):
        load_weights(damaged)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(3)}, foreign)
    with pytest.raises(ValueError, match="expected format"):
        load_weights(foreign)
    for metadata in (
        {"format": FORMAT},
        {"format": FORMAT, "architecture": json.dumps({"layers": 3})},
        {"format": FORMAT, "architecture": json.dumps({"channels": [8, 8, 12, 16]})},
    ):
        save_file({"weight": torch.zeros(3)}, foreign, metadata)
        with pytest.raises(ValueError, match="do not fit this version"):
            load_weights(foreign)


def test_weights_of_an_earlier_network_are_refused(tmp_path):
    """Its stem saw pairs of hypotheses."""
    weights = LightNetwork(SMALL).state_dict()
    weights["stem.weight"] = weights["stem.weight"][:, :4].contiguous()
    save_network(tmp_path / "earlier.safetensors", weights, SMALL, {})
    with pytest.raises(ValueError, match=r"do not fit this version: [\s\S]*stem\.weight[\s\S]*`dfs train`"):
        load_weights(tmp_path / "earlier.safetensors")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_cuda_answers_as_the_cpu():
    module = stirred()
    p = network_of(module).probability(*inputs())
    q = Network("test", TorchRunner(module, "cuda")).probability(*inputs())
    np.testing.assert_allclose(p, q, atol=1e-3)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU")
def test_cuda_where_there_is_none_is_an_error():
    with pytest.raises(ValueError, match="finds no CUDA GPU"):
        TorchRunner(stirred(), "cuda")


def test_models_that_ship_can_be_loaded():
    assert "light" in known_models()
    for name in known_models():
        assert model_file(name).with_suffix(".md").is_file(), "every model has its model card"
        assert sum(p.numel() for p in load_weights(model_file(name)).parameters()) > 1000


@pytest.mark.parametrize("sides", [(3000, 0), (700,)])
def test_a_file_that_describes_more_than_it_holds_allocates_nothing(tmp_path, sides):
    file = tmp_path / "bomb.safetensors"
    largest = max(sides)
    described = {"channels": [largest] * 4, "image_channels": largest}
    facts = {"format": FORMAT, "network": "light", "architecture": json.dumps(described)}
    save_file({"a": torch.zeros(sides)}, file, facts)
    assert file.stat().st_size < 4000
    before = psutil.Process().memory_info().rss
    with pytest.raises(
        ValueError, match=r"do not fit this version: (channels: expected at most|sizes 700 and 700: expected)"
    ):
        load_module(file)
    assert psutil.Process().memory_info().rss - before < 300e6  # they would take 5 GB, and 800 MB
