"""Depth straight from the images of a stack, without a model of defocus: the baseline that learns its camera.

In the way of DefocusNet (Maximov, Galim, Leal-Taixe, "Focus on Defocus", CVPR 2020): every image, with its focus
distance as a fourth channel, goes through the same encoder; at each size what all images have in common is the maximum
over them, which every image's own branch sees too; a U-Net decoder makes depth of those maxima. So it takes any number
of images in any order. Nothing tells it how blur follows from lens and focus: that it must learn, for the lens it is
shown.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DOWNSAMPLING = 16
_LEVELS = 4
_SLOPE = 0.2


@dataclass(frozen=True)
class DirectArchitecture:
    """Channels at full size; they double with every halving, up to eight times as many."""

    channels: int = 16

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise ValueError(f"channels: expected 1 or more, received {self.channels}")


class DirectNetwork(nn.Module):
    """See the module's text.

    >>> DirectNetwork(DirectArchitecture(4))(torch.rand(1, 3, 3, 32, 48), torch.tensor([[2.0, 1.0, 0.5]])).shape
    torch.Size([1, 32, 48])
    """

    def __init__(self, architecture: DirectArchitecture | None = None) -> None:
        super().__init__()
        self.architecture = architecture or DirectArchitecture()
        sizes = [self.architecture.channels * 2**level for level in range(_LEVELS)]
        inputs = [4, *(2 * size for size in sizes[:-1])]  # an image's own features, and those of all
        self.down = nn.ModuleList([pair(a, b) for a, b in zip(inputs, sizes, strict=True)])
        self.bridge = pair(2 * sizes[-1], sizes[-1])
        self.up = nn.ModuleList([pair(sizes[i + 1] + sizes[i], sizes[i]) for i in reversed(range(_LEVELS - 1))])
        self.last = pair(2 * sizes[-1], sizes[-1])
        self.out = nn.Conv2d(sizes[0], 1, 3, padding=1)

    def forward(self, images: Tensor, diopters: Tensor) -> Tensor:
        """Natural logarithm of depth in metres, (B, H, W).

        `images` (B, F, 3, H, W) in [0, 1], H and W multiples of 16; `diopters` (B, F) their focus. Any F of 1 or more,
        in any order. Raises ValueError where they are not.
        """
        if images.ndim != 5 or images.shape[2] != 3 or diopters.shape != images.shape[:2]:
            raise ValueError(
                "images and diopters: expected (B, F, 3, H, W) and (B, F), "
                f"received {tuple(images.shape)} and {tuple(diopters.shape)}"
            )
        if images.shape[3] % DOWNSAMPLING or images.shape[4] % DOWNSAMPLING:
            raise ValueError(f"images: expected multiples of {DOWNSAMPLING} px, received {tuple(images.shape[3:])}")
        batch, count = images.shape[:2]
        focus = diopters[:, :, None, None, None].expand(-1, -1, 1, *images.shape[3:]).to(images.dtype)
        x = torch.cat([images, focus], dim=2).flatten(0, 1)
        common = []  # (B, C, h, w) of each size
        for level in self.down:
            x = level(x)
            shared = x.unflatten(0, (batch, count)).amax(dim=1)
            common.append(shared)
            everyone = shared.repeat_interleave(count, dim=0)
            x = F.max_pool2d(torch.cat([x, everyone], dim=1), 2)
        deepest = self.bridge(x).unflatten(0, (batch, count)).amax(dim=1)
        y = self.last(torch.cat([enlarged(deepest), common[-1]], dim=1))
        for level, skip in zip(self.up, reversed(common[:-1]), strict=True):
            y = level(torch.cat([enlarged(y), skip], dim=1))
        return self.out(y)[:, 0].float()  # type: ignore[no-any-return]


def pair(channels_in: int, channels_out: int) -> nn.Sequential:
    """Two 3x3 convolutions."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1),
        nn.LeakyReLU(_SLOPE),
        nn.Conv2d(channels_out, channels_out, 3, padding=1),
        nn.LeakyReLU(_SLOPE),
    )


def enlarged(x: Tensor) -> Tensor:
    """Twice the size."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
