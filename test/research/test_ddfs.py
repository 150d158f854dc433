"""The faithful DDFS network: layers, wirings, aggregation, any size, and checkpoints of its authors."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dfs_research.baselines import load_module
from dfs_research.baselines.ddfs import (
    DdfsArchitecture,
    DdfsNetwork,
    aggregated,
    expected_depth,
)
from dfs_research.baselines.ddfs_checkpoint import load_authors_checkpoint
from dfs_ros.network.weights import save_network

SMALL = DdfsArchitecture(hypotheses=6, width=0.05)


def small(seed=0, **changes):
    torch.manual_seed(seed)
    return DdfsNetwork(DdfsArchitecture(**{"hypotheses": 6, "width": 0.05, **changes})).eval()


def inputs(height=64, width=64, hypotheses=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.rand(1, 3, height, width, generator=generator),
        torch.rand(1, hypotheses, height, width, generator=generator),
    )


def full_size(**changes):
    """The shapes of a network without its values."""
    with torch.device("meta"):
        return DdfsNetwork(DdfsArchitecture(**changes))


def used_parameters(network):
    """Those that the output depends on."""
    image, cost = (tensor.to("meta") for tensor in inputs(hypotheses=network.architecture.hypotheses))
    sum(score.square().sum() for score in network(image, cost)).backward()
    return sum(p.numel() for p in network.parameters() if p.grad is not None)


@pytest.mark.parametrize(("wiring", "used"), [("released", 25_435_729), ("paper", 32_515_665)])
def test_parameters_at_64_hypotheses_are_those_of_the_authors(wiring, used):
    network = full_size(wiring=wiring)
    assert sum(p.numel() for p in network.parameters()) == 32_515_665
    assert used_parameters(network) == used


def test_layers_are_those_of_the_paper():
    network = full_size()
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert shapes["encoder.conv1.0.weight"] == (128, 67, 7, 7) and shapes["encoder.conv1.3.weight"] == (128, 128, 7, 7)
    assert shapes["encoder.conv2.0.weight"] == (256, 128, 5, 5) and shapes["encoder.conv5.3.weight"] == (512, 512, 3, 3)
    assert shapes["decoder.iconv3.0.weight"] == (512, 1024, 3, 3)
    assert shapes["decoder.score_conv3.0.weight"] == (64, 512, 3, 3)
    assert shapes["decoder.cost_aggregation2.iconvs.0.0.weight"] == (256, 320, 3, 3)
    assert shapes["decoder.cost_aggregation1.iconvs.0.0.weight"] == (128, 192, 3, 3)
    assert shapes["decoder.cost_aggregation0.iconvs.0.0.weight"] == (8, 67, 3, 3)
    assert shapes["decoder.cost_aggregation0.offset_convs.0.weight"] == (18, 8, 3, 3)
    assert "encoder.conv1.0.bias" not in shapes


def test_wirings_differ_where_they_say():
    """With the second set of weights equal to the first, the two wirings compute the same; else not."""
    released, paper = small(wiring="released"), small(wiring="paper")
    state = released.state_dict()
    paper.load_state_dict(state)
    image, cost = inputs()
    with torch.inference_mode():
        assert not torch.equal(released(image, cost)[0], paper(image, cost)[0])
        for name in [n for n in state if ".upconv4." in n or ".iconv4." in n]:
            state[name] = state[name.replace("conv4.", "conv3.")]
        paper.load_state_dict(state)
        torch.testing.assert_close(released(image, cost)[0], paper(image, cost)[0])


@pytest.mark.parametrize(("height", "width"), [(64, 96), (33, 70), (20, 31)])
def test_any_size(height, width):
    scores = small()(*inputs(height, width))
    padded = (-(-height // 32) * 32, -(-width // 32) * 32)
    assert scores[0].shape == (1, 6, height, width)
    assert [tuple(s.shape[2:]) for s in scores[1:]] == [(padded[0] // n, padded[1] // n) for n in (2, 4, 8)]
    for s in scores:
        assert s.min() >= 0
        # Bilinear weights and aggregation weights both add up to 1.
        torch.testing.assert_close(s.sum(dim=1), torch.ones_like(s[:, 0]), atol=1e-4, rtol=0)


def test_padding_repeats_the_edges():
    network, (image, cost) = small(), inputs(32, 40)
    by_hand = [torch.nn.functional.pad(x, (0, 24, 0, 0), mode="replicate") for x in (image, cost)]
    with torch.inference_mode():
        torch.testing.assert_close(network(image, cost)[0], network(*by_hand)[0][..., :40])


def test_aggregation_is_the_formula():
    """Against loops: bilinear samples at 3x3 places 2 px apart plus offsets, borders repeated, the centre fixed."""
    generator = torch.Generator().manual_seed(3)
    values = torch.rand(1, 2, 7, 9, generator=generator)
    offsets = 4.0 * torch.rand(1, 18, 7, 9, generator=generator) - 2.0
    weights = torch.rand(1, 9, 7, 9, generator=generator).softmax(dim=1)
    expected = np.zeros((2, 7, 9))
    v = values[0].double().numpy()

    def sample(d, y, x):
        y, x = min(max(y, 0.0), 6.0), min(max(x, 0.0), 8.0)
        y0, x0 = min(int(y), 5), min(int(x), 7)
        fy, fx = y - y0, x - x0
        top = (1 - fx) * v[d, y0, x0] + fx * v[d, y0, x0 + 1]
        return (1 - fy) * top + fy * ((1 - fx) * v[d, y0 + 1, x0] + fx * v[d, y0 + 1, x0 + 1])

    for y in range(7):
        for x in range(9):
            for j in range(9):
                ox, oy = (0.0, 0.0) if j == 4 else offsets[0, 2 * j : 2 * j + 2, y, x].tolist()
                for d in range(2):
                    at = sample(d, y + 2 * (j // 3 - 1) + oy, x + 2 * (j % 3 - 1) + ox)
                    expected[d, y, x] += float(weights[0, j, y, x]) * at
    result = aggregated(values, offsets, weights)[0].numpy()
    np.testing.assert_allclose(result, expected, atol=2e-5)
    moved = offsets.clone()
    moved[:, 8:10] += 1.0
    np.testing.assert_array_equal(aggregated(values, moved, weights)[0].numpy(), result)
    moved[:, 0] += 1.0
    assert not np.allclose(aggregated(values, moved, weights)[0].numpy(), result, atol=1e-3)


def test_offsets_begin_at_zero():
    for block in (small().decoder.cost_aggregation2, small().decoder.cost_aggregation0):
        assert not block.offset_convs[0].weight.any() and not block.offset_convs[0].bias.any()
        assert block.weight_convs[0].weight.any()


def test_expected_depth_is_the_mean():
    score = torch.zeros(1, 3, 1, 2)
    score[0, 0, 0, 0] = 1.0
    score[0, 1:, 0, 1] = 0.5
    depth = expected_depth(score, torch.tensor([1.0, 2.0, 4.0]))
    torch.testing.assert_close(depth, torch.tensor([[[1.0, 3.0]]]))
    torch.testing.assert_close(expected_depth(score, torch.tensor([[2.0, 4.0, 8.0]])), 2 * depth)


def test_wrong_input_is_refused():
    image, cost = inputs()
    with pytest.raises(ValueError, match=r"\(B, 6, H, W\)"):
        small()(image, cost[:, :5])
    with pytest.raises(ValueError, match="image and cost"):
        small()(image[..., :32], cost)
    for wrong in ({"wiring": "other"}, {"hypotheses": 1}, {"width": 0.0}, {"spacing": "log"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            DdfsArchitecture(**wrong)


# --- checkpoints of the authors


@pytest.fixture(scope="module")
def theirs():
    """State of a full-size network by the authors' names: encoder, decoder."""
    torch.manual_seed(1)
    network = DdfsNetwork(DdfsArchitecture(hypotheses=4))
    with torch.no_grad():
        network.decoder.cost_aggregation1.offset_convs[0].weight.normal_(std=0.1)
        for name, value in network.named_buffers():
            if name.endswith("running_mean"):
                value.normal_(std=0.1)
    return network.eval(), network.encoder.state_dict(), network.decoder.state_dict()


