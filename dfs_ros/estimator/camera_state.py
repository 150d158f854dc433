"""What the stacks of one camera have told so far, used for the next."""

from __future__ import annotations

from dataclasses import dataclass, field

from dfs_ros.calibration.aperture import ApertureTracker
from dfs_ros.consistency.judge import Judge
from dfs_ros.depth.scene_range import SceneRange
from dfs_ros.motion.tracking import MotionTracker


@dataclass(eq=False)
class CameraState:
    """Aperture, findings, motion and range of the scene of one camera, over its stacks.

    It can be pickled, for stacks that are computed in other processes.
    """

    lens: ApertureTracker = field(default_factory=ApertureTracker)
    findings: Judge = field(default_factory=lambda: Judge(one_camera=True))
    motion: MotionTracker = field(default_factory=MotionTracker)
    scene_range: SceneRange | None = None

    @property
    def takes_long(self) -> bool:
        """True if the next stack is to tell again what is known well enough without it."""
        return self.lens.due or (self.motion.settled and self.motion.due)

    def hold(self) -> None:
        """From now on, change nothing: for a stack beside which another one, of the same camera, is under way."""
        for known in (self.lens, self.findings, self.motion):
            known.hold()
