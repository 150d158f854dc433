"""One interface to depth by any network: what each is fed with, and what comes out."""

import numpy as np
import pytest
import torch

from dfs_research.baselines import load_module, network_file
from dfs_research.baselines.ddfs import DdfsArchitecture, DdfsNetwork
from dfs_research.baselines.direct import DirectArchitecture, DirectNetwork
from dfs_research.baselines.dualfocus import DualFocusArchitecture, DualFocusNetwork
from dfs_research.evaluation.predictors import ddfs_hypotheses, ddfs_inputs, image_inputs, predictor
from dfs_ros.cost_volume import bound_and_scale, cost_volume
from dfs_ros.cost_volume.hypotheses import depth_hypotheses
from dfs_ros.network.light import LightArchitecture, LightNetwork
from dfs_ros.network.weights import load_weights, save_network
from dfs_ros.simulation.render import render_stack
from dfs_ros.types import Camera, FocalStack

DEPTHS = depth_hypotheses(0.4, 4.0, 12)
NETWORKS = {
    "light": lambda: LightNetwork(LightArchitecture(channels=(8, 8, 12, 16), image_channels=8)),
    "ddfs": lambda: DdfsNetwork(DdfsArchitecture(hypotheses=8, width=0.05, spacing="inverse")),
    "dualfocus": lambda: DualFocusNetwork(DualFocusArchitecture(features=8, decoder=(8, 8), surface=2)),
    "direct": lambda: DirectNetwork(DirectArchitecture(features=8)),
}


@pytest.fixture(scope="module")
def stack():
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (50, 70, 3), dtype=np.uint8)
    return render_stack(rgb, np.full((50, 70), 1.0), Camera(8e-3, 1.4, 6e-6), [0.5, 2.0, 1.0], breathing=False)


def saved(name, folder):
    torch.manual_seed(0)
    module = NETWORKS[name]().eval()
    save_network(folder / f"{name}.safetensors", module.state_dict(), module.architecture, {})
    return module, str(folder / f"{name}.safetensors")


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_gives_depth_in_metres_at_every_pixel(name, stack, tmp_path):
    module, file = saved(name, tmp_path)
    assert type(load_module(file)) is type(module) and load_module(file).architecture == module.architecture
    depth, sigma = predictor(file)(stack, DEPTHS)
    assert depth.shape == (50, 70) and depth.dtype == np.float32 and np.isfinite(depth).all() and (depth > 0).all()
    if name == "direct":
        assert sigma is None
    else:
        assert sigma.shape == (50, 70) and np.isfinite(sigma).all() and (sigma >= 0).all()
    if name in ("light", "ddfs"):
        assert depth.min() >= 0.4 - 1e-5 and depth.max() <= 4.0 + 1e-5
    if name == "dualfocus":
        assert depth.min() >= 0.5 - 1e-5 and depth.max() <= 2.0 + 1e-5, "between the focus planes"


def test_images_are_sorted_near_to_far(stack):
    images, focus = image_inputs(stack)
    np.testing.assert_array_equal(focus, [2.0, 1.0, 0.5])
    np.testing.assert_allclose(images[0], stack.images[1].transpose(2, 0, 1) / 255.0, atol=1e-6)
    np.testing.assert_allclose(images[2], stack.images[0].transpose(2, 0, 1) / 255.0, atol=1e-6)
    grey = FocalStack(np.ascontiguousarray(stack.images[..., 0]), stack.focus_diopters, stack.camera)
    np.testing.assert_array_equal(image_inputs(grey)[0][:, 2], images[:, 0])


def test_ddfs_sees_the_farthest_image_and_the_authors_volume(stack):
    image, volume = ddfs_inputs(stack, DEPTHS)
    np.testing.assert_allclose(image, stack.images[0].transpose(2, 0, 1) / 255.0, atol=1e-6)
    expected = bound_and_scale(cost_volume(stack, DEPTHS, "released", max_coc_px=20.0))
    np.testing.assert_array_equal(volume, expected)
    assert volume.min() == 0.0 and volume.max() == pytest.approx(1.0, abs=1e-4)


def test_ddfs_depth_is_the_mean_over_its_own_hypotheses(stack, tmp_path):
    """In the range of those asked for, whatever their number and order."""
    module, file = saved("ddfs", tmp_path)
    hypotheses = ddfs_hypotheses(DEPTHS[::-1], 8, "inverse")
    np.testing.assert_allclose(1.0 / hypotheses, np.linspace(2.5, 0.25, 8))
    image, volume = (torch.from_numpy(x)[None] for x in ddfs_inputs(stack, hypotheses))
    with torch.inference_mode():
        score = module(image, volume)[0][0].numpy()
    depth, sigma = predictor(file)(stack, DEPTHS[::-1])
    mean = np.tensordot(hypotheses, score, axes=1)
    np.testing.assert_allclose(depth, mean, rtol=1e-4)
    np.testing.assert_allclose(sigma, np.sqrt(np.tensordot(hypotheses**2, score, axes=1) - mean**2), rtol=2e-2)


def test_light_tries_the_depths_that_are_asked_for(stack, tmp_path):
    _, file = saved("light", tmp_path)
    predict = predictor(file)
    near, far = predict(stack, depth_hypotheses(0.4, 1.2, 16))[0], predict(stack, depth_hypotheses(2.0, 9.0, 16))[0]
    assert near.max() <= 1.2 + 1e-5 and far.min() >= 2.0 - 1e-5
    with pytest.raises(ValueError, match="even steps"):
        predict(stack, [0.4, 0.5, 3.0])


def test_an_estimator_refuses_networks_that_are_no_light_ones(tmp_path):
    _, file = saved("direct", tmp_path)
    with pytest.raises(ValueError, match="a DirectNetwork, which is there to be compared with"):
        load_weights(file)
    with pytest.raises(FileNotFoundError, match="no such file"):
        predictor(str(tmp_path / "none.safetensors"))
    with pytest.raises(FileNotFoundError, match="unknown model"):
        network_file("nonesuch")
    module = NETWORKS["direct"]()
    with pytest.raises(TypeError, match="expected that of a network"):
        save_network(tmp_path / "x.safetensors", module.state_dict(), Camera(8e-3, 1.4, 6e-6), {})
