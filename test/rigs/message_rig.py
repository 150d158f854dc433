"""What tests of messages share: a stamp, and an image byte by byte."""

from __future__ import annotations

import numpy as np

from dfs_ros.messages.convert import (
    IMAGE,
    message,
)

STAMP = 1_700_000_000_123_456_789


def raw_image(encoding: str, height: int, width: int, step: int, data: bytes, big_endian: bool = False) -> object:
    return message(
        IMAGE,
        height=height,
        width=width,
        encoding=encoding,
        step=step,
        is_bigendian=int(big_endian),
        data=np.frombuffer(data, np.uint8),
    )
