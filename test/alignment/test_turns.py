"""A camera that turns in its place: what its poses tell of the motion of its images."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from alignment_rig import FOCUS, MIDDLE, SIZE, scene
from numpy.typing import NDArray

from dfs_ros.alignment import registration
from dfs_ros.alignment.matching import match_frames
from dfs_ros.alignment.registration import Motion
from dfs_ros.alignment.registration_torch import TorchRegistration
from dfs_ros.alignment.turns import turns
from dfs_ros.config import AlignmentConfig
from dfs_ros.pose import Pose
from dfs_ros.types import Camera, FocalStack

WIDE = Camera(0.0025, 1.85, 9e-6)  # 278 px: a turn bends the corners by a pixel
ANGLES_RAD = 0.02 * (np.arange(len(FOCUS)) - MIDDLE)


def poses_of(angles_rad: NDArray[np.float64]) -> tuple[Pose, ...]:
    """Rotations to the right, without translation."""
    return tuple(Pose(rotation_xyzw=(0.0, math.sin(a / 2), 0.0, math.cos(a / 2))) for a in angles_rad)


def homography(angle_rad: float) -> NDArray[np.float64]:
    """From pixels of the reference to those of a camera that has turned to the right."""
    f = WIDE.focal_length_m / WIDE.pixel_pitch_m
    lens = np.array([[f, 0, (SIZE[1] - 1) / 2], [0, f, (SIZE[0] - 1) / 2], [0, 0, 1]])
    c, s = math.cos(angle_rad), math.sin(angle_rad)
    return np.asarray(lens @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]]) @ np.linalg.inv(lens))


def turning(stated: float = 1.0) -> FocalStack:
    """A flat scene of a camera that turns; its poses state the angles times `stated`."""
    still = scene()
    images = [
        cv2.warpPerspective(image, homography(a), SIZE[::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        for image, a in zip(still.images, ANGLES_RAD, strict=True)
    ]
    exact = np.ones(len(FOCUS))
    return FocalStack(np.stack(images), FOCUS, WIDE, magnification=exact, poses=poses_of(stated * ANGLES_RAD))


def error_px(motion: Motion, angle_rad: float) -> float:
    """Root mean square distance from the true motion."""
    y, x = np.indices(SIZE, np.float64)
    place = np.einsum("ij,jhw->ihw", homography(angle_rad), np.stack([x, y, np.ones(SIZE)]))
    map_x, map_y = motion.maps(SIZE)
    return float(np.sqrt(np.mean(np.square(map_x - place[0] / place[2]) + np.square(map_y - place[1] / place[2]))))


def test_a_turn_is_its_homography() -> None:
    found = turns(turning(), MIDDLE)
    errors = [error_px(m, a) for m, a in zip(found, ANGLES_RAD, strict=True)]
    assert max(errors) < 0.2 and max(errors[1:4]) < 0.05  # of the second order in the angle
    flat = [replace(m, perspective=(0.0, 0.0)) for m in found]
    assert error_px(flat[0], ANGLES_RAD[0]) > 0.8
    back = found[0].inverse().after(found[0])
    assert np.abs(back.maps(SIZE)[0] - Motion.identity(SIZE).maps(SIZE)[0]).max() < 0.2


def test_turns_need_the_rotation_of_every_frame() -> None:
    stack = turning()
    for poses in ((), (None, *stack.poses[1:])):
        assert not any(any(m.perspective) or any(m.shift_px) for m in turns(replace(stack, poses=poses), MIDDLE))


@pytest.mark.parametrize("stated", [1.0, 1.02])
def test_registration_of_a_turning_camera_follows_its_rotation(stated: float) -> None:
    stack, config = turning(stated), AlignmentConfig(local_motion=False)
    found, without = (match_frames(s, config, MIDDLE) for s in (stack, replace(stack, poses=())))
    errors, blind = (
        [error_px(e.motion, a) for e, a in zip(match.estimates, ANGLES_RAD, strict=True)] for match in (found, without)
    )
    assert max(errors) < 0.15 and max(blind) > 0.5
    on_device = match_frames(stack, config, MIDDLE, registration=TorchRegistration(torch.device("cpu")))
    assert match_frames(stack, config, MIDDLE, registration=registration).estimates[0].motion.perspective != (0.0, 0.0)
    for a, b in zip(on_device.estimates, found.estimates, strict=True):
        assert np.abs(np.subtract(a.motion.maps(SIZE), b.motion.maps(SIZE))).max() < 5e-3


def test_a_rotation_that_the_images_contradict_does_not_bend_them() -> None:
    found = match_frames(turning(stated=-1.0), AlignmentConfig(local_motion=False), MIDDLE)
    assert all(e.motion.perspective == (0.0, 0.0) for e in found.estimates)
