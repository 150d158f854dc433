"""Status line at the bottom of a terminal, with scrolling lines above it."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from types import TracebackType

_PLAIN_PERIOD_S = 5.0


class StatusLine:
    """Status on standard output: one line in place on a terminal, else periodic lines.

    Any thread may print. Use it as a context; the last status remains on its own line.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._terminal = sys.stdout.isatty()
        self._status = ""
        self._shown_at = -_PLAIN_PERIOD_S

    def show(self, status: str) -> None:
        """Show a status."""
        with self._lock:
            self._status = status
            if self._terminal:
                self._draw()
            elif time.monotonic() - self._shown_at >= _PLAIN_PERIOD_S:
                self._shown_at = time.monotonic()
                print(status, flush=True)

    def print(self, text: str) -> None:
        """Print a line above the status."""
        with self._lock:
            if self._terminal and self._status:
                print(f"\r\x1b[K{text}")
                self._draw()
            else:
                print(text, flush=True)

    def print_from(self, name: str, line: str) -> None:
        """Print a line of output of the process `name`."""
        if line.strip():
            self.print(f"{name + ':':<8}{line.removeprefix('I ')}")

    def _draw(self) -> None:
        columns = shutil.get_terminal_size().columns
        print(f"\r\x1b[K{self._status[: columns - 1]}", end="", flush=True)

    def __enter__(self) -> StatusLine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            if self._terminal and self._status:
                print(flush=True)
            self._status = ""
