"""Programs that the parts start, and their processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil

_COMMANDS = ("dfs", "ros2", "dfs_ros.cli.main")
"""Programs whose next word says what they do."""


@contextlib.contextmanager
def running(command: list[str], lines: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Process in a session of its own, ended as by Ctrl-C; its newest lines go to `lines`."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdout=pipe, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True
    ) as process:
        reader = threading.Thread(target=_read, args=(process, lines), daemon=True)
        reader.start()
        try:
            yield process
        finally:
            for number, wait_s in ((signal.SIGINT, 60), (signal.SIGKILL, 10)):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(wait_s)
            reader.join(10)


def _read(process: subprocess.Popen[str], lines: list[str]) -> None:
    for line in process.stdout or ():
        lines.append(line.rpartition("\r")[2].strip())
        del lines[:-50]


def started_by(process: subprocess.Popen[str], name: str) -> psutil.Process | None:
    """Process of a name among those that `process` has started, itself included; None if there is none."""
    with contextlib.suppress(psutil.Error):
        top = psutil.Process(process.pid)
        for one in (*reversed(top.children(recursive=True)), top):
            with contextlib.suppress(psutil.Error):
                if name_of(one.cmdline()) == name:
                    return one
    return None


def name_of(words: list[str]) -> str:
    """Name of a program by its command line: its own, or of a command its first argument.

    >>> name_of(["/usr/bin/python3", "/opt/lib/dfs_ros/depth_node", "--ros-args"])
    'depth_node'
    >>> name_of(["python3", "-m", "dfs_ros.cli.main", "view", "--port", "0"])
    'view'
    >>> name_of(["/usr/bin/python3", "-c", "from multiprocessing.spawn import spawn_main; spawn_main()"])
    'estimator'
    """
    if any("multiprocessing.spawn" in word for word in words):
        return "estimator"
    names = [Path(word).name for word in words if word != "-m"]
    if len(names) > 1 and names[0].startswith("python"):
        del names[0]
    return names[1] if len(names) > 1 and names[0] in _COMMANDS else (names or ["?"])[0]
