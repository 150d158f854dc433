"""The light network: one set of weights for every depth hypothesis.

2-D convolutions run on every pair of neighbouring hypotheses alike; pairs exchange information by shifted channels
along depth (Lin et al., "TSM", ICCV 2019) and by a maximum over depth. So the network is independent of the number of
hypotheses and of their depths: it works for any camera and range, and learns the shape of a surface's cost curve
instead of typical depths.

    half size       energy (log cost), and the same smoothed along the image's edges (full size in training)
    1/4             both, averaged; 16 channels for a pair of hypotheses, joined by features of the image
    1/8 1/16 1/32   an hourglass: areas without texture learn from their surroundings
    1/4             two scores a and b for each hypothesis
    half size       log-probability = a + m b - s smoothed energy, with m and s decided by the image

The last line is the guided filter's locally linear model (He et al., TPAMI 2013) with a learned guide m: depth may jump
where the image does. Scores start at 0, so the untrained answer is that of the smoothed energy.

Only operations of ONNX opset 17: Conv, AveragePool, Resize, Pad, Slice, Concat, ReduceMax, ReduceMin, Softmax.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DOWNSAMPLING = 32
"""Divisor of height and width; the runner pads."""

_TILE = 4  # full-size pixels per score, each way
_PAIR = 2  # hypotheses that share channels


@dataclass(frozen=True)
class LightArchitecture:
    """Sizes of the network."""

    channels: tuple[int, ...] = (16, 32, 64, 96)
    image_channels: int = 32
    max_energy: float = 6.0
    initial_sharpness: float = 4.0


class LightNetwork(nn.Module):
    """Light network, see the module's text, on batches of volumes."""

    def __init__(self, architecture: LightArchitecture | None = None) -> None:
        super().__init__()
        self.architecture = architecture or LightArchitecture()
        c4, c8, c16, c32 = self.architecture.channels
        image = self.architecture.image_channels
        self.image = ImageEncoder(image)
        self.stem = nn.Conv2d(2 * _PAIR, c4, 3, padding=1)
        self.image_to_volume = nn.Conv2d(image, c4, 1)
        self.enter = DepthMixing(c4, 1)
        self.down8 = nn.Conv2d(c4, c8, 3, stride=2, padding=1)
        self.level8 = nn.ModuleList([DepthMixing(c8, 1), DepthMixing(c8, 2)])
        self.down16 = nn.Conv2d(c8, c16, 3, stride=2, padding=1)
        self.level16 = nn.ModuleList([DepthMixing(c16, 1), DepthContext(c16), DepthMixing(c16, 3)])
        self.down32 = nn.Conv2d(c16, c32, 3, stride=2, padding=1)
        self.level32 = nn.ModuleList([DepthMixing(c32, 1), DepthContext(c32), DepthMixing(c32, 3)])
        self.up16 = Up(c32, c16)
        self.up8 = Up(c16, c8)
        self.up4 = Up(c8, c4)
        self.score = nn.Conv2d(c4, 2 * _PAIR, 3, padding=1)
        self.detail = nn.Sequential(nn.Conv2d(image + c4, image, 3, padding=1), nn.ReLU())
        # For every full-size pixel: the guide m, and the log weight of the smoothed energy.
        self.pixel = nn.Conv2d(image, 2 * _TILE * _TILE, 1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.pixel.weight, std=0.02)
        with torch.no_grad():
            self.pixel.bias.zero_()  # type: ignore[union-attr]

    def forward(self, energy: Tensor, smoothed: Tensor, image: Tensor) -> Tensor:
        """Probability of every hypothesis.

        Parameters
        ----------
        energy
            (B, D, h, w) logarithm of the cost volume; offsets do not matter. At the size of the image, or half of it.
        smoothed
            (B, D, h, w) the same smoothed, :func:`dfs_ros.depth.regularization.smoothed_energy`.
        image
            (B, 4, H, W) guide and RGB of one image, in [0, 1]. H and W multiples of 32.

        Returns
        -------
        (B, D, h, w), adds up to 1 over D.
        """
        return self.logits(energy, smoothed, image)[0].softmax(dim=1)

    def logits(self, energy: Tensor, smoothed: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability (B, D, h, w), unnormalised, and first score (B, D, H/4, W/4)."""
        step = int(image.shape[-1]) // int(energy.shape[-1])  # 1, or 2 at half size
        volume, clarity = self.reduced(energy, smoothed, _TILE // step)
        pairs = volume.shape[1]
        features = self.image(torch.cat([image, F.interpolate(clarity, scale_factor=float(_TILE))], dim=1))
        x = self.stem(volume.flatten(0, 1))
        x4 = self.enter(F.relu(for_every_pair(x, self.image_to_volume(features), pairs)), pairs)
        x8 = run(self.level8, F.relu(self.down8(x4)), pairs)
        x16 = run(self.level16, F.relu(self.down16(x8)), pairs)
        x32 = run(self.level32, F.relu(self.down32(x16)), pairs)
        x16 = self.up16(x32, x16, pairs)
        x8 = self.up8(x16, x8, pairs)
        x4 = self.up4(x8, x4, pairs)

        # (B P, 4, h, w) -> (B, 2, D, h, w): pairs of hypotheses back in one row.
        score = self.score(x4).float().unflatten(0, (-1, pairs)).unflatten(2, (2, _PAIR))
        score = score.transpose(1, 2).flatten(2, 3)[:, :, : energy.shape[1]]
        best = largest(x4, pairs)
        pixel = self.pixel(self.detail(torch.cat([features, best], dim=1))).float()
        pixel = F.avg_pool2d(F.pixel_shuffle(pixel, _TILE), step)
        guide, count = pixel[:, :1], pixel[:, 1:]
        count = self.architecture.initial_sharpness * torch.exp(count.clamp(-6.0, 2.0))
        # In place: a new volume costs more than the arithmetic.
        first, second = (enlarged(score[:, k], _TILE // step) for k in (0, 1))
        return first.addcmul_(guide, second).addcmul_(count, smoothed, value=-1.0), score[:, 0]

    def reduced(self, energy: Tensor, smoothed: Tensor, tile: int = _TILE) -> tuple[Tensor, Tensor]:
        """Energies above their minimum by pairs of hypotheses, (B, P, 4, H/4, W/4).

        Clarity (B, 2, H/4, W/4) describes a pixel's cost curve at any depth: its best misfit, and the distinctness of
        the minimum.
        """
        both = torch.stack([F.avg_pool2d(energy, tile), F.avg_pool2d(smoothed, tile)], dim=2)  # (B, D, 2, h, w)
        lowest = both.amin(dim=1, keepdim=True)
        above = (both - lowest).clamp(max=self.architecture.max_energy)
        best = lowest[:, 0, :1] - lowest[:, 0, :1].mean(dim=(2, 3), keepdim=True)
        clarity = 0.3 * torch.cat([best, above[:, :, 1].mean(dim=1, keepdim=True)], dim=1)
        # An odd last one is repeated. Without `if`, which a graph for all numbers could not hold.
        even = (above.shape[1] + _PAIR - 1) // _PAIR * _PAIR
        above = torch.cat([above, above[:, -1:]], dim=1)[:, :even]
        return above.reshape(above.shape[0], -1, 2 * _PAIR, *above.shape[3:]), clarity


class ImageEncoder(nn.Module):
    """Encoder of image features (B, C, H/4, W/4), which do not depend on the hypothesis."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(6, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, channels, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image)  # type: ignore[no-any-return]


class DepthMixing(nn.Module):
    """Residual convolution across pairs `step` apart, on a quarter of the channels each."""

    def __init__(self, channels: int, step: int) -> None:
        super().__init__()
        self.step = step
        self.quarter = channels // 4
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.kaiming_normal_(self.conv.weight, a=2.0)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, pairs: int) -> Tensor:
        volume = x.view(-1, pairs, *x.shape[1:])  # (B, P, C, h, w)
        q, step = self.quarter, self.step
        moving = F.pad(volume[:, :, : 2 * q], (0, 0, 0, 0, 0, 0, step, step))
        shifted = torch.cat([moving[:, 2 * step :, :q], moving[:, :pairs, q:], volume[:, :, 2 * q :]], dim=2)
        # In place: a new volume costs more than the arithmetic.
        return self.conv(shifted.flatten(0, 1)).add_(x).relu_()  # type: ignore[no-any-return]


