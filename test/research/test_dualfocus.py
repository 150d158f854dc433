"""DualFocus: focal volume, the Poisson solve, both variational constraints, the network, and the direct baseline."""

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.sparse.linalg import lsqr

from dfs_research.baselines.direct import DirectArchitecture, DirectNetwork
from dfs_research.baselines.dualfocus import (
    DualFocusArchitecture,
    DualFocusNetwork,
    SurfaceHead,
    focal_volume,
)
from dfs_research.baselines.poisson import cosines, gradient, integrate, transposed_gradient
from dfs_research.training.variational import focal_variation, spatial_variation

SMALL = DualFocusArchitecture(features=8, decoder=(8, 8), surface=2)


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


# --- Poisson


def difference_matrix(height, width):
    """P as a sparse matrix, from its definition: one row for each pair of neighbours, x first."""
    index = np.arange(height * width).reshape(height, width)
    pairs = np.concatenate(
        [
            np.stack([index[:, :-1], index[:, 1:]], axis=-1).reshape(-1, 2),
            np.stack([index[:-1], index[1:]], axis=-1).reshape(-1, 2),
        ]
    )
    rows = np.arange(len(pairs))
    ones = np.ones(len(pairs))
    shape = (len(pairs), height * width)
    return sparse.csr_matrix((-ones, (rows, pairs[:, 0])), shape) + sparse.csr_matrix(
        (ones, (rows, pairs[:, 1])), shape
    )


@pytest.mark.parametrize(("height", "width"), [(5, 7), (8, 4), (1, 6), (9, 9)])
def test_integration_is_the_least_squares_solution(height, width):
    """Of a gradient field that no surface has, against a sparse solver."""
    rng = np.random.default_rng(height)
    gx, gy = rng.normal(size=(height, width - 1)), rng.normal(size=(height - 1, width))
    matrix = difference_matrix(height, width)
    expected = lsqr(matrix, np.concatenate([gx.ravel(), gy.ravel()]), atol=1e-13, btol=1e-13)[0].reshape(height, width)
    z = integrate(torch.from_numpy(gx), torch.from_numpy(gy)).numpy()
    assert abs(z.mean()) < 1e-12
    np.testing.assert_allclose(z, expected - expected.mean(), atol=1e-8)
    in_float = integrate(torch.from_numpy(gx).float(), torch.from_numpy(gy).float()).numpy()
    np.testing.assert_allclose(in_float, z, atol=1e-4)


def test_gradient_and_its_transpose_are_the_matrix_and_its_transpose():
    z = random(5, 7, seed=1).double()
    matrix = difference_matrix(5, 7)
    gx, gy = gradient(z)
    both = np.concatenate([gx.numpy().ravel(), gy.numpy().ravel()])
    np.testing.assert_allclose(both, matrix @ z.numpy().ravel(), atol=1e-12)
    np.testing.assert_allclose(transposed_gradient(gx, gy).numpy().ravel(), matrix.T @ both, atol=1e-12)


def test_integration_gives_a_surface_back():
    z = random(2, 3, 12, 10).double()
    back = integrate(*gradient(z))
    torch.testing.assert_close(back, z - z.mean(dim=(-2, -1), keepdim=True), atol=1e-10, rtol=0)
    with pytest.raises(ValueError, match="along x"):
        integrate(z, z)


def test_cosines_are_orthonormal_and_integration_has_a_gradient():
    c = cosines(9, torch.zeros(1, dtype=torch.float64))
    torch.testing.assert_close(c @ c.T, torch.eye(9, dtype=torch.float64), atol=1e-12, rtol=0)
    gx = random(4, 4).double().requires_grad_()
    gy = random(3, 5, seed=2).double().requires_grad_()
    assert torch.autograd.gradcheck(integrate, (gx, gy))


# --- focal volume and constraints


