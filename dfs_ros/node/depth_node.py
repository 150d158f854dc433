"""Depth node: images with focus metadata -> depth, points, all-in-focus image.

    image, focus, camera_info -> StackAssembler -> newest stack -> DepthEstimator -> topics
         callbacks: only parse and assemble        |   worker threads, or processes

The callbacks take milliseconds. On a CPU two stacks are computed at once, each in a process, and published in order.
If depth takes longer than a sweep, the newest stack wins and the others are counted as superseded. Outputs without
subscribers are not computed: without a subscriber to any output and without a waiting `~/capture`, images are counted
and not even decoded; a new subscriber gets the next whole sweep.
Inputs: `image` (or `image/compressed`), `camera_info`, `focus` (or another `node.focus_source`); `/tf`, `/tf_static`,
`imu` for the poses of the images (:mod:`dfs_ros.node.motion`). Outputs: `depth/image`, `depth/camera_info`,
`depth/points`, `depth/sigma`, `depth/confidence`, `all_in_focus/image`, `all_in_focus/camera_info`, with stamp and
frame_id of the reference image, and `/diagnostics`. `~/capture` writes a stack to disk: the newest, or the next without
subscribers.

Images over `processing.max_megapixels` are reduced once; all is published at that working size, with its camera_info.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, TypeVar

from dfs_ros.config import NodeConfig, StackConfig
from dfs_ros.messages.convert import (
    CAMERA_INFO,
    COMPRESSED,
    DIAGNOSTICS,
    FOCUS,
    IMAGE,
    TRIGGER,
    Diagnostic,
    Message,
    camera_info_from_message,
    focus_from_diagnostics,
    focus_from_message,
    stamp_ns,
    trigger_response,
)
from dfs_ros.messages.images import UNORDERED
from dfs_ros.node.capture import Capture, NextStack
from dfs_ros.node.commanded_focus import LensCommands, ReportedFocus, schedule_of
from dfs_ros.node.health import Health, Situation, state_of
from dfs_ros.node.images import BitsInUse, WorkingFrames, decoded
from dfs_ros.node.last_alignment import LastAlignment
from dfs_ros.node.lens import LensError, LensTracker, rectified
from dfs_ros.node.motion import Motion, Poses
from dfs_ros.node.outputs import SHARP, Outputs
from dfs_ros.node.worker import Deliver, LatestWorker, Work
from dfs_ros.stacks.assembler import FrameStack, StackAssembler
from dfs_ros.system.memory import return_freed_memory
from dfs_ros.transport.base import Qos, Subscription, Transport
from dfs_ros.types import Camera, DepthResult, FocalStack, FocusMetadata, Frame

if TYPE_CHECKING:
    from dfs_ros.estimator.parallel import LiveEstimator

_Self = TypeVar("_Self", bound="DepthNode")
# Sensor data, with a queue of a third of a second at 30 Hz, as long as a busy machine may hold the receiving threads.
_INPUT = Qos(reliable=False, depth=10)
_COMMANDS = Qos(reliable=True, depth=50)  # a lost one would make the following depth wrong
# Longest spans that `~/capture` waits for: the stack under way, the next, and the silence that ends it.
_CAPTURE_SPANS = 3
_focus_of = attrgetter("focus_diopters")


@dataclass(frozen=True, eq=False)
class _Job:
    """Stack to compute, with the camera of its original images."""

    taken: FrameStack
    camera: Camera
    frame_id: str
    distortion: tuple[float, ...]
    poses: Poses = field(default_factory=dict)


class _Interrupted(Exception):
    """Raised to stop a running computation."""


class DepthNode:
    """Depth node, see the head of this module.

    Parameters
    ----------
    transport
        Connection of the node, with its parameters; its owner spins it.
    inline
        Compute each stack within the callback that completes it, and supersede none: for recordings, whose results then
        do not depend on the speed of the machine.
    """

    def __init__(self, transport: Transport, *, inline: bool = False) -> None:
        config = transport.parameters.config
        self._transport = transport
        self._inline = inline
        self._health = Health(transport.now_ns, transport.steady_ns, timed=not transport.repeatable)
        self._lens = LensTracker(config.lens)
        self._stack_settings: StackConfig = config.stack
        self._sliding = config.stack.mode == "sliding"
        self._assembler = StackAssembler(config.stack)
        self._frame_id = ""
        self._bits = BitsInUse()
        self._working = WorkingFrames()
        self._schedule = schedule_of(config.schedule) if config.node.focus_source == "schedule" else None
        schedule = self._lens.scheduled(config.schedule)
        self._commands = LensCommands(schedule) if config.node.focus_source == "commands" else None
        self._reported = ReportedFocus(schedule, config.stack.focus_tolerance_diopters)
        self._capturing = Capture(transport.log, config.node, transport.steady_ns)
        self._next = NextStack()
        self._newest: FrameStack | None = None
        self._worker: LatestWorker[_Job] | None = None
        self._superseded = 0  # by earlier workers
        self._estimator: LiveEstimator | None = None
        self._alignment = LastAlignment(config.stack.focus_tolerance_diopters)
        self._active = self._loading = False

        self._outputs = Outputs(transport)
        self._subscriptions: list[Subscription] = []
        transport.create_service("~/capture", TRIGGER, self._capture)
        transport.create_timer(1.0, self._look_at_the_clock)
        transport.add_diagnostic("depth", self._diagnostic)
        self._motion = Motion(transport)

    def configure(self) -> None:
        """Load the network; an engine build of TensorRT may take minutes.

        Raises ValueError or FileNotFoundError on failure.
        """
        self._loading = True
        try:
            self._load_estimator()
        finally:
            self._loading = False

    def activate(self) -> None:
        """Start taking images and computing depth; the worker's thread loads the network first.

        If loading fails, the exception ends the spinning of the transport.
        """
        if self._active:
            return
        self._active = True
        self._health.start()
        self._subscriptions = self._subscribe()
        if self._inline:
            self._load_estimator()
        else:
            self._worker = LatestWorker("depth", self._transport.guard, self._prepare_work, self._transport.end)

    def deactivate(self) -> None:
        """Stop taking images and forget all; return after the last computation has ended."""
        self._active = False
        for subscription in self._subscriptions:
            self._transport.unsubscribe(subscription)
        self._subscriptions = []
        self._motion.forget()
        if self._worker is not None:
            self._worker.close()
            self._superseded += self._worker.superseded
            self._worker = None
        self._newest = None
        self._alignment.forget()
        self._assembler.restart()
        self._next.give(trigger_response(False, "the node was deactivated"))

    def finish(self) -> None:
        """End the current stack and compute it, after the last image."""
        self._take(self._assembler.flush())
        self._motion.finish()

    def close(self) -> None:
        """Deactivate and release the network; the transport's owner shuts it down."""
        self.deactivate()
        self._capturing.close()
        self._estimator = None
        return_freed_memory()

    def __enter__(self: _Self) -> _Self:
        self._transport.manage(self)
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # -- inputs: on the thread that spins -------------------------------------------------------------------------

    def _subscribe(self) -> list[Subscription]:
        """Subscribe to all inputs; the images come first."""
        subscribe = self._transport.create_subscription
        settings = self._transport.parameters.config.node
        quality = dataclasses.replace(_INPUT, reliable=settings.reliable_input)
        end, kind = ("/compressed", COMPRESSED) if settings.image_transport == "compressed" else ("", IMAGE)
        images = subscribe(self._transport.resolve("image") + end, kind, self._on_image, quality)
        self._lens.rectified = rectified(images.topic, settings.image_geometry)
        subscriptions = [images, subscribe("camera_info", CAMERA_INFO, self._on_camera_info, quality)]
        if settings.focus_source == "diagnostics":
            take = partial(self._on_focus, focus_from_diagnostics)
            subscriptions.append(subscribe("/diagnostics", DIAGNOSTICS, take, _INPUT))
        elif settings.focus_source != "schedule":
            qos = quality if self._commands is None else _COMMANDS
            read = partial(focus_from_message, most_images=self._transport.parameters.config.limits.stack_images)
            subscriptions.append(subscribe("focus", FOCUS, partial(self._on_focus, read), qos))
        return subscriptions + self._motion.subscribe()

    def _on_image(self, msg: Message) -> None:
        if not self._active:
            return
        self._health.add_image()
        config = self._transport.parameters.config
        with self._health.counted("bad_image"):
            stamp = stamp_ns(msg.header.stamp)
        commanded = self._schedule or self._commands
        focus = commanded.focus_of(stamp, self._transport.steady_ns()) if commanded is not None else None
        if not self._is_wanted():
            self._assembler.ignore_image(stamp)
            self._newest = None
            return
        with self._health.counted("bad_image"):
            bits = config.node.sample_bits or self._bits.of(msg)
            image, original_size_px = decoded(msg, config.limits, config.processing.max_megapixels, bits)
            if self._bits.risen:
                self._assembler.restart()  # the earlier images were scaled otherwise
        if meant := UNORDERED.get(getattr(msg, "encoding", "")):
            text = f"encoding {msg.encoding} does not name the order of the channels: read as {meant}; have it name it"
            self._transport.log("warning", text, key="unordered", every_s=60.0)
        self._frame_id = msg.header.frame_id
        if focus is not None:
            self._take(self._assembler.add_focus(self._lens.described(focus)))
        received_ns = self._transport.steady_ns()
        self._take(self._assembler.add_image(stamp, image, original_size_px=original_size_px, received_ns=received_ns))

    def _on_focus(self, read: Callable[[Message], FocusMetadata | None], msg: Message) -> None:
        if not self._active:
            return
        with self._health.counted("bad_focus"):
            focus = self._reported.settled(self._lens.calibrated(read(msg)))
        if focus is None:
            return
        if self._commands is not None:
            self._commands.add(focus)
        elif self._is_wanted():
            self._take(self._assembler.add_focus(self._lens.described(focus)))

    def _is_wanted(self) -> bool:
        """True if a capture waits, or an output has a subscriber and the network is loaded."""
        return self._next.awaited or (self._estimator is not None and bool(self._outputs.wanted()))

    def _on_camera_info(self, msg: Message) -> None:
        with self._health.counted("bad_camera_info", self._lens.refuse_info):
            self._lens.add_info(camera_info_from_message(msg, self._lens.rectified))

    def _look_at_the_clock(self) -> None:
        now_ns = self._transport.steady_ns()
        self._take(self._assembler.end_on_silence(now_ns))
        patience_s = _CAPTURE_SPANS * self._stack_settings.max_span_s
        if self._next.waited_s(now_ns) > patience_s:
            silent = self._health.silence_s() > patience_s
            why = "no image came" if silent else "images come, but make no stack; /diagnostics says why"
            self._next.give(trigger_response(False, f"no focal stack within {patience_s:g} s: {why}"))

    def _take(self, stacks: Iterable[FrameStack]) -> None:
        for taken in stacks:
            self._newest = taken
            if self._next.awaited:
                self._next.give(self._write(taken))
            if not self._outputs.wanted():
                continue
            try:
                camera = self._lens.camera_of(taken.frames)
            except LensError as error:
                self._health.add_fault(error.cause, str(error))
                self._transport.log("error", f"no depth: {error}", key=error.cause, every_s=5.0, error=error)
                continue
            job = _Job(taken, camera, self._frame_id, self._lens.plumb_bob(taken.newest_stamp_ns, self._transport.log))
            self._ask_for_poses(taken, partial(self._start, job))

    def _ask_for_poses(self, taken: FrameStack, deliver: Callable[[Poses], None]) -> None:
        frames = sorted(taken.frames, key=_focus_of)
        stamps = [frame.stamp_ns for frame in frames]
        self._motion.ask(stamps, stamps[self._reference(frames)], self._frame_id, deliver)

    def _start(self, job: _Job, poses: Poses) -> None:
        job = dataclasses.replace(job, poses=poses)
        if self._worker is not None:
            self._worker.put(job)
        elif self._inline and (publish := self._compute(job)) is not None:
            publish()

    # -- depth: on the worker's thread ----------------------------------------------------------------------------

    def _prepare_work(self) -> Work[_Job]:
        self._load_estimator()
        if (estimator := self._estimator) is None:
            return Work(self._compute)
        return Work(self._compute, estimator.at_once, lambda job: estimator.alone(job.taken.frames[0].image.shape[:2]))

    def _load_estimator(self) -> None:
        if self._estimator is not None:
            return
        from dfs_ros.estimator.parallel import live_estimator

        began = time.monotonic()
        self._estimator = live_estimator(self._transport.parameters.config, alone=self._inline)
        loaded = f"{self._estimator.network} (loaded in {time.monotonic() - began:.1f} s)"
        self._transport.log("info", f"ready, network: {loaded}")

    def _compute(self, job: _Job) -> Deliver | None:
        topics = self._outputs.wanted()
        config, estimator = self._transport.parameters.config, self._estimator
        if not topics or estimator is None:
            return None
        estimator.config = config  # dynamic settings
        try:
            result = self._estimate(estimator, job, sharpen=not SHARP.isdisjoint(topics))
        except _Interrupted:
            return None
        except Exception as error:
            # A fault of one stack, or a passing one of the device, must not end the node.
            self._alignment.forget()
            self._health.add_fault("failed", f"{type(error).__name__}: {error}")
            self._transport.log("error", f"no depth of this stack: {error}", key="failed", every_s=5.0, error=error)
            return None
        return partial(self._publish, job, result, topics, config.node)

    def _publish(self, job: _Job, result: DepthResult, topics: frozenset[str], settings: NodeConfig) -> None:
        self._outputs.publish(result, topics, job.frame_id, settings, job.distortion)
        self._health.add_result(result, job.taken.newest_stamp_ns)

    def _estimate(self, estimator: LiveEstimator, job: _Job, sharpen: bool) -> DepthResult:
        most = estimator.config.processing.max_megapixels
        # In focus order, so that sweeps of both directions are alike and share initial alignments.
        small = [self._working.of(frame, most) for frame in sorted(job.taken.frames, key=_focus_of)]
        frames = [dataclasses.replace(frame, pose=job.poses.get(frame.stamp_ns)) for frame in small]
        stack = FocalStack.from_frames(frames, job.camera)
        reference, initial = self._reference(frames) if self._sliding else None, self._alignment.of(stack)
        result = estimator.estimate(
            stack, reference=reference, initial_alignment=initial, sharpen=sharpen, progress=self._check_stop
        )
        self._alignment.keep(stack, result)
        return result

    def _reference(self, frames: list[Frame]) -> int:
        """Index of the reference in focus order: the middle; of a sliding stack the newest, for distinct stamps."""
        newest = max(range(len(frames)), key=lambda i: frames[i].stamp_ns)
        return newest if self._sliding else len(frames) // 2

    def _check_stop(self, step: str, share_done: float) -> None:
        if self._worker is not None and self._worker.stopping:
            raise _Interrupted

    # -- diagnostics and services ---------------------------------------------------------------------------------

    def _diagnostic(self) -> Diagnostic:
        wanted = bool(self._outputs.wanted())
        config, worker = self._transport.parameters.config, self._worker
        diagnostic = self._health.diagnostic(
            Situation(
                state=state_of(self._active or self._loading, self._estimator, wanted),
                working=self._active and self._estimator is not None and wanted,
                image_topic=self._subscriptions[0].topic if self._subscriptions else "",
                image_publishers=self._subscriptions[0].publisher_count() if self._subscriptions else 0,
                silence_s=config.node.silence_s if self._active else math.inf,
                superseded=self._superseded + (worker.superseded if worker is not None else 0),
                counts=self._assembler.counts,
                preparing="" if self._estimator is None else self._estimator.preparing,
                network_faults=() if self._estimator is None else self._estimator.network_faults,
                stamp_difference_ns=self._assembler.stamp_difference_ns,
                frame_ids=(self._frame_id, self._lens.frame_id),
            )
        )
        setup = {
            "network": config.network.name if self._estimator is None else self._estimator.network,
            "cost volume": config.cost.method,
            "hypotheses": config.hypotheses.count,
        }
        return diagnostic._replace(values={**diagnostic.values, **setup})

    def _capture(self, request: Message) -> Message | Future[Message]:
        if not self._active:
            return trigger_response(False, "the node is inactive and takes no images; activate it first")
        if self._newest is not None and self._is_wanted():
            return self._write(self._newest)
        return self._next.ask(self._transport.steady_ns())

    def _write(self, taken: FrameStack) -> Message | Future[Message]:
        try:
            camera = self._lens.camera_of(taken.frames)
        except LensError as error:
            return trigger_response(False, str(error))
        return self._capturing.write(taken, camera, partial(self._ask_for_poses, taken))
