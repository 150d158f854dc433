"""Child processes that start and end with this one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

_STOP_TIMEOUT_S = 15.0
_LINES_KEPT = 50
_GOOD_ENDS = (0, 130, -signal.SIGINT)  # the latter two: stopped while starting


class Ended(NamedTuple):
    """Ended child: exit status, negative for a signal, and its last lines of output."""

    name: str
    status: int
    lines: tuple[str, ...]


class Processes:
    """Sub-commands of `dfs` as processes, none of which outlives this one.

    They are stopped by SIGINT, killed if they do not end, and end by themselves when this process dies in any way. Each
    has a process group of its own, so that Ctrl-C reaches this process alone.

    Parameters
    ----------
    show
        Called with the name of a child and each line of its output, from other threads.
    """

    def __init__(self, show: Callable[[str, str], None]) -> None:
        self._show = show
        self._children: dict[str, subprocess.Popen[str]] = {}
        self._readers: dict[str, threading.Thread] = {}
        self._lines: dict[str, deque[str]] = {}
        self._reported: set[str] = set()

    def start(self, name: str, arguments: Sequence[str]) -> None:
        """Start `dfs ARGUMENTS`."""
        child = subprocess.Popen(
            [sys.executable, "-u", "-m", "dfs_ros.cli.main", *arguments, "--exit-with-parent"],
            stdin=subprocess.PIPE,  # its end tells the child that this process has died
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._children[name] = child
        self._lines[name] = deque(maxlen=_LINES_KEPT)
        self._readers[name] = threading.Thread(target=self._read, args=(name,), daemon=True)
        self._readers[name].start()

    def pid(self, name: str) -> int:
        """Process id of a child."""
        return self._children[name].pid

    def ended(self) -> Ended | None:
        """Child that has ended by itself, or None."""
        for name, child in self._children.items():
            status = child.poll()
            if status is not None:
                self._readers[name].join(1.0)  # for its last lines
                self._reported.add(name)
                return Ended(name, status, tuple(self._lines[name]))
        return None

    def stop(self, timeout_s: float = _STOP_TIMEOUT_S) -> list[Ended]:
        """End all children; return those that failed or were killed.

        Children that :meth:`ended` has returned are left out.
        """
        for child in self._children.values():
            if child.poll() is None:
                child.send_signal(signal.SIGINT)
        deadline = time.monotonic() + timeout_s
        try:
            for child in self._children.values():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(max(0.0, deadline - time.monotonic()))
        finally:
            self._kill()
        return [
            Ended(name, child.returncode, tuple(self._lines[name]))
            for name, child in self._children.items()
            if child.returncode not in _GOOD_ENDS and name not in self._reported
        ]

    def _kill(self) -> None:
        for child in self._children.values():
            with contextlib.suppress(ProcessLookupError):
                if child.poll() is None:
                    os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            if child.stdin is not None:
                child.stdin.close()
        for reader in self._readers.values():
            reader.join(1.0)

    def _read(self, name: str) -> None:
        stream = self._children[name].stdout
        if stream is None:
            return
        with stream:
            for line in stream:
                self._lines[name].append(line.rstrip())
                self._show(name, line.rstrip())
