"""Data that pages show."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dfs_ros.optics.pinhole import Intrinsics
from dfs_ros.viewer.status import FocusSample, ViewerStatus


@dataclass(frozen=True, eq=False)
class DepthData:
    """Data shown of one depth image; `sigma_m`, `all_in_focus` and `confidence` may be unknown."""

    depth_m: NDArray[np.float32]
    sigma_m: NDArray[np.float32] | None
    all_in_focus: NDArray[np.uint8] | None
    intrinsics: Intrinsics
    stamp_ns: int
    confidence: NDArray[np.float32] | None = None


@dataclass(frozen=True, eq=False)
class FrameData:
    """Data shown of one input image."""

    image: NDArray[np.uint8]
    focus_diopters: float
    stamp_ns: int


@dataclass(frozen=True, eq=False)
class Shown:
    """Newest data of each kind."""

    depth: DepthData | None = None
    frame: FrameData | None = None
    status: ViewerStatus = field(default_factory=ViewerStatus)
    history: tuple[FocusSample, ...] = ()
