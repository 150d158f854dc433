"""Limits of what is taken from files and messages."""

from __future__ import annotations

from dataclasses import dataclass

from dfs_ros.config.setting import setting


@dataclass(frozen=True)
class LimitsConfig:
    """Limits of what is taken from files and messages; anything beyond is refused."""

    image_megapixels: float = setting(50.0, "Maximum size of an input image", unit="Mpx", low=0.01, high=200)
    image_side_px: int = setting(16384, "Maximum width and height of an image message", unit="px", low=64, high=32766)
    stack_images: int = setting(
        64, "Maximum number of images of a sweep that a focus message may announce", low=2, high=64
    )
    message_megabytes: float = setting(
        256.0,
        "Maximum size of a message with an image or points; others may have 262144 bytes",
        unit="MB",
        low=0.01,
        high=4000,
    )
