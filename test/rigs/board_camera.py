"""A V4L2 camera before a calibration board, with the lens of the bench; a user who moves the board when told to."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from lens_rig import LENS, RAWS, swept
from v4l2_kernel import BOOLEAN, EXPOSURE, EXPOSURE_AUTO, FOCUS, FOCUS_AUTO, INTEGER, Control, FakeCamera


def bench_controls() -> list[Control]:
    return [
        Control(EXPOSURE_AUTO, "Auto Exposure", INTEGER, 0, 3, 3),
        Control(EXPOSURE, "Exposure Time, Absolute", INTEGER, 3, 2047, 250),
        Control(FOCUS, "Focus, Absolute", INTEGER, 0, 100, 50, step=25),
        Control(FOCUS_AUTO, "Focus, Automatic Continuous", BOOLEAN, 0, 1, 1),
    ]


@dataclass
class BoardCamera(FakeCamera):
    """`pose`: number of the board's pose; `told`: what the user was told."""

    width: int = LENS.size[1]
    height: int = LENS.size[0]
    codes: tuple[str, ...] = ("GREY",)
    controls: list[Control] = field(default_factory=bench_controls)
    pose: int = 0
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        swept()[1][:]  # rendered before the camera runs

    def tell(self, text: str) -> None:
        """Listen to the command: a pose that is done, other than the last, is followed by the next."""
        self.told.append(text)
        if text.startswith("pose ") and "next:" in text:
            self.pose += 1

    def _pixels(self, level: float) -> bytes:
        """Image of a lens position, mixed from those rendered beside it, reached from where the lens came."""
        up = not self._moves or self._moves[-1][2] >= self._moves[-1][1]
        shots, images = swept()
        seen = {
            shot.raw: images[i]
            for i, shot in enumerate(shots)
            if shot.pose == self.pose and (i % (2 * len(RAWS)) < len(RAWS)) == up
        }
        below = max(i for i, raw in enumerate(RAWS[:-1]) if raw <= level)
        share = (level - RAWS[below]) / (RAWS[below + 1] - RAWS[below])
        mixed = (1 - share) * seen[RAWS[below]] + share * seen[RAWS[below + 1]]
        return np.rint(mixed).astype(np.uint8).tobytes()