def check_same(network, loaded):
    image, cost = inputs(hypotheses=4)
    assert loaded.architecture == DdfsArchitecture(hypotheses=4, wiring="released") and not loaded.training
    with torch.inference_mode():
        torch.testing.assert_close(loaded(image, cost)[0], network(image, cost)[0])


def test_two_files_of_tensors(theirs, tmp_path):
    network, encoder, decoder = theirs
    torch.save(encoder, tmp_path / "encoder.pth")
    torch.save({f"module.{name}": value for name, value in decoder.items()}, tmp_path / "decoder.pth")
    loaded = load_authors_checkpoint(tmp_path / "encoder.pth", tmp_path / "decoder.pth")
    check_same(network, loaded)
    save_network(tmp_path / "ours.safetensors", loaded.state_dict(), loaded.architecture, {})
    check_same(network, load_module(tmp_path / "ours.safetensors").eval())
    with pytest.raises(ValueError, match=r"weights of the decoder .* missing; give both files"):
        load_authors_checkpoint(tmp_path / "encoder.pth")


def test_one_file_with_both_and_safetensors(theirs, tmp_path):
    network, encoder, decoder = theirs
    torch.save({"epoch": 3, "encoder": encoder, "decoder": decoder}, tmp_path / "both.pth")
    check_same(network, load_authors_checkpoint(tmp_path / "both.pth"))
    flat = {name: value for name, value in (encoder | decoder).items() if not name.endswith("num_batches_tracked")}
    save_file(flat, tmp_path / "flat.safetensors")
    check_same(network, load_authors_checkpoint(tmp_path / "flat.safetensors"))


