"""Signals that stop a command, handled while a block runs."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dfs_ros.transport.base import Transport

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def on_signals(
    act: Callable[[int], None],
    signals: tuple[signal.Signals, ...] = STOP_SIGNALS,
    later: signal.Handlers | None = None,
) -> Iterator[None]:
    """Call `act` with the number of each signal within the block.

    The earlier handlers return afterwards. `later`: handler of further signals, `SIG_DFL` (they end the process) or
    `SIG_IGN`; None = `act` again.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        if later is not None:
            for each in signals:
                signal.signal(each, later)
        act(number)

    before = {each: signal.signal(each, handle) for each in signals}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def signals_noted() -> Iterator[list[int]]:
    """Signals received so far. A second one ends this process at once; its children notice."""
    noted: list[int] = []
    with on_signals(noted.append, later=signal.SIG_DFL):
        yield noted


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into KeyboardInterrupt, so that the block cleans up."""

    def interrupt(number: int) -> None:
        raise KeyboardInterrupt

    with on_signals(interrupt, (signal.SIGTERM, signal.SIGHUP)):
        yield


class _Stop(Exception):
    """Raised to leave the block of :func:`stopped_by_signals`."""


def stop_soon(transport: Transport) -> None:
    """Leave the block of :func:`stopped_by_signals` between two callbacks."""
    transport.end(_Stop())


@contextmanager
def stopped_by_signals(transport: Transport, *, insist: bool = True) -> Iterator[None]:
    """Leave the block, which spins, between two callbacks after a signal.

    With `insist` a second signal ends the process; without it, not, as `ros2 launch` may repeat a signal.
    """
    later = signal.SIG_DFL if insist else signal.SIG_IGN
    try:
        with on_signals(lambda number: stop_soon(transport), later=later):
            yield
    except _Stop:
        pass
