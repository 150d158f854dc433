"""DDFS network, layer by layer as published.

Hypotheses are channels; cost aggregation is adaptive.

Fujimura, Iiyama, Funatomi, Mukaigawa, "Deep Depth from Focal Stack with Defocus Model for Camera-Setting Invariance",
IJCV 132 (2024), section 3.4 and appendix A. Input is the cost volume, bounded and scaled by
:func:`dfs_ros.cost_volume.bound_and_scale`, and the RGB image with the farthest focus; output is a probability over the
hypotheses at 1, 1/2, 1/4 and 1/8 of the size; depth is its mean.

    encoder   five stages of [conv, BN, ReLU, conv stride 2, BN, ReLU]: k 7 5 3 3 3, channels 128 256 512 512 512
    decoder   up + conv 512, joined with stage 4; the same with stage 3; softmax of D channels at 1/8
              three times: up + conv, joined with stage 2, stage 1, the image: cost aggregation (eq. 11)

Wiring `released` is that of the authors' code: both 512-wide decoder stages share one set of weights, and a second set
(`upconv4`, `iconv4`) is never used. Wiring `paper` gives each stage its own weights. Module names are the authors', so
that their checkpoints load: see :mod:`dfs_research.baselines.ddfs_checkpoint`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DOWNSAMPLING = 32
WIRINGS = ("released", "paper")

_ENCODER_CHANNELS = (128, 256, 512, 512, 512)
_ENCODER_KERNELS = (7, 5, 3, 3, 3)
_AGGREGATION_CHANNELS = (256, 128, 8)  # hidden width at 1/4, 1/2 and full size
_NEIGHBOURS = 9
_CENTRE = 4
_SPACING_PX = 2


@dataclass(frozen=True)
class DdfsArchitecture:
    """Architecture of a DDFS network.

    Parameters
    ----------
    hypotheses
        Number of depth hypotheses, fixed at construction: they are channels.
    wiring
        `released` or `paper`, see the module's text.
    width
        Factor on the authors' channels; below 1 for a network that a CPU can train.
    spacing
        Spacing of the hypotheses in training, `linear` (the authors') or `inverse`. No weight depends on it, but the
        output can only be read with it.
    """

    hypotheses: int = 64
    wiring: str = "released"
    width: float = 1.0
    spacing: str = "linear"

    def __post_init__(self) -> None:
        if self.hypotheses < 2:
            raise ValueError(f"hypotheses: expected 2 or more, received {self.hypotheses}")
        if self.wiring not in WIRINGS:
            raise ValueError(f"wiring: expected one of {', '.join(WIRINGS)}, received {self.wiring!r}")
        if not 0.01 <= self.width <= 4:
            raise ValueError(f"width: expected 0.01 to 4, received {self.width}")
        if self.spacing not in ("linear", "inverse"):
            raise ValueError(f"spacing: expected linear or inverse, received {self.spacing!r}")

    def channels(self, full: int) -> int:
        """Scale the authors' number of channels by the width, to a multiple of 8."""
        return max(8, 8 * round(full * self.width / 8))


class DdfsNetwork(nn.Module):
    """See the module's text.

    >>> network = DdfsNetwork(DdfsArchitecture(hypotheses=8, width=0.05)).eval()
    >>> scores = network(torch.rand(1, 3, 50, 70), torch.rand(1, 8, 50, 70))
    >>> [tuple(s.shape[2:]) for s in scores]
    [(50, 70), (32, 48), (16, 24), (8, 12)]
    """

    def __init__(self, architecture: DdfsArchitecture | None = None) -> None:
        super().__init__()
        self.architecture = architecture or DdfsArchitecture()
        self.encoder = Encoder(self.architecture)
        self.decoder = Decoder(self.architecture)

    def forward(self, image: Tensor, cost: Tensor) -> list[Tensor]:
        """Probability of every hypothesis, at four scales.

        Parameters
        ----------
        image
            (B, 3, H, W) RGB with the farthest focus, in [0, 1]. Any H and W: edges are repeated to multiples of 32.
        cost
            (B, D, H, W) bounded and scaled cost volume, in [0, 1].

        Returns
        -------
        Scores (B, D, ...) that add up to 1 over D: full size (H, W), then 1/2, 1/4 and 1/8 of the size after padding.
        Raises ValueError where the hypotheses are not those of the architecture, or the sizes differ.
        """
        expected = self.architecture.hypotheses
        if cost.ndim != 4 or cost.shape[1] != expected or image.shape != (cost.shape[0], 3, *cost.shape[2:]):
            raise ValueError(
                f"image and cost: expected (B, 3, H, W) and (B, {expected}, H, W), "
                f"received {tuple(image.shape)} and {tuple(cost.shape)}"
            )
        height, width = image.shape[2:]
        padding = (0, -width % DOWNSAMPLING, 0, -height % DOWNSAMPLING)
        image, cost = (F.pad(x, padding, mode="replicate") if any(padding) else x for x in (image, cost))
        scores: list[Tensor] = self.decoder(self.encoder(image, cost), image)
        scores[0] = scores[0][:, :, :height, :width]
        return scores


def expected_depth(score: Tensor, values: Tensor) -> Tensor:
    """Mean of `values` under a probability: the authors' soft argmin.

    `values` (D,) or (B, D), `score` (B, D, H, W); returns (B, H, W).
    """
    if values.ndim == 1:
        values = values[None]
    return (score * values[:, :, None, None]).sum(dim=1)


class Encoder(nn.Module):
    """Features at 1/2, 1/4, 1/8, 1/16 and 1/32 of the size."""

    def __init__(self, architecture: DdfsArchitecture) -> None:
        super().__init__()
        channels = [3 + architecture.hypotheses, *(architecture.channels(c) for c in _ENCODER_CHANNELS)]
        stages = [down(channels[i], channels[i + 1], _ENCODER_KERNELS[i]) for i in range(5)]
        self.conv1, self.conv2, self.conv3, self.conv4, self.conv5 = stages
        initialise(self)

    def forward(self, image: Tensor, cost: Tensor) -> list[Tensor]:
        x = torch.cat([image, cost], dim=1)
        features = []
        for stage in (self.conv1, self.conv2, self.conv3, self.conv4, self.conv5):
            x = stage(x)
            features.append(x)
        return features


class Decoder(nn.Module):
    """Scores at full size, 1/2, 1/4 and 1/8."""

    def __init__(self, architecture: DdfsArchitecture) -> None:
        super().__init__()
        depths = architecture.hypotheses
        c1, c2, c3, c4, c5 = (architecture.channels(c) for c in _ENCODER_CHANNELS)
        self.shared = architecture.wiring == "released"
        self.upconv4 = up(c5, c5)
        self.iconv4 = conv(c5 + c4, c4)
        self.upconv3 = up(c4, c4)
        self.iconv3 = conv(c4 + c3, c3)
        self.score_conv3 = score(c3, depths)
        self.upconv2 = up(depths, depths)
        self.upconv1 = up(depths, depths)
        self.upconv0 = up(depths, depths)
        initialise(self)
        hidden = [architecture.channels(c) for c in _AGGREGATION_CHANNELS[:2]] + [_AGGREGATION_CHANNELS[2]]
        self.cost_aggregation2 = CostAggregation(depths, c2, hidden[0])
        self.cost_aggregation1 = CostAggregation(depths, c1, hidden[1])
        self.cost_aggregation0 = CostAggregation(depths, 3, hidden[2])

    def forward(self, features: Sequence[Tensor], image: Tensor) -> list[Tensor]:
        half, quarter, eighth, sixteenth, deepest = features
        upconv4, iconv4 = (self.upconv3, self.iconv3) if self.shared else (self.upconv4, self.iconv4)
        x = iconv4(torch.cat([upconv4(deepest), sixteenth], dim=1))
        x = self.iconv3(torch.cat([self.upconv3(x), eighth], dim=1))
        score3 = self.score_conv3(x)
        score2 = self.cost_aggregation2(self.upconv2(score3), quarter)
        score1 = self.cost_aggregation1(self.upconv1(score2), half)
        score0 = self.cost_aggregation0(self.upconv0(score1), image)
        return [score0, score1, score2, score3]


class CostAggregation(nn.Module):
    """Adaptive cost aggregation (eq. 11): score from nine samples around each pixel.

    out(u) = sum over j of w_j(u) score(u + 2 g_j + offset_j(u)), g the 3x3 grid, bilinear, borders repeated; the
    offset of the centre is 0. Weights and offsets are predicted from the features.
    """

    def __init__(self, depths: int, features: int, hidden: int) -> None:
        super().__init__()
        # Lists of one: the authors' code can repeat the block, and its checkpoints name them so.
        self.iconvs = nn.ModuleList([conv(depths + features, hidden)])
        self.score_convs = nn.ModuleList([score(hidden, depths)])
        step = _SPACING_PX
        self.offset_convs = nn.ModuleList([nn.Conv2d(hidden, 2 * _NEIGHBOURS, 3, padding=step, dilation=step)])
        self.weight_convs = nn.ModuleList([nn.Conv2d(hidden, _NEIGHBOURS, 3, padding=step, dilation=step)])
        initialise(self)
        nn.init.zeros_(self.offset_convs[0].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.offset_convs[0].bias)  # type: ignore[arg-type]

    def forward(self, before: Tensor, features: Tensor) -> Tensor:
        hidden = self.iconvs[0](torch.cat([before, features], dim=1))
        weights = self.weight_convs[0](hidden).softmax(dim=1)
        return aggregated(self.score_convs[0](hidden), self.offset_convs[0](hidden), weights)


def aggregated(values: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of nine samples around every pixel.

    `values` (B, D, H, W) as the result. `offsets` (B, 18, H, W): x and y of the nine neighbours in pixels, row by row,
    added to a 3x3 grid with spacing 2; the centre's offset is ignored. `weights` (B, 9, H, W).
    """
    batch, depths, height, width = values.shape
    exact = torch.float32  # positions in 16 bits would be off by a pixel
    rows = torch.arange(height, device=values.device, dtype=exact)
    columns = torch.arange(width, device=values.device, dtype=exact)
    steps = torch.tensor([-_SPACING_PX, 0, _SPACING_PX], device=values.device, dtype=exact)
    movable = torch.ones(_NEIGHBOURS, 1, 1, device=values.device, dtype=exact)
    movable[_CENTRE] = 0.0
    offset = torch.unflatten(offsets.to(exact), 1, (_NEIGHBOURS, 2))  # (B, 9, 2, H, W)
    x = offset[:, :, 0] * movable + columns + steps.repeat(3)[:, None, None]
    y = offset[:, :, 1] * movable + rows[:, None] + steps.repeat_interleave(3)[:, None, None]
    grid = torch.stack([2.0 * x / max(width - 1, 1) - 1.0, 2.0 * y / max(height - 1, 1) - 1.0], dim=-1)
    sampled = F.grid_sample(
        values.to(exact), grid.flatten(1, 2), mode="bilinear", padding_mode="border", align_corners=True
    )
    mean = (sampled.view(batch, depths, _NEIGHBOURS, height, width) * weights[:, None]).sum(dim=2)
    return mean.to(values.dtype)


def down(channels_in: int, channels_out: int, kernel: int) -> nn.Sequential:
    """Convolution, then a convolution of stride 2."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
        nn.Conv2d(channels_out, channels_out, kernel, stride=2, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )


def up(channels_in: int, channels_out: int) -> nn.Sequential:
    """Bilinear upsampling by 2, then a convolution."""
    enlarge = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
    return nn.Sequential(enlarge, *conv(channels_in, channels_out))


def conv(channels_in: int, channels_out: int) -> nn.Sequential:
    """3x3 convolution with batch normalisation."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False), nn.BatchNorm2d(channels_out), nn.ReLU()
    )


def score(channels: int, depths: int) -> nn.Sequential:
    """Probability over the hypotheses."""
    return nn.Sequential(nn.Conv2d(channels, depths, 3, padding=1), nn.Softmax(dim=1))


def initialise(module: nn.Module) -> None:
    """He initialisation by fan out, no bias."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
