"""Transport within one process, for tests, offline work, and programs of several nodes.

Messages are passed by reference. Matching, queue depths, latching and drops are those of DDS. With a settable clock
(``LocalBus(start_ns=...)``), the same calls give the same callbacks in the same order, every time.

>>> bus = LocalBus(start_ns=0)
>>> talker, listener = LocalTransport("talker", bus), LocalTransport("listener", bus)
>>> publisher = talker.create_publisher("number", "std_msgs/msg/Int32")
>>> subscription = listener.create_subscription("number", "std_msgs/msg/Int32", lambda msg: print(msg.data))
>>> publisher.publish(message("std_msgs/msg/Int32", data=7))
>>> listener.spin_once(0)
7
True
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

from dfs_ros.config import Config
from dfs_ros.messages.definitions import Message, message, message_class, service_parts
from dfs_ros.transport.base import (
    RELIABLE,
    SENSOR_DATA,
    Handler,
    Publisher,
    Qos,
    Subscription,
    Transport,
    when_answered,
)
from dfs_ros.transport.executor import Executor, Mailbox
from dfs_ros.transport.parameter_services import serve_parameters

__all__ = ["LocalBus", "LocalTransport", "message"]


class LocalBus:
    """Bus that connects the nodes of one process, with their clock.

    `start_ns` None: the machine's clock; a number: a clock that stands there until :meth:`advance_to`.
    """

    def __init__(self, start_ns: int | None = None) -> None:
        self.lock = threading.RLock()
        self.publishers: list[_LocalPublisher] = []
        self.subscriptions: list[_LocalSubscription] = []
        self.services: dict[tuple[str, str], Mailbox] = {}
        self.executors: list[Executor] = []
        self._time_ns = start_ns

    def now_ns(self) -> int:
        """Time of all nodes of this bus."""
        return time.time_ns() if self._time_ns is None else self._time_ns

    def steady_ns(self) -> int:
        """Time that is never set, for intervals."""
        return time.monotonic_ns() if self._time_ns is None else self._time_ns

    def advance_to(self, stamp_ns: int) -> None:
        """Set the clock (only with `start_ns`); the next spin makes due timer calls."""
        if self._time_ns is None:
            raise ValueError("this bus runs on the machine's clock; set the time of a LocalBus(start_ns=...)")
        if stamp_ns < self._time_ns:
            raise ValueError(f"stamp_ns: expected {self._time_ns} or later, received {stamp_ns}")
        self._time_ns = stamp_ns
        for executor in tuple(self.executors):
            executor.wake()

    def executor(self) -> Executor:
        """Make an executor on this bus's clock."""
        executor = Executor() if self._time_ns is None else Executor(self.steady_ns, wall_clock=False)
        self.executors.append(executor)
        return executor


class _LocalPublisher(Publisher):
    def __init__(self, bus: LocalBus, topic: str, type_name: str, qos: Qos) -> None:
        super().__init__(topic, type_name, qos)
        self.latched: deque[Message] = deque(maxlen=qos.depth)
        self._bus = bus
        self._class = message_class(type_name)

    def publish(self, msg: Message) -> None:
        if not isinstance(msg, self._class):
            raise ValueError(f"{self.topic}: expected a {self.type_name}, received {type(msg).__name__}")
        with self._bus.lock:
            if self not in self._bus.publishers:
                return
            self.published += 1
            if self.qos.latched:
                self.latched.append(msg)
            for subscription in self._bus.subscriptions:
                if subscription.matches(self):
                    subscription.mailbox.put(msg)

    def subscription_count(self) -> int:
        with self._bus.lock:
            return sum(s.matches(self) for s in self._bus.subscriptions) if self in self._bus.publishers else 0


class _LocalSubscription(Subscription):
    def __init__(
        self, transport: LocalTransport, topic: str, type_name: str, callback: Callable[[Message], None], qos: Qos
    ) -> None:
        super().__init__(topic, type_name, qos, callback)
        self._bus = transport.bus
        self.mailbox = transport.executor.mailbox(
            lambda msg: transport.handle_message(self, msg), qos.depth, self.topic
        )

    @property
    def received(self) -> int:
        return self.mailbox.received

    @property
    def dropped(self) -> int:
        return self.mailbox.dropped

    def matches(self, publisher: _LocalPublisher) -> bool:
        """True if messages of `publisher` arrive here."""
        return (self.topic, self.type_name) == (publisher.topic, publisher.type_name) and publisher.qos.offers(self.qos)

    def publisher_count(self) -> int:
        with self._bus.lock:
            return sum(map(self.matches, self._bus.publishers)) if self in self._bus.subscriptions else 0

    def close(self) -> None:
        with self._bus.lock:
            if self in self._bus.subscriptions:
                self._bus.subscriptions.remove(self)
        self.mailbox.close()


