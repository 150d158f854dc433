"""Capture of the depth node's stacks to disk, on request, in a separate thread."""

from __future__ import annotations

import dataclasses
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path

from dfs_ros.config import NodeConfig
from dfs_ros.io.stack_folder import save_stack
from dfs_ros.messages.convert import Message, trigger_response
from dfs_ros.node.motion import Poses
from dfs_ros.stacks.assembler import FrameStack
from dfs_ros.transport.base import when_answered
from dfs_ros.types import Camera, FocalStack

MOST_WAITING = 2
_MINUTE_NS = 60 * 10**9


class NextStack:
    """Requests for the next stack, with one common answer. Not thread-safe."""

    def __init__(self) -> None:
        self._answer: Future[Message] | None = None
        self._asked_ns = 0

    @property
    def awaited(self) -> bool:
        """True while a request waits."""
        return self._answer is not None

    def ask(self, now_ns: int) -> Future[Message]:
        """Request the next stack; the future holds the response."""
        if self._answer is None:
            self._answer, self._asked_ns = Future(), now_ns
        return self._answer

    def waited_s(self, now_ns: int) -> float:
        """Waiting time of the oldest request, 0 without any."""
        return (now_ns - self._asked_ns) * 1e-9 if self.awaited else 0.0

    def give(self, response: Message | Future[Message]) -> None:
        """Answer all requests, now or when `response` is done."""
        answer, self._answer = self._answer, None
        if answer is not None:
            when_answered(response, answer.set_result)


class Capture:
    """Writer of stacks into a folder, one after the other, as the settings at the start of the node allow.

    Refused are stacks over :data:`MOST_WAITING` at a time, over `captures_per_minute`, and those with which the folder
    would hold over `capture_megabytes`. A stack's folder appears when it is complete.
    """

    def __init__(self, log: Callable[..., None], settings: NodeConfig, steady_ns: Callable[[], int]) -> None:
        self._log = log
        self._folder = Path(settings.capture_folder).expanduser().resolve()
        self._most_bytes = settings.capture_megabytes * 1e6
        self._most_a_minute = settings.captures_per_minute
        self._steady_ns = steady_ns
        self._taken_ns: deque[int] = deque()
        self._thread: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._waiting = 0

    def write(
        self, taken: FrameStack, camera: Camera, ask: Callable[[Callable[[Poses], None]], None]
    ) -> Future[Message]:
        """Write a stack into a new folder; return the answer's future.

        `ask(go_on)` calls `go_on` with the poses of the images, now or later.
        """
        answer: Future[Message] = Future()
        ask(lambda poses: when_answered(self._begin(taken, camera, poses), answer.set_result))
        return answer

    def _begin(self, taken: FrameStack, camera: Camera, poses: Poses) -> Message | Future[Message]:
        now_ns = self._steady_ns()
        with self._lock:
            while self._taken_ns and now_ns - self._taken_ns[0] > _MINUTE_NS:
                self._taken_ns.popleft()
            if len(self._taken_ns) >= self._most_a_minute:
                return trigger_response(
                    False, f"node.captures_per_minute: {self._most_a_minute} stacks were asked for within a minute"
                )
            if self._waiting >= MOST_WAITING:
                return trigger_response(False, f"{self._waiting} stacks are still being written; ask again later")
            self._waiting += 1
            self._taken_ns.append(now_ns)
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="capture")
            return self._thread.submit(self._write, taken, camera, poses)

    def close(self) -> None:
        """Wait until all requested stacks are written."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown(wait=True)

    def _write(self, taken: FrameStack, camera: Camera, poses: Poses) -> Message:
        try:
            self._check_quota(sum(frame.image.nbytes for frame in taken.frames))
            path = save_stack(stack_of(taken, camera, poses), _unused(self._folder / _name(taken)))
        except Exception as error:  # the caller must learn of any failure
            self._log("error", f"nothing captured: {error}", error=error)
            return trigger_response(False, str(error) or type(error).__name__)
        finally:
            with self._lock:
                self._waiting -= 1
        self._log("info", f"captured {path}")
        return trigger_response(True, str(path))

    def _check_quota(self, new_bytes: int) -> None:
        """Raise ValueError if the folder would hold too much; PNG files are hardly larger than their pixels."""
        held = sum(file.stat().st_size for file in self._folder.rglob("*") if file.is_file() and not file.is_symlink())
        if held + new_bytes > self._most_bytes:
            raise ValueError(
                f"node.capture_megabytes: {self._folder} holds {held / 1e6:.3g} of {self._most_bytes / 1e6:.3g} MB, "
                f"and the stack may need {new_bytes / 1e6:.3g} MB; move stacks away"
            )


def stack_of(taken: FrameStack, camera: Camera, poses: Poses) -> FocalStack:
    """Focal stack of the frames, with their poses as far as known."""
    frames = [dataclasses.replace(frame, pose=poses.get(frame.stamp_ns)) for frame in taken.frames]
    return FocalStack.from_frames(frames, camera)


def _name(taken: FrameStack) -> str:
    at = datetime.fromtimestamp(taken.newest_stamp_ns / 1e9, timezone.utc)
    return f"stack_{at:%Y%m%dT%H%M%S}_{at.microsecond // 1000:03d}"


def _unused(path: Path) -> Path:
    """Return `path`, with a number appended if it exists."""
    names = [path, *(path.with_name(f"{path.name}_{i}") for i in range(2, 1000))]
    return next((name for name in names if not name.exists()), path)
