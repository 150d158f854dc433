"""Motion of the camera in the depth node: poses of a stack's images from tf or a gyroscope.

    /tf, /tf_static, imu -> buffers -> poses at the stamps of a stack's images -> the stack goes on

A stack whose newest image is ahead of the transforms waits for them, up to `motion.wait_s`, and only while transforms
that reach the camera are received; stacks keep their order. A stack without poses goes on to be estimated from its
images alone, and is counted by cause. Poses lead to the camera of one image of the stack.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dfs_ros.config import MotionConfig
from dfs_ros.messages.convert import Diagnostic, Message
from dfs_ros.messages.motion import IMU, TF, angular_velocity_from_message, transforms_from_message
from dfs_ros.pose import Pose
from dfs_ros.transforms.buffer import CAUSES, CLOCK_RESET_S, NoTransform, TransformBuffer
from dfs_ros.transforms.gyroscope import Gyroscope
from dfs_ros.transforms.rigid import Transform, vector_of
from dfs_ros.transport.base import Qos, Subscription, Timer, Transport, TransportError

Poses = Mapping[int, Pose]
"""Pose of each image of a stack by its stamp; empty = unknown."""

# Best effort, which matches any publisher; the depth is a second of a robot with many publishers.
_TF_QOS = Qos(reliable=False, depth=200)
_STATIC_QOS = Qos(reliable=True, depth=100, latched=True)
_ALIVE_S = 1.0
"""Longest time of transforms behind an image that are waited for."""
_POLL_S = 0.02


@dataclass(frozen=True)
class _Waiting:
    """Stack that waits for its poses, which lead to the image at `reference_ns`, until a time of the steady clock."""

    stamps_ns: Sequence[int]
    reference_ns: int
    frame_id: str
    deadline_ns: int
    deliver: Callable[[Poses], None]


class Motion:
    """Source of poses, see the head of this module. Calls come from the thread that spins."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._buffer = TransformBuffer()
        self._gyroscope = Gyroscope()
        self._imu_frame = ""
        self._waiting: deque[_Waiting] = deque()
        self._timer: Timer | None = None
        self._counts: Counter[str] = Counter()
        self._before: Counter[str] = Counter()
        self._text = ""
        self._speed = (math.nan, math.nan)
        self._newest_ns = 0  # of the stacks
        transport.add_diagnostic("motion", self._diagnostic)

    @property
    def _settings(self) -> MotionConfig:
        return self._transport.parameters.config.motion

    def subscribe(self) -> list[Subscription]:
        """Subscribe to what the source of the settings needs."""
        source = self._settings.source
        wanted: list[tuple[str, str, Callable[[Message], None], Qos]] = []
        if source in ("auto", "tf", "imu"):  # a gyroscope's mount is in /tf_static
            wanted += [("/tf_static", TF, self._on_static, _STATIC_QOS), ("/tf", TF, self._on_tf, _TF_QOS)]
        if source in ("auto", "imu"):
            wanted.append(("imu", IMU, self._on_imu, _TF_QOS))
        subscriptions = []
        for topic, kind, callback, qos in wanted:
            try:
                subscriptions.append(self._transport.create_subscription(topic, kind, callback, qos))
            except TransportError as error:  # a ROS 2 without tf2_msgs
                if source != "auto":
                    raise
                self._transport.log("warning", f"no poses from {topic}: {error}", error=error)
        return subscriptions

    def forget(self) -> None:
        """Deliver stacks that wait, and forget all transforms: those until the next subscription are missed."""
        self.finish()
        self._buffer.forget()
        self._gyroscope.forget()

    def ask(self, stamps_ns: Sequence[int], reference_ns: int, frame_id: str, deliver: Callable[[Poses], None]) -> None:
        """Call `deliver(poses)` for images of the optical frame `frame_id`: at once, or when transforms have come."""
        if max(stamps_ns) < self._newest_ns - round(CLOCK_RESET_S * 1e9):  # the images' clock was set back
            self._buffer.forget()
            self._gyroscope.forget()
        self._newest_ns = max(stamps_ns)
        deadline_ns = self._transport.steady_ns() + round(self._settings.wait_s * 1e9)
        self._waiting.append(_Waiting(stamps_ns, reference_ns, frame_id, deadline_ns, deliver))
        self._deliver_due()

    def finish(self) -> None:
        """Deliver all stacks that wait, after the last message."""
        while self._waiting:
            self._deliver(self._waiting.popleft(), may_wait=False)
        self._stop_timer()

    # -- inputs ---------------------------------------------------------------------------------------------------

    def _on_static(self, msg: Message) -> None:
        self._add_transforms(msg, lambda each: self._buffer.add_static(each.parent, each.child, each.transform))

    def _on_tf(self, msg: Message) -> None:
        self._add_transforms(msg, lambda each: self._buffer.add(*each))
        self._deliver_due()

    def _add_transforms(self, msg: Message, add: Callable[[Any], None]) -> None:
        transforms, errors = transforms_from_message(msg)
        for each in transforms:
            try:
                add(each)
            except ValueError as error:
                errors.append(str(error))
        self._counts["invalid"] += len(errors)
        for error_text in errors[:1]:
            self._transport.log("warning", f"tf: {error_text}", key="tf invalid", every_s=60.0)

    def _on_imu(self, msg: Message) -> None:
        angular = angular_velocity_from_message(msg)
        if angular.frame_id != self._imu_frame:
            self._imu_frame, self._gyroscope = angular.frame_id, Gyroscope()
        self._gyroscope.add(angular.stamp_ns, angular.rate_rad_s, self._settings.gyroscope_bias)
        self._deliver_due()

    # -- poses ----------------------------------------------------------------------------------------------------

    def _deliver_due(self) -> None:
        while self._waiting and self._deliver(self._waiting[0], may_wait=True):
            self._waiting.popleft()
        if not self._waiting:
            self._stop_timer()
        elif self._timer is None:
            self._timer = self._transport.create_timer(_POLL_S, self._deliver_due)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _deliver(self, stack: _Waiting, may_wait: bool) -> bool:
        """Deliver a stack, with poses or without; False if it may still wait."""
        may_wait = may_wait and self._transport.steady_ns() < stack.deadline_ns
        poses: Poses = {}
        missing: list[tuple[str, NoTransform]] = []
        for name, poses_of in self._sources(stack.frame_id):
            try:
                poses = poses_of(stack)
            except NoTransform as error:
                if may_wait and error.cause == "late" and error.behind_s < _ALIVE_S:
                    return False
                missing.append((name, error))
                continue
            self._counts[name] += 1
            break
        for name, lack in missing:
            self._counts[f"{name}_{lack.cause}"] += 1
            self._text = f"{name}: {lack}"
        self._counts["images_alone"] += not poses
        stack.deliver(poses)
        return True

    def _sources(self, frame_id: str) -> list[tuple[str, Callable[[_Waiting], Poses]]]:
        """Sources of poses in the order of trial; of source auto those that have been received."""
        source = self._settings.source
        sources: list[tuple[str, Callable[[_Waiting], Poses]]] = []
        if source == "tf" or (source == "auto" and self._buffer.connected(frame_id, self._settings.frame)):
            sources.append(("tf", self._poses_of_tf))
        if source == "imu" or (source == "auto" and self._is_mounted(frame_id)):
            sources.append(("imu", self._poses_of_gyroscope))
        return sources

    def _is_mounted(self, frame_id: str) -> bool:
        """True if a gyroscope is received whose place on the camera is known."""
        try:
            return len(self._gyroscope) > 0 and self._buffer.fixed(self._imu_frame, frame_id) is not None
        except NoTransform:
            return False

    def _poses_of_tf(self, stack: _Waiting) -> Poses:
        settings, frame_id = self._settings, stack.frame_id
        self._buffer.check(
            frame_id, settings.frame, min(stack.stamps_ns), max(stack.stamps_ns), settings.max_acceleration
        )
        cameras = {
            stamp: self._buffer.at(frame_id, settings.frame, stamp, max_gap_s=settings.max_gap_s)
            for stamp in (*stack.stamps_ns, stack.reference_ns)
        }
        to_reference = cameras[stack.reference_ns].inverse()
        moved = {stamp: to_reference.after(camera) for stamp, camera in cameras.items()}
        self._note_speed(moved)
        return {
            stamp: Pose(
                _triple(camera.translation_m),
                camera.rotation_xyzw,
                settings.translation_sigma * float(np.linalg.norm(camera.translation_m)),
                settings.rotation_sigma * _angle(camera),
            )
            for stamp, camera in moved.items()
        }

    def _poses_of_gyroscope(self, stack: _Waiting) -> Poses:
        settings = self._settings
        mount = self._buffer.fixed(self._imu_frame, stack.frame_id).rotation
        bias_sigma = self._gyroscope.bias_sigma_rad_s(settings.gyroscope_bias)
        poses = {}
        for stamp in (*stack.stamps_ns, stack.reference_ns):
            turn = mount @ self._gyroscope.rotation(stack.reference_ns, stamp, settings.max_gap_s) @ mount.T
            camera = Transform(turn, np.zeros(3))
            seconds = abs(stamp - stack.reference_ns) * 1e-9
            sigma_rad = math.hypot(settings.rotation_sigma * _angle(camera), bias_sigma * seconds)
            poses[stamp] = Pose(rotation_xyzw=camera.rotation_xyzw, sigma_rad=sigma_rad)
        return poses

    def _note_speed(self, cameras: Mapping[int, Transform]) -> None:
        first, last = min(cameras), max(cameras)
        seconds = (last - first) * 1e-9
        step = cameras[first].inverse().after(cameras[last])
        self._speed = (float(np.linalg.norm(step.translation_m)) / seconds, _angle(step) / seconds)

    # -- diagnostics ----------------------------------------------------------------------------------------------

    def _diagnostic(self) -> Diagnostic:
        counts = self._counts + Counter({"resets": self._buffer.resets + self._gyroscope.resets})
        counts["reparented"] += self._buffer.reparented
        new = counts - self._before
        self._before = Counter(counts)
        missed = sum(new[f"{name}_{cause}"] for name in ("tf", "imu") for cause in CAUSES)
        values: dict[str, object] = {"source": self._settings.source, "frames": len(self._buffer)}
        values |= {name: counts[name] for name in ("tf", "imu", "images_alone", "invalid", "resets", "reparented")}
        values |= {key: counts[key] for key in (f"{name}_{cause}" for name in ("tf", "imu") for cause in CAUSES)}
        if not math.isnan(self._speed[0]):
            values |= {"speed_m_s": f"{self._speed[0]:.4f}", "turn_rad_s": f"{self._speed[1]:.4f}"}
        if self._gyroscope.bias_rad_s is not None:
            values["gyroscope_bias_rad_s"] = " ".join(f"{rate:.4f}" for rate in self._gyroscope.bias_rad_s)
        if missed:
            return Diagnostic("WARN", f"{missed} stacks without poses: {self._text}", values)
        used = [name for name in ("tf", "imu") if new[name]]
        return Diagnostic("OK", f"poses from {used[0]}" if used else "motion from the images alone", values)


def _angle(camera: Transform) -> float:
    return float(np.linalg.norm(vector_of(camera.rotation)))


def _triple(values: Any) -> tuple[float, float, float]:
    x, y, z = values.tolist()
    return x, y, z
