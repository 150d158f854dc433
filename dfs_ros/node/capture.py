"""Capture of the depth node's stacks to disk, on request, in a separate thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path

from dfs_ros.io.stack_folder import save_stack
from dfs_ros.messages.convert import Message, trigger_response
from dfs_ros.stacks.assembler import FrameStack
from dfs_ros.transport.base import when_answered
from dfs_ros.types import Camera, FocalStack

MOST_WAITING = 2


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
        """Waiting time of the oldest request, 0 without any. The clock may be set back."""
        self._asked_ns = min(self._asked_ns, now_ns)
        return (now_ns - self._asked_ns) * 1e-9 if self.awaited else 0.0

    def give(self, response: Message | Future[Message]) -> None:
        """Answer all requests, now or when `response` is done."""
        answer, self._answer = self._answer, None
        if answer is not None:
            when_answered(response, answer.set_result)


class Capture:
    """Writer of stacks, one after the other; over :data:`MOST_WAITING` at a time are refused.

    A stack's folder appears when it is complete.
    """

    def __init__(self, log: Callable[..., None]) -> None:
        self._log = log
        self._thread: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._waiting = 0

    def write(self, taken: FrameStack, camera: Camera, folder: Path) -> Message | Future[Message]:
        """Write a stack into a new folder in `folder`; return the answer, or its future."""
        with self._lock:
            if self._waiting >= MOST_WAITING:
                return trigger_response(False, f"{self._waiting} stacks are still being written; ask again later")
            self._waiting += 1
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="capture")
            return self._thread.submit(self._write, taken, camera, folder)

    def close(self) -> None:
        """Wait until all requested stacks are written."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown(wait=True)

    def _write(self, taken: FrameStack, camera: Camera, folder: Path) -> Message:
        try:
            stack = FocalStack.from_frames(list(taken.frames), camera)
            path = save_stack(stack, _unused(folder / _name(taken)))
        except Exception as error:  # the caller must learn of any failure
            self._log("error", f"nothing captured: {error}", error=error)
            return trigger_response(False, str(error) or type(error).__name__)
        finally:
            with self._lock:
                self._waiting -= 1
        self._log("info", f"captured {path}")
        return trigger_response(True, str(path))


def _name(taken: FrameStack) -> str:
    at = datetime.fromtimestamp(taken.newest_stamp_ns / 1e9, timezone.utc)
    return f"stack_{at:%Y%m%dT%H%M%S}_{at.microsecond // 1000:03d}"


def _unused(path: Path) -> Path:
    """Return `path`, with a number appended if it exists."""
    names = [path, *(path.with_name(f"{path.name}_{i}") for i in range(2, 1000))]
    return next((name for name in names if not name.exists()), path)
