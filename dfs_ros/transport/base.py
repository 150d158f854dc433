"""Interface of a node to any transport: topics, timers, services, parameters, log, diagnostics.

    def main() -> None:
        with open_transport("auto", "blink") as transport:
            lamp = transport.create_publisher("lamp", "std_msgs/msg/Bool", RELIABLE)
            transport.create_timer(0.5, lambda: lamp.publish(message("std_msgs/msg/Bool", data=True)))
            transport.create_subscription("image", IMAGE, lambda msg: transport.log("info", msg.encoding), SENSOR_DATA)
            transport.spin()

Threads: the thread that calls :meth:`Transport.spin` or :meth:`Transport.spin_once` makes every callback (message,
timer, service, diagnostic), never two at once. `publish`, `log`, `call_soon`, `call_service`,
`parameters.set` and `shutdown` may be called from any thread.

Messages are instances of the classes of :mod:`dfs_ros.messages.definitions`, in every transport. Publishers and
receivers must not write to them: within one process they may be shared.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, TypeVar

from dfs_ros.config import Config
from dfs_ros.messages.convert import DIAGNOSTICS, Diagnostic, diagnostics_message
from dfs_ros.messages.definitions import Message, check_type
from dfs_ros.system.printable import printable
from dfs_ros.system.tracebacks import traceback_of
from dfs_ros.transport.counts import TopicsDiagnostic
from dfs_ros.transport.executor import Executor
from dfs_ros.transport.guard import Guard
from dfs_ros.transport.names import check_namespace, check_node_name, resolve_name
from dfs_ros.transport.parameters import Parameters

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
}


Handler = Callable[[Message], "Message | Future[Message]"]
"""Function that answers requests of a service."""

_Self = TypeVar("_Self", bound="Transport")
_CALLBACKS_TIMED = 1000
_KEYS_KEPT = 1000


class TransportError(ConnectionError):
    """Failure to open or use a transport, with reason and remedy."""


class DeviceLost(OSError):
    """Loss of a device at work: the node ends with status 1, and starting it again may help."""


@dataclass(frozen=True)
class Qos:
    """Quality of service of a topic.

    `reliable`: messages are repeated until they arrive, else sent once. `depth`: length of a slow receiver's queue;
    older messages are dropped. `latched` (ROS: transient local): later subscriptions get the last `depth` messages,
    too. A reliable subscription does not match a best-effort publisher, nor a latched one a publisher that is not.
    """

    reliable: bool
    depth: int
    latched: bool = False

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ValueError(f"qos.depth: expected 1 or more, received {self.depth}")

    def offers(self, requested: Qos) -> bool:
        """True if a publisher of this profile matches a subscription of profile `requested`."""
        return (self.reliable or not requested.reliable) and (self.latched or not requested.latched)


SENSOR_DATA = Qos(reliable=False, depth=5)
"""Profile of inputs: matches every publisher."""
RELIABLE = Qos(reliable=True, depth=5)
"""Profile of outputs: matches every subscription but latched ones, so both kinds of RViz's."""
LATCHED = Qos(reliable=True, depth=1, latched=True)
"""Profile of topics that are published once."""


class Publisher(ABC):
    """Outgoing topic, with counts of `published` and `dropped` (not sent) messages.

    Publishing does not wait for slow subscribers: messages they miss are dropped on their side.
    """

    def __init__(self, topic: str, type_name: str, qos: Qos) -> None:
        self.topic = topic
        self.type_name = check_type(type_name)
        self.qos = qos
        self.published = 0
        self.dropped = 0

    @abstractmethod
    def publish(self, msg: Message) -> None:
        """Send a message, from any thread; after the transport's shutdown, do nothing.

        Raises ValueError for a message of another type or a value that does not fit its field.
        """

    @abstractmethod
    def subscription_count(self) -> int:
        """Number of subscriptions that receive this; without any, its computation can be skipped."""


class Subscription(ABC):
    """Incoming topic, with its counts.

    `received`: messages that arrived; `dropped`: displaced by newer ones while the node was busy, or lost by the
    network. `faults` counts messages dropped by the :class:`~dfs_ros.transport.guard.Guard`, by cause: `malformed`, not
    decodable; `too_large`; `refused` by the callback with a ValueError; `failed`, any other exception of the callback.
    """

    def __init__(self, topic: str, type_name: str, qos: Qos, callback: Callable[[Message], None]) -> None:
        self.topic = topic
        self.type_name = check_type(type_name)
        self.qos = qos
        self.callback = callback
        self.faults: Counter[str] = Counter()
        self.callback_seconds: deque[tuple[float, float]] = deque(maxlen=_CALLBACKS_TIMED)
        """Wall time and processor time of the last callbacks, in seconds."""

    @property
    @abstractmethod
    def received(self) -> int:
        """Messages that arrived."""

    @property
    @abstractmethod
    def dropped(self) -> int:
        """Messages displaced by newer ones, or lost by the network as far as the middleware knows."""

    @abstractmethod
    def publisher_count(self) -> int:
        """Number of publishers that this receives from."""

    @abstractmethod
    def close(self) -> None:
        """Stop receiving."""


