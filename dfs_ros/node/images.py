"""The depth node's images: messages, raw or compressed, to pixels."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from dfs_ros.config import ProcessingConfig
from dfs_ros.messages.compressed import compressed_size, image_from_compressed
from dfs_ros.messages.convert import Message
from dfs_ros.messages.images import image_from_message
from dfs_ros.types import Frame, check_image, reduced_frame, working_size


def decoded(msg: Message, settings: ProcessingConfig) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Pixels of a sensor_msgs/Image or CompressedImage, uint8 (H, W) or (H, W, 3), and (height, width) of the original.

    A JPEG may be decoded at half, a quarter or an eighth of its size, down to the working size; other images come at
    their own size. Raises ValueError where the image cannot be read or is too large.
    """
    compressed = hasattr(msg, "format")
    size = compressed_size(msg) if compressed else (int(msg.height), int(msg.width))
    if size[0] * size[1] > settings.max_input_megapixels * 1e6:
        raise ValueError(
            f"image: expected at most {settings.max_input_megapixels:g} megapixels, received {size[1]} x {size[0]}; "
            "raise processing.max_input_megapixels if that is meant"
        )
    if compressed:
        image = image_from_compressed(msg, working_size(size, settings.max_megapixels))
    else:
        image = image_from_message(msg)
    check_image(image, "image")
    return image, size


class WorkingFrames:
    """Frames at their working size; each is reduced once, however many sliding stacks share it."""

    def __init__(self) -> None:
        self._reduced: WeakKeyDictionary[Frame, Frame] = WeakKeyDictionary()

    def of(self, frame: Frame, max_megapixels: float) -> Frame:
        """The frame at its working size; itself where it is not larger."""
        small = self._reduced.get(frame) or reduced_frame(frame, max_megapixels)
        if small is not frame:  # which would keep itself alive
            self._reduced[frame] = small
        return small
