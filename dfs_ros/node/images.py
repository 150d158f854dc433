"""The depth node's images: as they come, raw or compressed, to what is worked on."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from dfs_ros.config import ProcessingConfig
from dfs_ros.messages.compressed import compressed_size, image_from_compressed
from dfs_ros.messages.convert import Message
from dfs_ros.messages.images import image_from_message
from dfs_ros.types import check_image

_SIZES_REMEMBERED = 4


class ImageReader:
    """Reads messages, and reduces images of more than twice the height and width of what will be worked on."""

    def __init__(self) -> None:
        self._original_sizes: dict[tuple[int, ...], tuple[int, int]] = {}  # (height, width) of reduced images

    def read(self, msg: Message, settings: ProcessingConfig) -> NDArray[np.uint8]:
        """The image of a sensor_msgs/Image or CompressedImage; ValueError where it cannot be read."""
        compressed = hasattr(msg, "format")
        height, width = compressed_size(msg) if compressed else (int(msg.height), int(msg.width))
        megapixels = width * height * 1e-6
        if megapixels > settings.max_input_megapixels:
            raise ValueError(
                f"image: expected at most {settings.max_input_megapixels:g} megapixels, received {width} x "
                f"{height}; raise processing.max_input_megapixels if that is meant"
            )
        factor = int(math.sqrt(megapixels / settings.max_megapixels))
        if compressed:
            pixels = image_from_compressed(msg, factor)
            factor = 1 if pixels.shape[1] == width // max(factor, 1) else factor
        else:
            pixels = image_from_message(msg)
        image = reduced_by(pixels, factor)
        check_image(image, "image")
        self._original_sizes[image.shape[:2]] = (height, width)
        while len(self._original_sizes) > _SIZES_REMEMBERED:
            del self._original_sizes[next(iter(self._original_sizes))]
        return image

    def original_size(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """(height, width) of the image as it came, of which one of `shape` was made."""
        return self._original_sizes.get(shape[:2], (shape[0], shape[1]))


def reduced_by(image: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """The image with blocks of `factor` x `factor` pixels averaged; rows and columns left over are cut off."""
    if factor <= 1:
        return image
    height, width = image.shape[0] // factor, image.shape[1] // factor
    whole = image[: height * factor, : width * factor]
    return np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
