"""Conditions of a camera in use: true state, and values that the estimator gets."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfs_research.evaluation.rendered import render_scene
from dfs_research.evaluation.shots import LensDraw, Shot
from dfs_research.evaluation.views import View
from dfs_ros.depth.doubt import NOMINAL_GAIN, NOMINAL_OFFSET_DIOPTERS, nominal_sigma
from dfs_ros.pose import Pose
from dfs_ros.types import FocalStack

FRAME_RATE_HZ = 30.0


@dataclass(frozen=True, eq=False)
class UsedStack:
    """Focal stack as an estimator gets it, with the truth.

    `stack`: input of the estimator; `depth_m` (H, W), NaN = unknown, in the geometry of the image `reference`;
    `position_m` (F, 3): camera at each image relative to the reference, right, down, forward.
    """

    name: str
    camera_name: str
    condition: str
    stack: FocalStack
    reference: int
    depth_m: NDArray[np.float32]
    position_m: NDArray[np.float64]
    true_focus_diopters: NDArray[np.float64]
    f_number_told: float = 1.0  # stated f-number / true f-number

    @property
    def velocity_m_s(self) -> NDArray[np.float64]:
        """Velocity (3,) of the camera: right, down, forward."""
        elapsed_s = (len(self.position_m) - 1) / FRAME_RATE_HZ
        return np.asarray((self.position_m[-1] - self.position_m[0]) / elapsed_s)

    @property
    def focus_sigma_diopters(self) -> NDArray[np.float64]:
        """Standard deviation (F,) of the focus: 0 where it is stated to be exact, NaN where none is stated."""
        return self.stack.focus_sigma_diopters


@dataclass(frozen=True)
class InUse:
    """Honest condition; `lens` False is the ideal lens of the other evaluation.

    `speed_m_s` of the camera: sideways (left or right at random) and forward; `shift_sigma_px`, `roll_sigma_deg`:
    random motion of a hand from image to image; `nominal_focus`: the focus has a random error within its stated
    uncertainty; `full_well_e`, `jpeg_quality`: of the images; `odometry`: relative error of the stated translations,
    `gyroscope`: of the stated rotations, None = not stated; `yaw_rad_s`: turn to the left or right at random;
    `aberration`: that of the lens is stated. The images are those of the condition named before the "_".
    """

    name: str
    summary: str
    lens: bool = True
    speed_m_s: tuple[float, float] = (0.0, 0.0)
    shift_sigma_px: float = 0.0
    roll_sigma_deg: float = 0.0
    nominal_focus: bool = False
    full_well_e: float = 15_000.0
    jpeg_quality: int | None = None
    odometry: float | None = None
    yaw_rad_s: float = 0.0
    gyroscope: float | None = None
    aberration: bool = False

    def taken(self, shot: Shot) -> UsedStack:
        """Stack of a shot under this condition."""
        if not self.lens:
            return _ideal(shot, self.name)
        lens, told = shot.lens(), shot.focus_diopters
        true_focus, sigma = told, np.zeros(len(told))
        if self.nominal_focus:
            true_focus, sigma = nominal_focus(shot), nominal_sigma(told)
        views = self.views(shot, lens, true_focus)
        light = shot.light(views, lens)
        images = shot.developed(light, lens.gains, self.name.partition("_")[0], self.full_well_e, self.jpeg_quality)
        positions = np.array([view.position_m for view in views])
        used = used_stack(shot, self.name, images, lens, positions, true_focus, sigma)
        if self.aberration:
            camera = dataclasses.replace(used.stack.camera, aberration=lens.pupil.aberration)
            used = dataclasses.replace(used, stack=dataclasses.replace(used.stack, camera=camera))
        if self.odometry is None and self.gyroscope is None:
            return used
        poses = tuple(self._stated(shot, view) for view in views)
        return dataclasses.replace(used, stack=dataclasses.replace(used.stack, poses=poses))

    def _stated(self, shot: Shot, view: View) -> Pose:
        """Pose with too much or too little of translation and rotation, which states this as its standard deviation."""
        turned = self.gyroscope or 0.0
        half = 0.5 * view.yaw_rad * (1.0 + turned * float(shot.rng("gyroscope").choice([-1.0, 1.0])))
        rotation, sigma_rad = (0.0, math.sin(half), 0.0, math.cos(half)), turned * abs(2.0 * half)
        if self.odometry is None:
            return Pose(rotation_xyzw=rotation, sigma_rad=sigma_rad)
        wrong = 1.0 + self.odometry * float(shot.rng("odometry").choice([-1.0, 1.0]))
        x, y, z = (float(value) * wrong for value in view.position_m)
        sigma_m = self.odometry * math.hypot(x, y, z)
        if self.gyroscope is None:
            return Pose((x, y, z), sigma_m=sigma_m)
        return Pose((x, y, z), rotation, sigma_m, sigma_rad)

    def views(self, shot: Shot, lens: LensDraw, true_focus: NDArray[np.float64]) -> tuple[View, ...]:
        """Views of all images; the reference has the pose and scale of the photo."""
        rng, count, reference = shot.rng("motion"), len(true_focus), shot.reference
        sideways = self.speed_m_s[0] * float(rng.choice([-1.0, 1.0]))
        yaw = self.yaw_rad_s * float(shot.rng("yaw").choice([-1.0, 1.0]))
        elapsed_s = (np.arange(count) - reference) / FRAME_RATE_HZ
        shift = self.shift_sigma_px * rng.standard_normal((count, 2))
        roll = math.radians(self.roll_sigma_deg) * rng.standard_normal(count)
        shift, roll = shift - shift[reference], roll - roll[reference]
        scale = shot.breathing_scale(true_focus, lens.breathing)
        return tuple(
            View(
                focus_diopters=float(true_focus[i]),
                position_m=(float(sideways * elapsed_s[i]), 0.0, float(self.speed_m_s[1] * elapsed_s[i])),
                scale=float(scale[i]),
                roll_rad=float(roll[i]),
                shift_px=(float(shift[i, 0]), float(shift[i, 1])),
                yaw_rad=float(yaw * elapsed_s[i]),
            )
            for i in range(count)
        )


HONEST: Mapping[str, InUse] = {
    c.name: c
    for c in (
        InUse("ideal", "disk blur, every number true, still, no breathing, 0.4 % noise; the other evaluation's", False),
        InUse(
            "lens",
            "aperture of blades with spherical aberration, softness 0.35 to 0.65 px, breathing 0.8 to 2 times a thin "
            "lens', f-number told with 10 % error, exposure +-5 %, photon and read noise",
        ),
        InUse("shake", "lens, and each image shifted (1.5 px) and rolled (0.15 degrees)", True, (0.0, 0.0), 1.5, 0.15),
        InUse("drive", "lens, and the camera moves 0.05 m/s sideways and 0.05 m/s forward, 30 Hz", True, (0.05, 0.05)),
        InUse("fast", "lens, and the camera moves 0.2 m/s sideways, 30 Hz", True, (0.2, 0.0)),
        InUse(
            "nominal", "lens, focus told with 5 % gain and 0.1 dioptres offset error, doubt stated", nominal_focus=True
        ),
        InUse(
            "jpeg", "lens, four times the photon noise variance, JPEG quality 75", full_well_e=3750.0, jpeg_quality=75
        ),
        InUse("lens_aberration", "lens, and its spherical aberration is stated", aberration=True),
        InUse(
            "drive_aberration", "drive, and the aberration of the lens is stated", True, (0.05, 0.05), aberration=True
        ),
        InUse("drive_poses", "drive, and exact poses are stated", True, (0.05, 0.05), odometry=0.0),
        InUse("fast_poses", "fast, and exact poses are stated", True, (0.2, 0.0), odometry=0.0),
        InUse("drive_odometry", "drive, and poses with translations 5 % wrong", True, (0.05, 0.05), odometry=0.05),
        InUse("fast_odometry", "fast, and poses with translations 5 % wrong", True, (0.2, 0.0), odometry=0.05),
        InUse("turn", "lens, and the camera turns 0.2 rad/s in its place", yaw_rad_s=0.2),
        InUse("turn_imu", "turn, and rotations 2 % wrong are stated, no translations", yaw_rad_s=0.2, gyroscope=0.02),
        InUse("swerve", "fast and turn", True, (0.2, 0.0), yaw_rad_s=0.2),
        InUse("swerve_imu", "swerve, and rotations 2 % wrong", True, (0.2, 0.0), yaw_rad_s=0.2, gyroscope=0.02),
        InUse(
            "swerve_odometry",
            "swerve, and poses with translations 5 % and rotations 2 % wrong",
            True,
            (0.2, 0.0),
            odometry=0.05,
            yaw_rad_s=0.2,
            gyroscope=0.02,
        ),
        InUse("faster", "lens, and the camera moves 0.5 m/s sideways, 30 Hz", True, (0.5, 0.0)),
        InUse("faster_odometry", "faster, and poses with translations 5 % wrong", True, (0.5, 0.0), odometry=0.05),
    )
}
"""Honest conditions by name; a warning on one of their stacks is a false alarm."""


def used_stack(
    shot: Shot,
    condition: str,
    images: NDArray[np.uint8],
    lens: LensDraw,
    position_m: NDArray[np.float64],
    true_focus: NDArray[np.float64],
    focus_sigma: NDArray[np.float64],
) -> UsedStack:
    """Stack of the images with the sweep's nominal focus and an f-number with error."""
    camera = shot.setup.camera
    camera = dataclasses.replace(camera, f_number=camera.f_number * lens.f_number_told)
    stamps = np.rint((1 + np.arange(len(images)) / FRAME_RATE_HZ) * 1e9).astype(np.int64)
    stack = FocalStack(images, shot.focus_diopters, camera, stamps, focus_sigma_diopters=focus_sigma)
    return UsedStack(
        name=shot.scene.name,
        camera_name=shot.camera_name,
        condition=condition,
        stack=stack,
        reference=shot.reference,
        depth_m=shot.depth_m,
        position_m=position_m,
        true_focus_diopters=true_focus,
        f_number_told=lens.f_number_told,
    )


def nominal_focus(shot: Shot) -> NDArray[np.float64]:
    """True focus (F,) behind a nominal one.

    Gain and offset are drawn, at most two standard deviations.
    """
    gain, offset = np.clip(shot.rng("nominal focus").standard_normal(2), -2.0, 2.0)
    true_focus = shot.focus_diopters * (1.0 + NOMINAL_GAIN * gain) + NOMINAL_OFFSET_DIOPTERS * offset
    return np.asarray(true_focus, np.float64)


def _ideal(shot: Shot, name: str) -> UsedStack:
    rendered = render_scene(shot.scene, shot.camera_name, shot.setup, shot.cache)
    # A still camera whose driver does not report breathing, as in the other conditions.
    stack = dataclasses.replace(rendered.stack, magnification=np.full(len(rendered.stack), math.nan))
    focus = stack.focus_diopters
    return UsedStack(
        shot.scene.name, shot.camera_name, name, stack, shot.reference, rendered.depth_m,
        np.zeros((len(stack), 3)), focus,
    )  # fmt: skip
