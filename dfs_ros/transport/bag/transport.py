"""Node on a recorded bag: inputs come from the bag, outputs go into another.

The clock is the bag's: it stands while the node works, then advances to the reception of the next message, by way of
every timer due until then. Nothing depends on the machine's speed; the same bag gives the same calls in the same order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from dfs_ros.config import Config
from dfs_ros.messages.definitions import Message, deserialize, serialize
from dfs_ros.transport.bag.metadata import BagMessage
from dfs_ros.transport.bag.writer import BagWriter
from dfs_ros.transport.base import RELIABLE, Publisher, Qos
from dfs_ros.transport.local import LocalBus, LocalTransport

# In a longer silence timer calls are skipped: a clock that jumps by years must not take hours.
_MOST_TIMER_CALLS = 1000


class BagTransport(LocalTransport):
    """Node on a bag, see the head of this module.

    Parameters
    ----------
    writer
        Writer of the published messages; None: they are not written.
    start_ns
        Initial time.
    recorded
        Function of a published topic: True if it goes to `writer`. Publishers of other topics, unless watched, have no
        subscription, so that the node need not compute their messages.
    """

    repeatable = True

    def __init__(
        self,
        node_name: str,
        writer: BagWriter | None,
        start_ns: int,
        *,
        recorded: Callable[[str], bool] = lambda topic: True,
        namespace: str = "/",
        remappings: Mapping[str, str] | None = None,
        config: Config | None = None,
    ) -> None:
        self.writer = writer
        self._recorded = recorded
        self._watchers: dict[str, Callable[[Message], None]] = {}
        bus = LocalBus(start_ns)
        self._player = LocalTransport("bag_player", bus)
        self._played: dict[tuple[str, str], Publisher] = {}
        super().__init__(node_name, bus, namespace=namespace, remappings=remappings, config=config)

    def watch(self, topic: str, callback: Callable[[Message], None]) -> None:
        """Call `callback(msg)` for messages the node publishes on an absolute topic.

        The topic need not be recorded; a later callback for it replaces this one.
        """
        self._watchers[topic] = callback

    def create_publisher(self, topic: str, type_name: str, qos: Qos = RELIABLE) -> Publisher:
        publisher = _BagPublisher(self, self.resolve(topic), type_name, qos)
        publisher.wanted = self._recorded(publisher.topic)
        if self.writer is not None and publisher.wanted:
            self.writer.announce(publisher.topic, type_name, qos)
        self.publishers.append(publisher)
        return publisher

    def passed_on(self, publisher: _BagPublisher, msg: Message, data: bytearray) -> None:
        """Pass a published message to its :meth:`watch` callback and the writer."""
        if publisher.topic in self._watchers:
            self._watchers[publisher.topic](msg)
        if self.writer is not None and publisher.wanted:
            try:
                self.writer.write(publisher.topic, publisher.type_name, self.now_ns(), data)
            except OSError as error:  # the recording would lack messages
                self.end(error)

    def receivers(self, publisher: _BagPublisher) -> int:
        """Number of receivers of a publisher of this node."""
        return int(publisher.wanted) + (publisher.topic in self._watchers)

    def advance_to(self, stamp_ns: int) -> None:
        """Advance the clock and do the due work. A time in the past means now."""
        for _ in range(_MOST_TIMER_CALLS):
            due_ns = self.executor.next_timer_ns()
            if due_ns is None or due_ns > stamp_ns:
                break
            self.bus.advance_to(max(due_ns, self.now_ns()))
            self._work()
        self.bus.advance_to(max(stamp_ns, self.now_ns()))
        self._work()

    def play(self, recorded: BagMessage) -> None:
        """Advance to the reception of a message, and deliver it to its subscriptions.

        An undecodable message is counted as malformed.
        """
        self.advance_to(recorded.stamp_ns)
        topic, type_name = recorded.topic.name, recorded.topic.type_name
        receivers = [s for s in self.subscriptions if (s.topic, s.type_name) == (topic, type_name)]
        if not receivers:
            return
        try:
            msg = deserialize(recorded.data, type_name)
        except ValueError as error:
            for subscription in receivers:
                subscription.faults["malformed"] += 1
            self.log("error", f"{topic}: {error}", key=topic, every_s=5.0, error=error)
            return
        latched = any(subscription.qos.latched for subscription in receivers)
        self._player_of(topic, type_name, dataclasses.replace(RELIABLE, latched=latched)).publish(msg)
        self._work()

    def _player_of(self, topic: str, type_name: str, qos: Qos) -> Publisher:
        """Publisher of a topic of the bag, visible to the node."""
        key = (topic, type_name)
        if key not in self._played:
            self._played[key] = self._player.create_publisher(topic, type_name, qos)
        return self._played[key]

    def _close(self) -> None:
        self._player.shutdown()
        super()._close()

    def _work(self) -> None:
        while self.spin_once(0):
            pass


class _BagPublisher(Publisher):
    wanted = True

    def __init__(self, transport: BagTransport, topic: str, type_name: str, qos: Qos) -> None:
        super().__init__(topic, type_name, qos)
        self._transport = transport

    def publish(self, msg: Message) -> None:
        if self._transport.is_shutdown:
            return
        data = serialize(msg, self.type_name)
        self.published += 1
        self._transport.passed_on(self, msg, data)

    def subscription_count(self) -> int:
        return self._transport.receivers(self)
