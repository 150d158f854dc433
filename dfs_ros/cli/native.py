"""Shared code of the native executables `ros2 run dfs_ros ...`, configured by ROS arguments alone.

:func:`native_main` imports all slow modules, so that a signal can interrupt the imports.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from dfs_ros.system.cores import wait_asleep
from dfs_ros.system.tracebacks import keep_traceback

if TYPE_CHECKING:
    from dfs_ros.transport.base import Transport

_LEVELS = ((logging.ERROR, "error"), (logging.WARNING, "warning"), (logging.INFO, "info"))


def native_main(
    node_name: str, doc: str, serve: Callable[[Transport], None], arguments: Sequence[str] | None = None
) -> int:
    """Serve a native node until a signal; return its exit status.

    0 good or stopped, 1 failed, 2 bad input. `arguments` None = the command line: ROS arguments after `--ros-args`.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments and arguments[0] in ("-h", "--help"):
        print(f"{doc.strip()}\n\nusage: ros2 run dfs_ros NODE [--ros-args [-p NAME:=VALUE] [-r FROM:=TO] ...]")
        return 0
    wait_asleep()
    stop = _Stop()
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, stop)  # until the node has its own handlers
    try:
        _run(node_name, serve, arguments, stop)
    except BaseException as error:
        if stop.told:  # a compiled module under import turns _Stopped into an ImportError
            return 0
        keep_traceback(error)
        from dfs_ros.transport.base import DeviceLost

        if isinstance(error, (ValueError, TypeError, OSError, MemoryError)):
            print(f"{node_name}: error: {str(error) or type(error).__name__}", file=sys.stderr)
            return 1 if isinstance(error, DeviceLost) else 2
        if isinstance(error, ImportError):
            print(f"{node_name}: error: {error}; `dfs doctor` lists what is missing", file=sys.stderr)
            return 1
        raise
    return 0


class _Stopped(BaseException):
    """Raised by a signal that stops the process.

    Not a KeyboardInterrupt: Python remembers one that passed through compiled code, and dies of the signal although it
    was caught.
    """


class _Stop:
    """Handler of the signals that end a process while it starts."""

    def __init__(self) -> None:
        self.told = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.told = True
        raise _Stopped

    def check(self) -> None:
        """Raise again after an import that may have swallowed the exception."""
        if self.told:
            raise _Stopped


def _run(node_name: str, serve: Callable[[Transport], None], arguments: Sequence[str], stop: _Stop) -> None:
    if arguments and arguments[0] != "--ros-args":
        raise ValueError(f"expected --ros-args before ROS arguments, received {arguments[0]!r}")
    from dfs_ros.system.memory import keep_freed_memory
    from dfs_ros.transport import open_transport

    with open_transport("ros", node_name, arguments=arguments) as transport, _python_log_to(transport):
        if transport.parameters.config.node.keep_memory:
            keep_freed_memory()
        stop.check()
        serve(transport)


@contextmanager
def _python_log_to(transport: Transport) -> Iterator[None]:
    """Forward the package's Python log to the node's log."""

    class Forward(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            level = next((name for number, name in _LEVELS if record.levelno >= number), "debug")
            if not transport.is_shutdown:  # then its lines come here
                transport.log(level, self.format(record))

    handler, logger = Forward(), logging.getLogger("dfs_ros")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)  # the node's log has a level of its own
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
