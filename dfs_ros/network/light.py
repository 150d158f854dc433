"""The light network: one set of weights for every depth hypothesis.

2-D convolutions run on every group of neighbouring hypotheses alike; groups exchange information by shifted channels
along depth (Lin et al., "TSM", ICCV 2019) and by a maximum over depth. So the network is independent of the number of
hypotheses and of their depths: it works for any camera and range, and learns the shape of a surface's cost curve
instead of typical depths.

    half size       energy (log cost), and the same smoothed along the image's edges (full size in training)
    1/4             both, averaged; 16 channels for four hypotheses, joined by features of the image
    1/8 1/16 1/32   an hourglass: areas without texture learn from their surroundings; from 1/16 on, eight hypotheses
                    share channels
    1/4             two scores a and b for each hypothesis
    half size       log-probability = a + m b - s smoothed energy, with m and s decided by the image

The last line is the guided filter's locally linear model (He et al., TPAMI 2013) with a learned guide m: depth may jump
where the image does. Scores start at 0, so the untrained answer is that of the smoothed energy.

Features of a volume are one batch of 2-D images, (P B, C, h, w): P planes, each of a group of hypotheses, and in each
plane all B samples. A shift along depth is then a shift of the batch, and all of it stays in one memory layout.

Only operations of ONNX opset 17: Conv, Resize, Pad, Slice, Concat, ReduceMax, ReduceMin, Softmax.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DOWNSAMPLING = 32
"""Divisor of height and width; the runner pads."""

_TILE = 4  # full-size pixels per score, each way
_FINE = 4  # hypotheses that share channels at 1/4 and 1/8
_JOINED = 2  # planes of 1/8 that share channels at 1/16 and 1/32


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
        self.stem = nn.Conv2d(2 * _FINE, c4, 3, padding=1)
        self.image_to_volume = nn.Conv2d(image, c4, 1)
        self.enter = DepthMixing(c4)
        self.down8 = nn.Conv2d(c4, c8, 3, stride=2, padding=1)
        self.level8 = nn.ModuleList([DepthMixing(c8), DepthMixing(c8)])
        self.down16 = nn.Conv2d(_JOINED * c8, c16, 3, stride=2, padding=1)
        self.level16 = nn.ModuleList([DepthMixing(c16), DepthContext(c16), DepthMixing(c16)])
        self.down32 = nn.Conv2d(c16, c32, 3, stride=2, padding=1)
        self.level32 = nn.ModuleList([DepthMixing(c32), DepthContext(c32), DepthMixing(c32)])
        self.up16 = Up(c32, c16, mode="bilinear")
        self.up8 = Up(c16, c8, members=_JOINED)
        self.up4 = Up(c8, c4)
        self.score = nn.Conv2d(c4, 2 * _FINE, 3, padding=1)
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
        batch = volume.shape[1]
        features = self.image(torch.cat([image, F.interpolate(clarity, scale_factor=float(_TILE))], dim=1))
        x4 = for_every_plane(self.stem(volume.flatten(0, 1)), self.image_to_volume(features)).relu_()
        x4 = self.enter(x4, batch)
        x8 = run(self.level8, self.down8(x4).relu_(), batch)
        x16 = run(self.level16, self.down16(joined(x8, batch)).relu_(), batch)
        x32 = run(self.level32, self.down32(x16).relu_(), batch)
        x16 = self.up16(x32, x16, batch)
        x8 = self.up8(x16, x8, batch)
        x4 = self.up4(x8, x4, batch)

        # (P B, 2 _FINE, h, w) -> (2, B, D, h, w): groups of hypotheses back in one row.
        score = self.score(x4).float().unflatten(0, (-1, batch)).unflatten(2, (2, _FINE))
        score = score.permute(2, 1, 0, 3, 4, 5).flatten(2, 3)[:, :, : energy.shape[1]]
        best = largest(x4, batch)
        pixel = self.pixel(self.detail(torch.cat([features, best], dim=1))).float()
        pixel = averaged(F.pixel_shuffle(pixel, _TILE), step)
        guide, count = pixel[:, :1], pixel[:, 1:]
        count = self.architecture.initial_sharpness * torch.exp(count.clamp(-6.0, 2.0))
        # In place: a new volume costs more than the arithmetic.
        first, second = (enlarged(each, _TILE // step) for each in score)
        return first.addcmul_(guide, second).addcmul_(count, smoothed, value=-1.0), score[0]

    def reduced(self, energy: Tensor, smoothed: Tensor, tile: int = _TILE) -> tuple[Tensor, Tensor]:
        """Energies above their minimum by groups of hypotheses, (P, B, 2 _FINE, H/4, W/4).

        Clarity (B, 2, H/4, W/4) describes a pixel's cost curve at any depth: its best misfit, and the distinctness of
        the minimum.
        """
        both = torch.stack([averaged(energy, tile), averaged(smoothed, tile)], dim=2)  # (B, D, 2, h, w)
        lowest = both.amin(dim=1, keepdim=True)
        above = (both - lowest).clamp(max=self.architecture.max_energy)
        best = lowest[:, 0, :1] - lowest[:, 0, :1].mean(dim=(2, 3), keepdim=True)
        clarity = 0.3 * torch.cat([best, above[:, :, 1].mean(dim=1, keepdim=True)], dim=1)
        # The last one is repeated to whole groups. Without `if`, which a graph for all numbers could not hold.
        group = _FINE * _JOINED
        whole = (above.shape[1] + group - 1) // group * group
        above = torch.cat([above, above[:, -1:].expand(-1, group - 1, -1, -1, -1)], dim=1)[:, :whole]
        return above.reshape(above.shape[0], -1, 2 * _FINE, *above.shape[3:]).transpose(0, 1), clarity


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
    """Residual convolution across neighbouring planes, on a quarter of the channels each."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.quarter = channels // 4
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.kaiming_normal_(self.conv.weight, a=2.0)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, batch: int) -> Tensor:
        q, padded = self.quarter, F.pad(x, (0, 0, 0, 0, 0, 0, batch, batch))
        shifted = torch.cat([padded[2 * batch :, :q], padded[: -2 * batch, q : 2 * q], x[:, 2 * q :]], dim=1)
        # In place: a new volume costs more than the arithmetic.
        return self.conv(shifted).add_(x).relu_()  # type: ignore[no-any-return]


