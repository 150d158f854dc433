"""Subscription that queues CDR from other threads, for DDS and rclpy."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

from dfs_ros.config import LimitsConfig
from dfs_ros.messages.definitions import Message, deserialize
from dfs_ros.messages.limits import check_bytes
from dfs_ros.transport.base import Qos, Subscription, Transport
from dfs_ros.transport.guard import Dropped


class CdrSubscription(Subscription):
    """Subscription that decodes on the thread that spins; failures are counted and logged.

    Put CDR into `mailbox`, from any thread: newer messages displace older ones.
    """

    def __init__(
        self, transport: Transport, topic: str, type_name: str, callback: Callable[[Message], None], qos: Qos
    ) -> None:
        super().__init__(topic, type_name, qos, callback)
        self._transport = transport
        self.mailbox = transport.executor.mailbox(self._handle, qos.depth, topic)

    def _handle(self, cdr: bytes) -> None:
        msg = None
        with self._transport.guard(self.topic, self.faults):
            msg = decoded_cdr(cdr, self.type_name, self._transport.parameters.config.limits)
        if msg is not None:
            self._transport.handle_message(self, msg)

    @property
    def received(self) -> int:
        return self.mailbox.received

    @property
    def dropped(self) -> int:
        """Messages displaced by newer ones here, and those lost by the network."""
        return self.mailbox.dropped + self.lost()

    @abstractmethod
    def lost(self) -> int:
        """Messages of best-effort publishers lost by the network, as far as the middleware knows."""


def decoded_cdr(cdr: bytes, type_name: str, limits: LimitsConfig, prefix_bytes: int = 0) -> Message:
    """Decode a message from outside; raises Dropped for one that is too large or malformed."""
    try:
        check_bytes(len(cdr), type_name, limits)
    except ValueError as error:
        raise Dropped("too_large", str(error)) from error
    try:
        return deserialize(cdr, type_name, prefix_bytes)
    except ValueError as error:
        raise Dropped("malformed", str(error)) from error