def when_answered(answer: Message | Future[Message], reply: Callable[[Message], None]) -> None:
    """Call `reply(response)` when a :data:`Handler` has its answer, from the thread that gives it."""
    if not isinstance(answer, Future):
        reply(answer)
        return

    def pass_on(done: Future[Message]) -> None:
        if not done.cancelled():
            reply(done.result())

    answer.add_done_callback(pass_on)


class Timer(Protocol):
    """Timer of :meth:`Transport.create_timer`."""

    def cancel(self) -> None:
        """Stop the calls."""


class Managed(Protocol):
    """Work of a node, which follows its lifecycle, see :meth:`Transport.manage`."""

    def configure(self) -> None:
        """Prepare; may take minutes, on another thread than the one that spins.

        Raises ValueError or OSError on failure.
        """

    def activate(self) -> None:
        """Start; returns at once."""

    def deactivate(self) -> None:
        """Pause inputs and outputs."""

    def close(self) -> None:
        """Deactivate, and release the resources of :meth:`configure`."""


class Transport(ABC):
    """Connection of a node, see the head of this module.

    Parameters
    ----------
    node_name, namespace
        Base of relative names (`image` -> `/namespace/image`) and private ones (`~/capture` ->
        `/namespace/node/capture`).
    remappings
        Names in the node's code -> other names, see :func:`dfs_ros.transport.names.resolve_name`.
    config
        The node's parameters.
    """

    repeatable = False
    """True if outputs must be the same in every run: measured times are then left out."""

    def __init__(
        self,
        node_name: str,
        *,
        namespace: str = "/",
        remappings: Mapping[str, str] | None = None,
        config: Config | None = None,
    ) -> None:
        self.guard = Guard(self.log)
        self.executor = Executor()
        self.executor.guard = self.guard
        self.node_name = check_node_name(node_name)
        self.namespace = check_namespace(namespace)
        self.remappings = dict(remappings or {})
        self.parameters = Parameters(config or Config())
        self.publishers: list[Publisher] = []
        self.subscriptions: list[Subscription] = []
        self._diagnostics: dict[str, Callable[[], Diagnostic]] = {}
        self._logger = logging.getLogger(f"dfs_ros.{node_name}")
        self._logged_at: dict[str, float] = {}
        self._closing = threading.RLock()  # a signal may interrupt a shutdown by another one
        self._is_shutdown = False

    @abstractmethod
    def create_publisher(self, topic: str, type_name: str, qos: Qos = RELIABLE) -> Publisher:
        """Announce a topic of type `type_name` (`sensor_msgs/msg/Image`)."""

    @abstractmethod
    def create_subscription(
        self, topic: str, type_name: str, callback: Callable[[Message], None], qos: Qos = SENSOR_DATA
    ) -> Subscription:
        """Call `callback(msg)` for each message of a topic.

        An exception of the callback drops the message: :attr:`guard` counts and logs it, and the node continues.
        """

    def create_timer(self, period_s: float, callback: Callable[[], None]) -> Timer:
        """Call `callback()` every `period_s` of this transport's clock."""
        if not period_s > 0:
            raise ValueError(f"period_s: expected over 0, received {period_s}")
        return self.executor.timer(round(period_s * 1e9), callback)

    @abstractmethod
    def create_service(self, name: str, service_type: str, callback: Handler) -> None:
        """Answer a service (`std_srvs/srv/Trigger`) by `callback(request) -> response`.

        A callback that cannot answer at once returns a Future of the response, and the node continues.
        """

    @abstractmethod
    def call_service(self, name: str, service_type: str, request: Message, timeout_s: float) -> Message:
        """Call a service and wait for its answer, from another thread than the one that answers.

        Raises TimeoutError without an answer within `timeout_s`.
        """

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call `callback()` on the thread that spins."""
        self.executor.call_soon(callback)

    def end(self, error: BaseException) -> None:
        """Make :meth:`spin` raise an exception, from any thread: for faults that the node must not survive."""
        self.executor.end(error)

    @abstractmethod
    def now_ns(self) -> int:
        """Time of the stamps: nanoseconds since 1970, or a bag's time. It may be set forward and back."""

    def steady_ns(self) -> int:
        """Time for intervals, which is never set: since the start of the machine, or a bag's time."""
        return time.monotonic_ns()

    def spin_once(self, timeout_s: float | None = None) -> bool:
        """Make the next callback, after a wait of up to `timeout_s` (None: for ever).

        Returns False without a callback.
        """
        return self.executor.run_once(timeout_s)

    def shutdown(self) -> None:
        """Close the connection: :meth:`spin` returns, sending and callbacks end. May be repeated."""
        with self._closing:  # a second caller waits for the end
            if not self._is_shutdown:
                self._is_shutdown = True
                self.executor.stop()
                self._close()

    @abstractmethod
    def _close(self) -> None:
        """Release the transport's resources, after the executor has stopped; called once."""

    @property
    def is_shutdown(self) -> bool:
        """True after :meth:`shutdown`."""
        return self._is_shutdown

    def unsubscribe(self, subscription: Subscription) -> None:
        """Close a subscription of this node and forget its counts."""
        subscription.close()
        if subscription in self.subscriptions:
            self.subscriptions.remove(subscription)

    def manage(self, managed: Managed) -> None:
        """Start the node's work.

        A native ROS 2 node gets a lifecycle (`ros2 lifecycle`), which `managed` follows; other transports activate it
        at once.
        """
        managed.activate()

    def spin(self) -> None:
        """Make callbacks until :meth:`shutdown`."""
        while not self.is_shutdown:
            self.spin_once(None)

    def resolve(self, name: str) -> str:
        """Resolve a relative (`image`), private (`~/capture`) or absolute name, with remapping."""
        return resolve_name(name, self.node_name, self.namespace, self.remappings)

    @property
    def full_name(self) -> str:
        """Name of the node with its namespace: `/robot/dfs`."""
        return self.namespace.rstrip("/") + "/" + self.node_name

    def log(
        self, level: str, text: str, *, key: str = "", every_s: float = 0.0, error: BaseException | None = None
    ) -> None:
        """Log a line; lines of one `key` at most once in `every_s`.

        `level`: debug, info, warning, error or fatal. Control characters in `text` are escaped. The traceback of
        `error` follows at level debug.
        """
        if level not in _LEVELS:
            raise ValueError(f"level: expected one of {', '.join(_LEVELS)}, received {level!r}")
        if every_s:
            now = time.monotonic()
            if now - self._logged_at.get(key or text, -every_s) < every_s:
                return
            if len(self._logged_at) >= _KEYS_KEPT:
                self._logged_at.clear()
            self._logged_at[key or text] = now
        self._write_log(level, printable(text))
        if error is not None:
            self._write_log("debug", "\n".join(map(printable, traceback_of(error).splitlines())))

    def _write_log(self, level: str, text: str) -> None:
        """Write a line to Python's log; some transports publish it, too."""
        self._logger.log(_LEVELS[level], "%s", text)

    def add_diagnostic(self, name: str, callback: Callable[[], Diagnostic]) -> None:
        """Publish the result of `callback()`, with the transport's counts, on `/diagnostics` every second.

        Its status is `dfs: NAME`, in a namespace `left/dfs: NAME`, for all nodes share the topic.
        """
        if not self._diagnostics:
            publisher = self.create_publisher("/diagnostics", DIAGNOSTICS)
            self._diagnostics["transport"] = TopicsDiagnostic(self)
            self.create_timer(1.0, lambda: self._publish_diagnostics(publisher))
        self._diagnostics[name] = callback

    def _publish_diagnostics(self, publisher: Publisher) -> None:
        if not publisher.subscription_count():
            return
        diagnostics = {}
        for name, callback in self._diagnostics.items():
            with self.guard(f"diagnostic {name}"):
                diagnostics[f"{self.full_name[1:]}: {name}"] = callback()
        publisher.publish(diagnostics_message(diagnostics, self.now_ns(), self.full_name))

    def handle_message(self, subscription: Subscription, msg: Message) -> None:
        """Call a subscription's callback; for transports, not for nodes."""
        began, cpu_began = time.perf_counter(), time.thread_time()
        with self.guard(subscription.topic, subscription.faults):
            subscription.callback(msg)
        subscription.callback_seconds.append((time.perf_counter() - began, time.thread_time() - cpu_began))

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown()
