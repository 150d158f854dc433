"""Subscription that queues CDR from other threads, for DDS and rclpy."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

from dfs_ros.messages.definitions import Message, deserialize
from dfs_ros.transport.base import Qos, Subscription, Transport


class CdrSubscription(Subscription):
    """Subscription that decodes on the thread that spins; failures are counted and logged.

    Put CDR into `mailbox`, from any thread: newer messages displace older ones.
    """

    def __init__(
        self, transport: Transport, topic: str, type_name: str, callback: Callable[[Message], None], qos: Qos
    ) -> None:
        super().__init__(topic, type_name, qos, callback)
        self._transport = transport
        self.mailbox = transport.executor.mailbox(self._handle, qos.depth)

    def _handle(self, cdr: bytes) -> None:
        try:
            msg = deserialize(cdr, self.type_name)
        except ValueError as error:
            self.malformed += 1
            self._transport.log(
                "error", f"{self.topic}: {error}", key=f"{self.topic} malformed", every_s=5.0, error=error
            )
            return
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
