"""Direct network: depth from images, without a model of defocus.

Like DefocusNet (Maximov, Galim, Leal-Taixe, "Focus on Defocus", CVPR 2020): every image goes through the same
encoder, is compared with the mean over all images, and a U-Net decodes the features pooled over the stack, for any
number of images in any order. Maximum pooling alone does not leave the trivial answer in a training of minutes;
so, as in Wang et al., "Bridging Unsupervised and Supervised Depth from Focus" (ICCV 2021), attention weighs the images,
and depth starts at the weighted mean of their focus, which the decoder corrects:

    log depth = -log( sum over n of a_n f_n ) + U-Net( sum a_n v_n, max v_n, sum a_n f_n )

Its inputs are the images and their focus f_n in dioptres. It has no model of how blur follows from lens and focus:
depth between and beyond the focus planes must be learned from the blur of the lens it is trained with.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dfs_research.baselines.dualfocus import DOWNSAMPLING, TILE, FeatureEncoder, conv

_FARTHEST_FOCUS_DIOPTERS = 0.05  # the initial depth is at most 20 m
_SLOPE = 0.1


@dataclass(frozen=True)
class DirectArchitecture:
    """Channels of the image features; the decoder has two and three times as many."""

    features: int = 32

    def __post_init__(self) -> None:
        if self.features < 1:
            raise ValueError(f"features: expected 1 or more, received {self.features}")


class DirectNetwork(nn.Module):
    """See the module's text.

    >>> network = DirectNetwork(DirectArchitecture(features=8))
    >>> network(torch.rand(1, 3, 3, 32, 48), torch.tensor([[2.0, 1.0, 0.5]])).shape
    torch.Size([1, 32, 48])
    """

    def __init__(self, architecture: DirectArchitecture | None = None) -> None:
        super().__init__()
        self.architecture = architecture or DirectArchitecture()
        c = self.architecture.features
        self.encoder = FeatureEncoder(c)
        self.compare = conv(2 * c + 1, c, 1)
        self.around = nn.Sequential(conv(c, c, 2), conv(c, c, 1))
        self.attention = nn.Conv2d(2 * c, 1, 3, padding=1)
        # No normalisation from here on: it would take away how far everything is.
        self.finest = plain(2 * c + 1, 2 * c)
        self.finer = plain(2 * c, 3 * c, stride=2)
        self.coarse = nn.Sequential(plain(3 * c, 3 * c, stride=2), plain(3 * c, 3 * c))
        self.join_finer = plain(6 * c, 2 * c)
        self.join_finest = plain(4 * c, 2 * c)
        self.out = nn.Conv2d(2 * c, TILE * TILE, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor, diopters: Tensor) -> Tensor:
        """Natural logarithm of depth in metres, (B, H, W).

        `images` (B, N, 3, H, W) in [0, 1], H and W multiples of 16; `diopters` (B, N) their focus. Any N of 1 or more,
        in any order. Raises ValueError where they are not.
        """
        if images.ndim != 5 or images.shape[2] != 3 or diopters.shape != images.shape[:2]:
            raise ValueError(
                "images and diopters: expected (B, N, 3, H, W) and (B, N), "
                f"received {tuple(images.shape)} and {tuple(diopters.shape)}"
            )
        if images.shape[3] % DOWNSAMPLING or images.shape[4] % DOWNSAMPLING:
            raise ValueError(f"images: expected multiples of {DOWNSAMPLING} px, received {tuple(images.shape[3:])}")
        stack = images.shape[:2]
        own = torch.unflatten(self.encoder(images.flatten(0, 1)), 0, stack)  # (B, N, C, h, w)
        focus = diopters[:, :, None, None, None].expand(-1, -1, 1, *own.shape[3:])
        differing = own - own.mean(dim=1, keepdim=True)
        compared = self.compare(torch.cat([own, differing, focus.to(own.dtype)], dim=2).flatten(0, 1))
        around = F.interpolate(self.around(compared), size=own.shape[3:], mode="bilinear", align_corners=False)
        score = self.attention(torch.cat([compared, around], dim=1)).float()
        share = torch.unflatten(score, 0, stack).softmax(dim=1)  # (B, N, 1, h, w)
        mean_focus = (share * focus).sum(dim=1).clamp(min=_FARTHEST_FOCUS_DIOPTERS)
        features = torch.unflatten(compared, 0, stack)
        pooled = [(share * features).sum(dim=1), features.amax(dim=1).float(), mean_focus]
        correction = F.pixel_shuffle(self._decoded(torch.cat(pooled, dim=1)).float(), TILE)
        return (correction - enlarged(mean_focus.log(), TILE))[:, 0]

    def _decoded(self, pooled: Tensor) -> Tensor:
        full = self.finest(pooled)
        half = self.finer(full)
        x = self.join_finer(torch.cat([enlarged(self.coarse(half), 2), half], dim=1))
        return self.out(self.join_finest(torch.cat([enlarged(x, 2), full], dim=1)))  # type: ignore[no-any-return]


def plain(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution without normalisation."""
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1), nn.LeakyReLU(_SLOPE))


def enlarged(x: Tensor, factor: int) -> Tensor:
    """`factor` times the size, bilinear."""
    return F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=False)