class DepthContext(nn.Module):
    """Depth context: gives every plane the maximum of each feature over all planes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, batch: int) -> Tensor:
        return for_every_plane(x, self.conv(largest(x, batch)))


class Up(nn.Module):
    """Upsampling of coarse features, joined with finer ones; `members` finer planes share a coarse one."""

    def __init__(self, coarse: int, fine: int, members: int = 1, mode: str = "nearest") -> None:
        super().__init__()
        self.members, self.mode = members, mode
        self.reduce = nn.Conv2d(coarse, members * fine, 1)
        self.mix = DepthMixing(fine)

    def forward(self, coarse: Tensor, fine: Tensor, batch: int) -> Tensor:
        reduced = self.reduce(coarse)
        if self.members > 1:
            reduced = separated(reduced, self.members, batch)
        larger = F.interpolate(reduced, scale_factor=2.0, mode=self.mode)
        return self.mix(larger.add_(fine).relu_(), batch)  # type: ignore[no-any-return]


def run(layers: nn.ModuleList, x: Tensor, batch: int) -> Tensor:
    """Run the layers in sequence."""
    for layer in layers:
        x = layer(x, batch)
    return x


def joined(x: Tensor, batch: int) -> Tensor:
    """Features of neighbouring planes as channels of one, (P B, C, h, w) -> (P/2 B, 2 C, h, w)."""
    members = x.view(-1, _JOINED, batch, *x.shape[1:])
    return torch.cat([members[:, k].flatten(0, 1) for k in range(_JOINED)], dim=1)


def separated(x: Tensor, members: int, batch: int) -> Tensor:
    """Inverse of :func:`joined`, (P B, `members` C, h, w) -> (`members` P B, C, h, w)."""
    parts = x.view(-1, batch, *x.shape[1:]).chunk(members, dim=2)
    # Channels last, as convolutions return the features that it is added to: mixed orders are slow.
    return torch.stack(parts, dim=1).flatten(0, 2).contiguous(memory_format=torch.channels_last)


def largest(x: Tensor, batch: int) -> Tensor:
    """Maximum of each feature over all planes.

    (P B, C, h, w) -> (B, C, h, w).
    """
    # Channels last, as convolutions return them: any other order is 50 times as slow on a CPU.
    last = x.permute(0, 2, 3, 1)
    return last.reshape(-1, batch, *last.shape[1:]).amax(dim=0).permute(0, 3, 1, 2)


def for_every_plane(x: Tensor, features: Tensor) -> Tensor:
    """Sum of (P B, C, h, w) and the same features (B, C, h, w) for every plane."""
    return (x.view(-1, *features.shape) + features).flatten(0, 1)


def averaged(x: Tensor, tile: int) -> Tensor:
    """Mean of (B, C, h, w) over squares of `tile` pixels, a power of 2; as `avg_pool2d`, which is slower on a CPU."""
    while tile > 1:
        rows = x[..., ::2, :] + x[..., 1::2, :]
        x, tile = 0.25 * (rows[..., ::2] + rows[..., 1::2]), tile // 2
    return x


def enlarged(score: Tensor, times: int) -> Tensor:
    """Upsample (B, D, h, w) bilinearly."""
    return F.interpolate(score, scale_factor=float(times), mode="bilinear", align_corners=False)
