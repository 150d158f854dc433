"""A display of its own for tests that open windows."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
from typing import NamedTuple

from launch.action import Action
from launch.actions import SetEnvironmentVariable

XVFB = shutil.which("Xvfb")


class Display(NamedTuple):
    """X server without a screen, which ends with this process."""

    name: str

    def environment(self) -> list[Action]:
        """Launch actions: what is started after them opens its windows there, drawn by the CPU."""
        variables = {"DISPLAY": self.name, "LIBGL_ALWAYS_SOFTWARE": "1", "QT_QPA_PLATFORM": "xcb"}
        return [SetEnvironmentVariable(name, value) for name, value in variables.items()]


def start_display(width: int, height: int) -> Display:
    """Start Xvfb under a number that is free; RuntimeError if it is not installed or does not start."""
    if XVFB is None:
        raise RuntimeError("expected Xvfb on the PATH (package xvfb), found none")
    read, write = os.pipe()
    command = [XVFB, "-displayfd", str(write), "-screen", "0", f"{width}x{height}x24", "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=[write], stderr=subprocess.PIPE, text=True, start_new_session=True)
    os.close(write)
    atexit.register(server.terminate)
    with os.fdopen(read) as told:
        number = told.readline().strip()
    if not number:
        assert server.stderr is not None
        raise RuntimeError(f"Xvfb ended with status {server.wait()}: {server.stderr.read().strip()}")
    return Display(f":{number}")