def test_focal_volume_is_features_and_their_change():
    v = random(1, 4, 2, 3, 3)
    volume = focal_volume(v)
    assert volume.shape == (1, 4, 4, 3, 3)
    torch.testing.assert_close(volume[:, :, :2], v)
    for n in range(3):
        torch.testing.assert_close(volume[:, n, 2:], v[:, n + 1] - v[:, n])
    torch.testing.assert_close(volume[:, 3, 2:], v[:, 3] - v[:, 2])


def as_volume(*values):
    return torch.tensor(values)[None, :, None, None].expand(1, len(values), 2, 2)


def test_one_peak_costs_nothing_wherever_it_is():
    for values in [(0.1, 0.2, 0.4, 0.2, 0.1), (0.5, 0.3, 0.2), (0.1, 0.3, 0.6), (0.25, 0.25, 0.25, 0.25)]:
        assert float(focal_variation(as_volume(*values))) == 0.0


def test_a_second_peak_costs_the_squares_of_its_steps():
    p = as_volume(0.1, 0.5, 0.1, 0.3, 0.0)  # rises once behind the peak, by 0.2
    assert float(focal_variation(p)) == pytest.approx(0.2**2, rel=1e-5)
    p = as_volume(0.2, 0.05, 0.6, 0.05, 0.1)  # falls by 0.15 before, rises by 0.05 behind
    assert float(focal_variation(p)) == pytest.approx(0.15**2 + 0.05**2, rel=1e-5)


def test_only_known_pixels_count_and_training_removes_the_second_peak():
    p = as_volume(0.1, 0.5, 0.1, 0.3).clone()
    p[..., 0] = 0.25
    known = torch.tensor([[[False, True], [False, True]]])
    assert float(focal_variation(p, known)) == pytest.approx(0.04, rel=1e-5)
    assert float(focal_variation(p)) == pytest.approx(0.02, rel=1e-5)
    assert float(focal_variation(p, torch.zeros_like(known))) == 0.0
    logits = p[..., 1:].log().requires_grad_()
    optimizer = torch.optim.SGD([logits], lr=20.0)
    for _ in range(200):
        optimizer.zero_grad()
        loss = focal_variation(logits.softmax(dim=1))
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 1e-3


