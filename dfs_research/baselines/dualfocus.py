"""DualFocus network: probability over the focus planes of the stack.

Lee and Woo, "DualFocus: Depth from Focus with Spatio-Focal Dual Variational Constraints" (arXiv 2509.21992). Its code
is not released; the sizes of the layers are ours.

    features        V_n of every image by the same 2-D encoder, at 1/4 of the size
    focal volume    V*_n = [V_n, V_{n+1} - V_n], the last [V_N, V_N - V_{N-1}]: focus changes it, texture does not
    surface         gradient features Gamma_n of every plane, integrated: z*_n = (P^T P)^-1 P^T Gamma_n
    decoder         3-D convolutions over [V*, z*] along the planes and the image: probability p_n of every plane
    depth           sum over n of p_n f_n, always between the focus planes

f_n is in dioptres here, where planes of a sweep are even and infinity is a number. The two variational constraints are
losses, :mod:`dfs_research.training.variational`; they apply to any probability over depths.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dfs_research.baselines.poisson import gradient, integrate

DOWNSAMPLING = 16
TILE = 4
"""Full-size pixels per feature, each way."""


@dataclass(frozen=True)
class DualFocusArchitecture:
    """Channels of the image features, of the 3-D decoder's two sizes, and of the surface."""

    features: int = 32
    decoder: tuple[int, int] = (32, 64)
    surface: int = 4

    def __post_init__(self) -> None:
        if min(self.features, self.surface, *self.decoder) < 1 or len(self.decoder) != 2:
            raise ValueError(f"channels: expected 1 or more, and two sizes of the decoder, received {self}")


class DualFocusOutput(NamedTuple):
    """Outputs that the losses compare with the truth.

    `logits` (B, N, H, W) of the focus planes; `surface_gradient` (B, N, 2, H/4, W/4), theta(z*_n): change of depth to
    the right and downwards, as the surface of each plane gives it, in dioptres per cell of 4 px.
    """

    logits: Tensor
    surface_gradient: Tensor


class DualFocusNetwork(nn.Module):
    """See the module's text.

    >>> network = DualFocusNetwork(DualFocusArchitecture(features=8, decoder=(8, 8), surface=2)).eval()
    >>> network(torch.rand(1, 3, 3, 32, 48), torch.tensor([[2.0, 1.0, 0.5]])).shape
    torch.Size([1, 3, 32, 48])
    """

    def __init__(self, architecture: DualFocusArchitecture | None = None) -> None:
        super().__init__()
        self.architecture = architecture or DualFocusArchitecture()
        a = self.architecture
        first, second = a.decoder
        self.encoder = FeatureEncoder(a.features)
        self.surface = SurfaceHead(2 * a.features, a.surface)
        self.enter = block(2 * a.features + a.surface + 1, first)
        self.down = block(first, second, stride=2)
        self.middle = nn.Sequential(block(second, second), block(second, second))
        self.up = nn.Conv3d(second, first, 1)
        self.mix = block(first, first)
        self.score = nn.Conv3d(first, 1, 3, padding=1)
        self.detail = nn.Conv2d(a.features + 3, TILE * TILE, 3, padding=1)
        nn.init.zeros_(self.detail.weight)
        nn.init.zeros_(self.detail.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor, diopters: Tensor) -> Tensor:
        """Probability of the focus planes (B, N, H, W); arguments as of :meth:`output`."""
        return self.output(images, diopters).logits.softmax(dim=1)

    def output(self, images: Tensor, diopters: Tensor) -> DualFocusOutput:
        """Logits and surface gradients.

        Parameters
        ----------
        images
            (B, N, 3, H, W) in [0, 1], sorted by focus, near to far or far to near; H and W multiples of 16, N of 2 or
            more.
        diopters
            (B, N) their focus.

        Raises ValueError where they are not.
        """
        if images.ndim != 5 or images.shape[1] < 2 or images.shape[2] != 3 or diopters.shape != images.shape[:2]:
            raise ValueError(
                "images and diopters: expected (B, N, 3, H, W) and (B, N) with N of 2 or more, "
                f"received {tuple(images.shape)} and {tuple(diopters.shape)}"
            )
        if images.shape[3] % DOWNSAMPLING or images.shape[4] % DOWNSAMPLING:
            raise ValueError(f"images: expected multiples of {DOWNSAMPLING} px, received {tuple(images.shape[3:])}")
        batch, planes = images.shape[:2]
        features = torch.unflatten(self.encoder(images.flatten(0, 1)), 0, (batch, planes))  # (B, N, C, h, w)
        volume = focal_volume(features)
        surface, slope = self.surface(volume)
        plane = (diopters / diopters.amax(dim=1, keepdim=True).clamp(min=1e-6))[:, :, None, None, None]
        plane = plane.expand(-1, -1, 1, *volume.shape[3:]).to(volume.dtype)
        x = self.enter(torch.cat([volume, surface, plane], dim=2).transpose(1, 2))  # (B, C, N, h, w)
        deep = self.middle(self.down(x))
        x = self.mix(F.relu(x + F.interpolate(self.up(deep), size=x.shape[2:])))
        score = self.score(x)[:, 0].float()  # (B, N, h, w)
        return DualFocusOutput(self._enlarged(score, features, images), slope)

    def _enlarged(self, score: Tensor, features: Tensor, images: Tensor) -> Tensor:
        """Upsample scores to full size, with a correction from each plane's own image."""
        batch, planes = score.shape[:2]
        coarse = F.interpolate(score, scale_factor=float(TILE), mode="bilinear", align_corners=False)
        small = F.avg_pool2d(images.flatten(0, 1), TILE)
        joined = torch.cat([features.flatten(0, 1), small.to(features.dtype)], dim=1)
        detail = F.pixel_shuffle(self.detail(joined).float(), TILE)[:, 0]
        return coarse + torch.unflatten(detail, 0, (batch, planes))


