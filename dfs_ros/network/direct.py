"""Depth straight from the images of a stack, without a model of defocus: the baseline that learns its camera.

In the way of DefocusNet (Maximov, Galim, Leal-Taixe, "Focus on Defocus", CVPR 2020): every image goes through the same
encoder; what is common to all images is the maximum over them, and a decoder makes depth of that, for any number of
images. As in later networks (Wang et al., "Bridging Unsupervised and Supervised Depth from Focus", ICCV 2021) images
next to each other in focus are compared before, by 3-D convolutions, and depth is the mean over fixed bins of its log:
a plain regression of depth from the maximum does not leave the trivial answer in a training of minutes. It is told the
focus of every image, but not how blur follows from lens and focus: that it must learn, for the lens it is shown.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dfs_ros.network.dualfocus import DOWNSAMPLING, TILE, FeatureEncoder, block, focal_volume

__all__ = ["DOWNSAMPLING", "TILE", "DirectArchitecture", "DirectNetwork", "DirectOutput"]


@dataclass(frozen=True)
class DirectArchitecture:
    """Channels of the image features and of the decoder's two sizes; the bins of log depth, from near to far."""

    features: int = 32
    decoder: tuple[int, int] = (32, 64)
    bins: int = 24
    nearest_m: float = 0.2
    farthest_m: float = 15.0

    def __post_init__(self) -> None:
        if min(self.features, *self.decoder) < 1 or len(self.decoder) != 2 or self.bins < 2:
            raise ValueError(f"channels: expected 1 or more, two sizes of the decoder and 2 bins, received {self}")
        if not 0 < self.nearest_m < self.farthest_m:
            raise ValueError(f"bins: expected 0 < nearest_m < farthest_m, received {self}")


class DirectOutput(NamedTuple):
    """`log_depth` (B, H, W), of metres; `logits` (B, bins, H/4, W/4)."""

    log_depth: Tensor
    logits: Tensor


class DirectNetwork(nn.Module):
    """See the module's text.

    >>> network = DirectNetwork(DirectArchitecture(features=8, decoder=(8, 8)))
    >>> network(torch.rand(1, 3, 3, 32, 48), torch.tensor([[2.0, 1.0, 0.5]])).shape
    torch.Size([1, 32, 48])
    """

    def __init__(self, architecture: DirectArchitecture | None = None) -> None:
        super().__init__()
        self.architecture = architecture or DirectArchitecture()
        a = self.architecture
        first, second = a.decoder
        self.encoder = FeatureEncoder(a.features)
        self.enter = block(2 * a.features + 1, first)
        self.down = block(first, second, stride=2)
        self.middle = nn.Sequential(block(second, second), block(second, second))
        self.up = nn.Conv3d(second, first, 1)
        self.mix = block(first, first)
        # What is common to all images, decoded. No normalisation: it would take away how far everything is.
        self.decoder = nn.Sequential(
            nn.Conv2d(first, second, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(second, second, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(second, a.bins, 1),
        )

    def forward(self, images: Tensor, diopters: Tensor) -> Tensor:
        """Natural logarithm of depth in metres, (B, H, W); arguments as of :meth:`output`."""
        return self.output(images, diopters).log_depth

    def output(self, images: Tensor, diopters: Tensor) -> DirectOutput:
        """Depth and the logits of its bins.

        `images` (B, N, 3, H, W) in [0, 1], sorted by focus, H and W multiples of 16; `diopters` (B, N) their focus. Any
        N of 2 or more. Raises ValueError where they are not.
        """
        if images.ndim != 5 or images.shape[1] < 2 or images.shape[2] != 3 or diopters.shape != images.shape[:2]:
            raise ValueError(
                "images and diopters: expected (B, N, 3, H, W) and (B, N) with N of 2 or more, "
                f"received {tuple(images.shape)} and {tuple(diopters.shape)}"
            )
        if images.shape[3] % DOWNSAMPLING or images.shape[4] % DOWNSAMPLING:
            raise ValueError(f"images: expected multiples of {DOWNSAMPLING} px, received {tuple(images.shape[3:])}")
        features = torch.unflatten(self.encoder(images.flatten(0, 1)), 0, images.shape[:2])
        volume = focal_volume(features)  # (B, N, 2 C, h, w)
        focus = diopters[:, :, None, None, None].expand(-1, -1, 1, *volume.shape[3:]).to(volume.dtype)
        x = self.enter(torch.cat([volume, focus], dim=2).transpose(1, 2))
        deep = self.up(self.middle(self.down(x)))
        x = self.mix(F.relu(x + F.interpolate(deep, size=x.shape[2:])))
        logits = self.decoder(x.amax(dim=2)).float()
        full = F.interpolate(logits, scale_factor=float(TILE), mode="bilinear", align_corners=False)
        log_depth = (full.softmax(dim=1) * self.bins(full)[:, None, None]).sum(dim=1)
        return DirectOutput(log_depth, logits)

    def bins(self, like: Tensor) -> Tensor:
        """The bins of log depth (bins,)."""
        a = self.architecture
        return torch.linspace(math.log(a.nearest_m), math.log(a.farthest_m), a.bins, device=like.device)
