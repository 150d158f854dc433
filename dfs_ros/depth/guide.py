"""Guide images for regularization and networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Image = NDArray[np.float32]


def guide_image(images: NDArray[np.uint8]) -> Image:
    """Mean brightness of an aligned stack, float32 (H, W) in [0, 1].

    Its edges do not move with focus, and it has little noise.
    """
    total = images.sum(axis=0, dtype=np.uint32)
    if total.ndim == 3:  # channel by channel: numpy sums short rows slowly
        total = np.add.reduce([total[..., channel] for channel in range(total.shape[2])])
    count = images.size // total.size
    return np.asarray(total.astype(np.float32) * np.float32(1.0 / (255.0 * count)))


def image_channels(guide: Image, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Guide (H, W) and one image, stacked as float32 (4, H, W) in [0, 1]."""
    colour = image if image.ndim == 3 else image[..., None]
    planes = np.empty((4, *guide.shape), np.float32)
    planes[0] = guide
    planes[1:] = colour.transpose(2, 0, 1) * np.float32(1.0 / 255.0)
    return planes


def guide_of(images: Tensor) -> Tensor:
    """:func:`guide_image` of uint8 tensors (F, H, W, 3) or (F, H, W)."""
    import torch

    axes = (0, 3) if images.ndim == 4 else (0,)
    count = images.numel() // (images.shape[1] * images.shape[2])
    return torch.sum(images, dim=axes, dtype=torch.int32).float() * (1.0 / (255.0 * count))


def colours_of(image: Tensor) -> Tensor:
    """One image (H, W, 3) or (H, W) as float32 (3, H, W) in [0, 1]."""
    colour = image if image.ndim == 3 else image[..., None].expand(-1, -1, 3)
    return colour.permute(2, 0, 1).float() * (1.0 / 255.0)