class LocalTransport(Transport):
    """Node on a :class:`LocalBus`."""

    def __init__(
        self,
        node_name: str,
        bus: LocalBus | None = None,
        *,
        namespace: str = "/",
        remappings: Mapping[str, str] | None = None,
        config: Config | None = None,
    ) -> None:
        super().__init__(node_name, namespace=namespace, remappings=remappings, config=config)
        self.bus = bus or LocalBus()
        self.executor = self.bus.executor()
        self.executor.guard = self.guard
        self._services: list[tuple[tuple[str, str], Mailbox]] = []
        serve_parameters(self)

    def create_publisher(self, topic: str, type_name: str, qos: Qos = RELIABLE) -> Publisher:
        publisher = _LocalPublisher(self.bus, self.resolve(topic), type_name, qos)
        with self.bus.lock:
            self.bus.publishers.append(publisher)
            self._warn_of_mismatch([(publisher, s) for s in self.bus.subscriptions])
        self.publishers.append(publisher)
        return publisher

    def create_subscription(
        self, topic: str, type_name: str, callback: Callable[[Message], None], qos: Qos = SENSOR_DATA
    ) -> Subscription:
        subscription = _LocalSubscription(self, self.resolve(topic), type_name, callback, qos)
        with self.bus.lock:
            self.bus.subscriptions.append(subscription)
            self._warn_of_mismatch([(p, subscription) for p in self.bus.publishers])
            for publisher in self.bus.publishers:
                if qos.latched and subscription.matches(publisher):
                    for msg in publisher.latched:
                        subscription.mailbox.put(msg)
        self.subscriptions.append(subscription)
        return subscription

    def create_service(self, name: str, service_type: str, callback: Handler) -> None:
        service_parts(service_type)  # checks the type
        key = (self.resolve(name), service_type)

        def answer(request_and_reply: tuple[Message, deque[Message], threading.Event]) -> None:
            request, replies, answered = request_and_reply

            def reply(response: Message) -> None:
                replies.append(response)
                answered.set()

            when_answered(callback(request), reply)

        mailbox = self.executor.mailbox(answer, None, f"service {key[0]}")
        with self.bus.lock:
            if key in self.bus.services:
                raise ValueError(f"service {key[0]}: there is one already")
            self.bus.services[key] = mailbox
        self._services.append((key, mailbox))

    def call_service(self, name: str, service_type: str, request: Message, timeout_s: float) -> Message:
        deadline = time.monotonic() + timeout_s
        key = (self.resolve(name), service_type)
        while (server := self.bus.services.get(key)) is None:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"service {key[0]}: nobody serves it")
            time.sleep(0.01)
        reply: deque[Message] = deque()
        answered = threading.Event()
        server.put((request, reply, answered))
        if not answered.wait(max(0.0, deadline - time.monotonic())):
            raise TimeoutError(f"service {key[0]}: no answer within {timeout_s:g} s")
        return reply[0]

    def now_ns(self) -> int:
        return self.bus.now_ns()

    def steady_ns(self) -> int:
        return self.bus.steady_ns()

    def _close(self) -> None:
        for subscription in self.subscriptions:
            subscription.close()
        with self.bus.lock:
            self.bus.publishers = [p for p in self.bus.publishers if p not in self.publishers]
            for key, mailbox in self._services:
                if self.bus.services.get(key) is mailbox:
                    del self.bus.services[key]
            if self.executor in self.bus.executors:
                self.bus.executors.remove(self.executor)

    def _warn_of_mismatch(self, pairs: list[tuple[_LocalPublisher, _LocalSubscription]]) -> None:
        for publisher, subscription in pairs:
            if publisher.topic == subscription.topic and not subscription.matches(publisher):
                self.log(
                    "warning",
                    f"{publisher.topic}: no messages will pass from {publisher.type_name}, {publisher.qos} "
                    f"to {subscription.type_name}, {subscription.qos}",
                )
