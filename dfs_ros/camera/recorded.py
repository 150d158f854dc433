"""Camera that replays the images of a focal stack, sweep after sweep."""

from __future__ import annotations

import itertools
from collections.abc import Generator
from pathlib import Path

import numpy as np

from dfs_ros.camera.source import SoftwareSource, SourceFrame, sweep_order
from dfs_ros.config import CameraConfig, LensConfig
from dfs_ros.io.stack_folder import load_stack
from dfs_ros.optics.pinhole import intrinsics
from dfs_ros.types import FocusMetadata, LensState


class RecordedSource(SoftwareSource):
    """Images of a focal-stack/1 folder in its order, there and back or from the start.

    Images over `camera.max_megapixels` are reduced. Raises as :func:`dfs_ros.io.stack_folder.load_stack`, and
    ValueError for a stack with images enlarged by alignment, which messages cannot express.
    """

    def __init__(self, path: str | Path, config: CameraConfig, lens: LensConfig | None = None) -> None:
        recorded = load_stack(path, lens, working_megapixels=config.max_megapixels)
        if not np.all(recorded.blur_scale == 1.0):
            raise ValueError(
                f"{path}: its images were enlarged by alignment (blur_scale other than 1), which focus messages cannot "
                "say; use the stack as it was recorded"
            )
        self._stack = recorded
        self._order = sweep_order(len(recorded), config.sweep)
        self.size = self._stack.size
        self.intrinsics = intrinsics(self._stack.camera, self.size)
        self.frames_per_sweep = len(recorded)
        height, width = self.size
        taken = recorded.output_size
        shrunk = f" (photos are {taken[1]} x {taken[0]})" if self.size != taken else ""
        focus = recorded.focus_diopters
        self.description = (
            f"recorded stack {Path(path).name}: {len(recorded)} images of {width} x {height}{shrunk}, "
            f"focus {focus.min():.3g} to {focus.max():.3g} dioptres"
        )

    def frames(self) -> Generator[SourceFrame, None, None]:
        """Yield frames, sweep after sweep, without end."""
        stack = self._stack
        for sweep_id, order in enumerate(itertools.cycle(self._order)):
            for index, i in enumerate(order):
                focus = float(stack.focus_diopters[i])
                yield SourceFrame(
                    stack.images[i],
                    FocusMetadata(
                        stamp_ns=0,
                        focus_diopters=focus,
                        focus_start_diopters=focus,
                        focus_end_diopters=focus,
                        focus_sigma_diopters=float(stack.focus_sigma_diopters[i]),
                        lens_state=LensState.STATIONARY,
                        focal_length_m=stack.camera.focal_length_m,
                        f_number=stack.camera.f_number,
                        magnification=float(stack.magnification[i]),
                        sweep_id=sweep_id % 2**32,
                        index=index,
                        count=len(order),
                    ),
                )