def ramp(height=6, width=8):
    """Depth 1 + 0.1 x + 0.05 y, in the units of the planes."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (1.0 + 0.1 * x + 0.05 * y)[None]


def slopes(dx, dy, planes=3):
    return torch.tensor([dx, dy])[None, None, :, None, None].expand(1, planes, 2, 6, 8)


def test_right_slopes_cost_nothing_and_wrong_ones_their_distance():
    values = torch.tensor([[1.0, 1.5, 2.0]])
    assert float(spatial_variation(ramp(), values, slopes(0.1, 0.05))) == pytest.approx(0.0, abs=1e-6)
    # 6 x 7 pairs along x, each off by 0.1, over 48 pixels.
    assert float(spatial_variation(ramp(), values, slopes(0.2, 0.05))) == pytest.approx(0.1 * 42 / 48, rel=1e-4)
    assert float(spatial_variation(ramp(), values, slopes(0.1, -0.05))) == pytest.approx(0.1 * 40 / 48, rel=1e-4)


def test_the_plane_at_the_truth_answers_for_it():
    values = torch.tensor([[0.0, 10.0, 20.0]])
    flat = torch.full((1, 6, 8), 10.0)
    wrong = slopes(0.0, 0.0).clone()
    wrong[:, 0] = 1.0
    far = float(spatial_variation(flat, values, wrong))
    wrong = slopes(0.0, 0.0).clone()
    wrong[:, 1] = 1.0
    at_truth = float(spatial_variation(flat, values, wrong))
    e = np.exp(-1.0)
    assert at_truth / far == pytest.approx(1.0 / e, rel=1e-4)


def test_unknown_depth_does_not_count():
    values = torch.tensor([[1.0, 1.5, 2.0]])
    truth = ramp()
    truth[:, 2, 3] = float("nan")
    assert float(spatial_variation(truth, values, slopes(0.1, 0.05))) == pytest.approx(0.0, abs=1e-6)
    slope = slopes(0.1, 0.05).clone().requires_grad_()
    spatial_variation(truth, values, slope).backward()
    assert torch.isfinite(slope.grad).all()
    assert float(spatial_variation(torch.full_like(truth, float("nan")), values, slopes(0.1, 0.05))) == 0.0


# --- networks


def dualfocus(seed=0):
    torch.manual_seed(seed)
    return DualFocusNetwork(SMALL).eval()


def direct(seed=0):
    torch.manual_seed(seed)
    return DirectNetwork(DirectArchitecture(features=8)).eval()


def test_probability_over_the_focus_planes_of_any_stack():
    for planes, height, width in [(2, 32, 48), (5, 48, 32)]:
        images, focus = random(2, planes, 3, height, width), torch.linspace(2.0, 0.5, planes).expand(2, -1)
        p = dualfocus()(images, focus)
        assert p.shape == (2, planes, height, width) and p.min() >= 0
        torch.testing.assert_close(p.sum(dim=1), torch.ones(2, height, width))
        out = dualfocus().output(images, focus)
        assert out.surface_gradient.shape == (2, planes, 2, height // 4, width // 4)


def test_surface_gradients_are_those_of_a_surface():
    """Integrated, they give themselves back; random gradient features would not."""
    torch.manual_seed(1)
    head = SurfaceHead(3, 2)
    _, slope = head(random(1, 2, 3, 6, 8))
    dx, dy = slope[0, :, 0, :, :-1], slope[0, :, 1, :-1, :]
    back_x, back_y = gradient(integrate(dx, dy))
    torch.testing.assert_close(back_x, dx, atol=1e-5, rtol=0)
    torch.testing.assert_close(back_y, dy, atol=1e-5, rtol=0)
    assert dx.abs().max() > 1e-3 and not slope[0, :, 0, :, -1].any() and not slope[0, :, 1, -1].any()


def test_direct_network_takes_any_number_of_images_in_any_order():
    network = direct()
    images, focus = random(1, 4, 3, 32, 48), torch.tensor([[2.0, 1.5, 1.0, 0.5]])
    with torch.inference_mode():
        depth = network(images, focus)
        assert depth.shape == (1, 32, 48)
        order = torch.tensor([2, 0, 3, 1])
        torch.testing.assert_close(network(images[:, order], focus[:, order]), depth, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(network(images, focus.flip(1)), depth, atol=1e-4), "which focus is which image counts"
        assert network(images[:, :2], focus[:, :2]).shape == (1, 32, 48)


def test_direct_depth_begins_at_the_mean_focus():
    """Untrained, the correction is 0; images that do not differ count alike."""
    network = direct()
    images = random(1, 1, 3, 32, 48).expand(1, 3, 3, 32, 48)
    with torch.inference_mode():
        network.compare[0].weight[:, 16:] = 0.0  # focus, which alone tells them apart
        depth = network(images, torch.tensor([[2.0, 1.0, 0.6]])).exp()
    torch.testing.assert_close(depth, torch.full((1, 32, 48), 1.0 / 1.2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("network", [dualfocus, direct])
def test_wrong_input_is_refused(network):
    with pytest.raises(ValueError, match=r"\(B, N\)"):
        network()(random(1, 3, 3, 32, 32), torch.ones(1, 2))
    with pytest.raises(ValueError, match="multiples of 16"):
        network()(random(1, 3, 3, 32, 40), torch.ones(1, 3))
    with pytest.raises(ValueError, match="expected 1 or more"):
        DirectArchitecture(features=0)
    with pytest.raises(ValueError, match="expected 1 or more"):
        DualFocusArchitecture(features=0)