class Harmful:
    """Writes a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return (open, (str(self.file), "w"))


def test_pickled_code_is_not_run(tmp_path):
    torch.save({"conv1.0.weight": torch.zeros(1), "more": Harmful(tmp_path / "ran")}, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match="holds tensors and nothing else"):
        load_authors_checkpoint(tmp_path / "bad.pth")
    assert not (tmp_path / "ran").exists()


def test_other_files_are_refused_and_say_why(theirs, tmp_path):
    _, encoder, decoder = theirs
    whole = encoder | decoder
    with pytest.raises(ValueError, match="fits no other"):
        load_authors_checkpoint(tmp_path / "any.pth", wiring="paper")
    with pytest.raises(FileNotFoundError, match=r"nothing\.pth"):
        load_authors_checkpoint(tmp_path / "nothing.pth")
    with pytest.raises(ValueError, match="received none"):
        load_authors_checkpoint()

    def saved(state):
        save_file({name: value.clone() for name, value in state.items()}, tmp_path / "changed.safetensors")
        return tmp_path / "changed.safetensors"

    lacking = {name: value for name, value in whole.items() if "offset_convs" not in name}
    with pytest.raises(ValueError, match=r"6 weights missing \(decoder.cost_aggregation0.offset_convs.0.bias"):
        load_authors_checkpoint(saved(lacking))
    with pytest.raises(ValueError, match=r"'classifier\.weight' is no weight of a DDFS network"):
        load_authors_checkpoint(saved(whole | {"classifier.weight": torch.zeros(1)}))
    with pytest.raises(
        ValueError, match=r"conv5.0.weight: expected shape \(512, 512, 3, 3\), received \(2, 512, 3, 3\)"
    ):
        load_authors_checkpoint(saved(whole | {"conv5.0.weight": torch.zeros(2, 512, 3, 3)}))
    (tmp_path / "damaged.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="not readable as safetensors"):
        load_authors_checkpoint(tmp_path / "damaged.safetensors")
    (tmp_path / "damaged.pth").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="expected a PyTorch file"):
        load_authors_checkpoint(tmp_path / "damaged.pth")
