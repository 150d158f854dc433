"""Camera whose lens is moved position by position: its interface, and the cycle of command, settling and image.

Some cameras report the lens position of each image (Raspberry Pi, OAK), others report nothing (V4L2). A report is what
the lens was told when the image was processed: the lens still has to move there. The settling time therefore counts
from the first image that reports the commanded position, or else from the acceptance of the command; and the next
command is sent after the settled image has come, so that neither movement lies within its exposure.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from dfs_ros.camera.focus_sweep import FocusSweep, LensPath


class CameraFrame(NamedTuple):
    """Image, uint8 (H, W, 3) RGB or (H, W), or None if it came damaged.

    The exposure of all rows lies between `start_ns` and `end_ns`, on the camera's clock. `raw`: reported lens position,
    NaN = none; `sequence`: the driver's count, None = unknown; `exposure_ns`: of a row, 0 = unknown.
    """

    image: NDArray[np.uint8] | None
    start_ns: int
    end_ns: int
    raw: float = math.nan
    sequence: int | None = None
    exposure_ns: int = 0


class LensCamera(Protocol):
    """Open camera with a lens that takes commands.

    `unit`: of raw lens positions; `lens_range`: (lowest, highest, step) of these. `tolerance`: difference of a reported
    position from the commanded one when the lens is there; NaN = positions are not reported. `raw_is_diopters`: raw
    positions are nominal dioptres. `delay_frames`: typical number of images from a command to its first report.
    """

    name: str
    unit: str
    lens_range: tuple[float, float, float]
    tolerance: float
    raw_is_diopters: bool
    delay_frames: int

    def now_ns(self) -> int:
        """Time on the camera's clock."""

    def move(self, raw: float) -> tuple[int, int]:
        """Command a lens position; return the times before and after the driver's acceptance."""

    def frames(self, timeout_s: float) -> Generator[CameraFrame, None, None]:
        """Take the lens over from the autofocus, and yield images.

        Raises TimeoutError without one in time, OSError for a lost camera.
        """

    def close(self) -> None:
        """Stop, and release the camera. May be repeated."""


class SweptFrame(NamedTuple):
    """Image with the state of the lens during its exposure; None before the first command and amid an unreported one.

    `command_ns`: time from which the lens settles at the position of `path`.
    """

    frame: CameraFrame
    path: LensPath | None
    command_ns: int


def swept_frames(
    camera: LensCamera, raws: Sequence[float], orders: Sequence[Sequence[int]], settle_s: float, timeout_s: float
) -> Generator[SweptFrame, None, None]:
    """Sweep a lens without end over the positions `raws`, in `orders` of their numbers, and yield all images.

    Raises as :meth:`LensCamera.frames`, and TimeoutError for a lens that never reports a commanded position.
    """
    sweep = FocusSweep(orders, settle_s)
    settles_ns: dict[int, int] = {}
    pending: tuple[int, int] | None = None  # times of a command that no image has reported yet

    def confirmed(times: tuple[int, int], position: int) -> None:
        settles_ns[position] = times[1]
        sweep.commanded(*times)

    for frame in camera.frames(timeout_s):
        wanted, path = sweep.wanted, None
        if pending is not None and wanted is not None:
            if abs(frame.raw - raws[wanted]) <= camera.tolerance:
                confirmed((pending[0], max(pending[1], frame.start_ns)), wanted)
                pending = None
            elif frame.start_ns - pending[1] > timeout_s * 1e9:
                raise TimeoutError(
                    f"{camera.name}: the lens does not go to {camera.unit} {raws[wanted]:g}: its images report "
                    f"{frame.raw:g} after {timeout_s:g} s"
                )
        if frame.image is not None and (pending is None or frame.end_ns < pending[0]):
            path = sweep.exposed(frame.start_ns, frame.end_ns)
        wanted = sweep.wanted
        if wanted is not None and pending is None:
            times = camera.move(raws[wanted])
            if math.isnan(camera.tolerance):
                confirmed(times, wanted)
            else:
                pending = times
        yield SweptFrame(frame, path, settles_ns[path.position] if path is not None else 0)


def steps_of_lens(raws: Sequence[float], lens_range: tuple[float, float, float]) -> list[float]:
    """Positions that the lens can take, the nearest to `raws` within its range.

    >>> steps_of_lens([-1, 101, 249], (0, 250, 5))
    [0, 100, 250]
    """
    low, high, step = lens_range
    return [min(max(low + round((raw - low) / step) * step, low), high) for raw in raws]