def focal_volume(features: Tensor) -> Tensor:
    """Append to features their change to the next focus plane.

    `features` (B, N, C, h, w); returns (B, N, 2 C, h, w). The last plane gets the change from the one before it.
    """
    change = features[:, 1:] - features[:, :-1]
    return torch.cat([features, torch.cat([change, change[:, -1:]], dim=1)], dim=2)


class SurfaceHead(nn.Module):
    """Surface of every slice: gradient features, their integral z*, its gradient theta.

    All slices (B, N, C, h, w) share the weights, so that any number of focus planes or hypotheses fits.
    """

    def __init__(self, channels: int, surface: int) -> None:
        super().__init__()
        self.gradient = nn.Sequential(
            nn.Conv2d(channels, 4 * surface, 3, padding=1), nn.ReLU(), nn.Conv2d(4 * surface, 2 * surface, 3, padding=1)
        )
        self.theta = nn.Conv2d(surface, 1, 1, bias=False)

    def forward(self, volume: Tensor) -> tuple[Tensor, Tensor]:
        """Surface z* and gradient of theta, of every slice.

        Shapes (B, N, S, h, w) and (B, N, 2, h, w). The gradient is to the right and downwards, 0 over the border.
        """
        batch = volume.shape[0]
        gx, gy = self.gradient(volume.flatten(0, 1)).float().chunk(2, dim=1)
        with torch.autocast(volume.device.type, enabled=False):  # 16 bits are too few to sum over the image
            z = integrate(gx[..., :-1], gy[..., :-1, :])
            dx, dy = gradient(self.theta(z))
            slope = torch.cat([F.pad(dx, (0, 1)), F.pad(dy, (0, 0, 0, 1))], dim=1)
        return torch.unflatten(z.to(volume.dtype), 0, (batch, -1)), torch.unflatten(slope, 0, (batch, -1))


class FeatureEncoder(nn.Module):
    """Features (B, C, H/4, W/4) of an image (B, 3, H, W).

    The receptive field is about 60 px.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = max(4, channels // 2)
        self.first = nn.Sequential(conv(3, half, 1), conv(half, channels, 2), conv(channels, channels, 2))
        self.deep = nn.Sequential(conv(channels, channels, 2), conv(channels, channels, 1), conv(channels, channels, 1))
        self.join = conv(2 * channels, channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(image)
        deep = F.interpolate(self.deep(x), size=x.shape[2:], mode="bilinear", align_corners=False)
        return self.join(torch.cat([x, deep], dim=1))  # type: ignore[no-any-return]


def conv(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    """3x3 convolution with group normalisation, independent of the batch size."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False),
        nn.GroupNorm(groups(channels_out), channels_out),
        nn.ReLU(),
    )


def block(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    """3x3x3 convolution over planes and image; `stride` is for the image only."""
    return nn.Sequential(
        nn.Conv3d(channels_in, channels_out, 3, stride=(1, stride, stride), padding=1, bias=False),
        nn.GroupNorm(groups(channels_out), channels_out),
        nn.ReLU(),
    )


def groups(channels: int) -> int:
    """Number of groups of 8 channels; 1 if 8 does not divide them."""
    return channels // 8 if channels % 8 == 0 else 1
