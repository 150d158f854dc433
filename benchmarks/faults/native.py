"""A node of native ROS 2 that sees the depth of another node and asks for transitions of its lifecycle."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from dfs_ros.messages.convert import IMAGE, Message, stamp_ns
from dfs_ros.messages.definitions import message, message_class
from dfs_ros.transport import open_transport
from dfs_ros.transport.base import Transport

_CHANGE = "lifecycle_msgs/srv/ChangeState"
_TRANSITION = "lifecycle_msgs/msg/Transition"


class Watcher:
    """Stamp of the newest depth image of the node /dfs, and its lifecycle."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._came = threading.Condition()
        self._newest_ns = 0
        transport.create_subscription("/depth/image", IMAGE, self._add)

    def wait_for_depth(self, after_ns: int, patience_s: float) -> bool:
        """True once depth has come of images with stamps after `after_ns`."""
        with self._came:
            return self._came.wait_for(lambda: self._newest_ns > after_ns, patience_s)

    def change_state(self, transition: str, patience_s: float) -> bool:
        """Ask for a transition; False if it is refused, TimeoutError without a response."""
        number = getattr(message_class(_TRANSITION), f"TRANSITION_{transition.upper()}")
        request = message(f"{_CHANGE}_Request", transition=message(_TRANSITION, id=number))
        return bool(self._transport.call_service("/dfs/change_state", _CHANGE, request, patience_s).success)

    def _add(self, msg: Message) -> None:
        with self._came:
            self._newest_ns = stamp_ns(msg.header.stamp)
            self._came.notify_all()


@contextlib.contextmanager
def watching() -> Iterator[Watcher]:
    """Watcher with a thread that spins it; TransportError without native ROS 2."""
    with open_transport("ros", "faults") as transport:
        watcher = Watcher(transport)
        thread = threading.Thread(target=transport.spin, daemon=True)
        thread.start()
        try:
            yield watcher
        finally:
            transport.shutdown()
            thread.join(10)
