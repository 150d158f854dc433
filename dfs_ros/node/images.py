"""Images of the depth node: decoding of messages, and reduction to the working size."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from dfs_ros.config import LimitsConfig
from dfs_ros.image_size import check_image, working_size
from dfs_ros.messages.compressed import compressed_size, image_from_compressed
from dfs_ros.messages.convert import Message
from dfs_ros.messages.images import bits_in_use, image_from_message
from dfs_ros.messages.limits import check_size
from dfs_ros.types import Frame, reduced_frame


def decoded(
    msg: Message, limits: LimitsConfig, max_megapixels: float, sample_bits: int = 16
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Decode a sensor_msgs/Image or CompressedImage.

    Returns uint8 (H, W) or (H, W, 3), and (height, width) of the original. A JPEG may be decoded at half, a quarter or
    an eighth of its size, down to `max_megapixels`; other images keep their size. Raises ValueError for an unreadable
    or too large image.
    """
    compressed = hasattr(msg, "format")
    size = compressed_size(msg) if compressed else (int(msg.height), int(msg.width))
    check_size(size, "image", limits)
    if compressed:
        image = image_from_compressed(msg, working_size(size, max_megapixels), sample_bits)
    else:
        image = image_from_message(msg, sample_bits)
    check_image(image, "image")
    return image, size


class BitsInUse:
    """Bits in use of the 16-bit samples of one camera: those of its brightest sample so far.

    `risen`: the newest image has raised them.
    """

    def __init__(self) -> None:
        self._bits = 0
        self.risen = False

    def of(self, msg: Message) -> int:
        """Bits of the images up to this one; 16 for compressed and 8-bit images."""
        if hasattr(msg, "format"):
            return 16
        before = self._bits
        self._bits = max(before, bits_in_use(msg))
        self.risen = 0 < before < self._bits
        return self._bits or 16


class WorkingFrames:
    """Cache of frames at their working size, for sliding stacks that share them."""

    def __init__(self) -> None:
        self._reduced: WeakKeyDictionary[Frame, Frame] = WeakKeyDictionary()

    def of(self, frame: Frame, max_megapixels: float) -> Frame:
        """Reduce a frame to its working size, once; a smaller one is returned itself."""
        small = self._reduced.get(frame) or reduced_frame(frame, max_megapixels)
        if small is not frame:  # a frame as its own value would never be released
            self._reduced[frame] = small
        return small
