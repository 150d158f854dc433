"""A node on a recorded bag: what it subscribes to comes from the bag, what it publishes goes into another.

The clock is the bag's: it stands while the node works and moves on to the time at which the next message was
received, by way of every timer that falls due until then. Nothing depends on the machine's speed; the same bag gives
the same calls in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dfs_ros.config import Config
from dfs_ros.messages.definitions import Message, deserialize, serialize
from dfs_ros.transport.bag.files import BagMessage, BagWriter
from dfs_ros.transport.base import RELIABLE, Publisher, Qos
from dfs_ros.transport.local import LocalBus, LocalTransport

# In a longer silence timers are not called one by one: a clock that jumps by years must not take hours.
_MOST_TIMER_CALLS = 1000


class BagTransport(LocalTransport):
    """See the head of this module.

    Parameters
    ----------
    writer
        Where published messages go; None = nowhere.
    start_ns
        The time at first.
    recorded
        Asked for each topic whether it is recorded; what is not, nobody subscribes to.
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
        """Have `callback(msg)` called with what the node publishes on an absolute topic, recorded or not."""
        self._watchers[topic] = callback

    def create_publisher(self, topic: str, type_name: str, qos: Qos = RELIABLE) -> Publisher:
        publisher = _BagPublisher(self, self.resolve(topic), type_name, qos)
        publisher.wanted = self._recorded(publisher.topic)
        if self.writer is not None and publisher.wanted:
            self.writer.announce(publisher.topic, type_name, qos)
        self.publishers.append(publisher)
        return publisher

    def passed_on(self, publisher: _BagPublisher, msg: Message, data: bytearray) -> None:
        """What a publisher of this node has sent."""
        if publisher.topic in self._watchers:
            self._watchers[publisher.topic](msg)
        if self.writer is not None and publisher.wanted:
            self.writer.write(publisher.topic, publisher.type_name, self.now_ns(), data)

    def receivers(self, publisher: _BagPublisher) -> int:
        """How many take what a publisher of this node sends."""
        return int(publisher.wanted) + (publisher.topic in self._watchers)

    def advance_to(self, stamp_ns: int) -> None:
        """Let time pass, and the node do what falls due. A time in the past is now: time never goes back."""
        for _ in range(_MOST_TIMER_CALLS):
            due_ns = self.executor.next_timer_ns()
            if due_ns is None or due_ns > stamp_ns:
                break
            self.bus.advance_to(max(due_ns, self.now_ns()))
            self._work()
        self.bus.advance_to(max(stamp_ns, self.now_ns()))
        self._work()

    def play(self, recorded: BagMessage) -> None:
        """Let time pass until a message was received, and give it to the subscriptions of its topic and type.

        A message that cannot be decoded is counted as malformed.
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
                subscription.malformed += 1
            self.log("error", f"{topic}: {error}", key=topic, every_s=5.0)
            return
        self._player_of(topic, type_name).publish(msg)
        self._work()

    def _player_of(self, topic: str, type_name: str) -> Publisher:
        """Who publishes a topic of the bag, so that the node sees a publisher."""
        key = (topic, type_name)
        if key not in self._played:
            self._played[key] = self._player.create_publisher(topic, type_name)
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