class DepthContext(nn.Module):
    """Depth context: gives every pair the maximum of each feature over all pairs."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, pairs: int) -> Tensor:
        return for_every_pair(x, self.conv(largest(x, pairs)), pairs)


class Up(nn.Module):
    """Upsampling of coarse features, joined with finer ones."""

    def __init__(self, coarse: int, fine: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(coarse, fine, 1)
        self.mix = DepthMixing(fine, 1)

    def forward(self, coarse: Tensor, fine: Tensor, pairs: int) -> Tensor:
        larger = F.interpolate(self.reduce(coarse), scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.mix(larger.add_(fine).relu_(), pairs)  # type: ignore[no-any-return]


def run(layers: nn.ModuleList, x: Tensor, pairs: int) -> Tensor:
    """Run the layers in sequence."""
    for layer in layers:
        x = layer(x, pairs)
    return x


def largest(x: Tensor, pairs: int) -> Tensor:
    """Maximum of each feature over all pairs.

    (B P, C, h, w) -> (B, C, h, w).
    """
    # Channels last, as convolutions return them: any other order is 50 times as slow on a CPU.
    last = x.permute(0, 2, 3, 1)
    return last.reshape(-1, pairs, *last.shape[1:]).amax(dim=1).permute(0, 3, 1, 2)


def for_every_pair(x: Tensor, features: Tensor, pairs: int) -> Tensor:
    """Sum of (B P, C, h, w) and the same features (B, C, h, w) for every pair of hypotheses."""
    return (x.view(-1, pairs, *x.shape[1:]) + features.unsqueeze(1)).flatten(0, 1)


def enlarged(score: Tensor, times: int) -> Tensor:
    """Upsample (B, D, h, w) bilinearly."""
    return F.interpolate(score, scale_factor=float(times), mode="bilinear", align_corners=False)
