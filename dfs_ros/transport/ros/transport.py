"""Native ROS 2: rclpy node whose callbacks run on the one thread that spins.

A thread pool of rclpy takes messages, as CDR, into bounded queues, where newer ones displace older ones; it serves
parameters, time and lifecycle even while the spinning thread is busy. Messages are the classes of
:mod:`dfs_ros.messages.definitions`: rclpy's own take a second for a large image.

Every topic has parameters `qos_overrides.TOPIC...`. `use_sim_time` takes stamps, and timers made later, from `/clock`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import Any, TypeVar

from dfs_ros.config import Config
from dfs_ros.messages.definitions import Message, message_class, serialize
from dfs_ros.transport.base import (
    RELIABLE,
    SENSOR_DATA,
    Handler,
    Managed,
    Publisher,
    Qos,
    Subscription,
    Timer,
    Transport,
    TransportError,
    when_answered,
)
from dfs_ros.transport.cdr import CdrSubscription
from dfs_ros.transport.ros.lifecycle import Lifecycle
from dfs_ros.transport.ros.native import (
    check_service,
    config_of_node,
    declare_parameters,
    from_native,
    native_class,
    native_qos,
    open_context,
    open_node,
    qos_of,
    qos_overrides,
    to_native,
)

_Result = TypeVar("_Result")
_THREADS = 3  # one may be in a lifecycle transition for minutes
_STOP_CHECK_S = 0.1


class _RosPublisher(Publisher):
    def __init__(self, transport: RosTransport, topic: str, type_name: str, qos: Qos) -> None:
        super().__init__(transport.resolve(topic), type_name, qos)
        self._transport = transport
        self._class = message_class(type_name)
        kind, profile, node = native_class(type_name), native_qos(qos), transport.native_node
        with _refusals(topic):
            self.native: Any = node.create_publisher(kind, topic, profile, qos_overriding_options=qos_overrides())
            self.qos = qos_of(self.native.qos_profile)

    def publish(self, msg: Message) -> None:
        if not isinstance(msg, self._class):
            raise ValueError(f"{self.topic}: expected a {self.type_name}, received {type(msg).__name__}")
        if self._transport.is_shutdown or not (self.qos.latched or self.subscription_count()):
            return  # no subscription: not serialised
        cdr = bytes(serialize(msg, self.type_name))
        try:
            self.native.publish(cdr)
            self.published += 1
        except Exception as error:
            if not self._transport.is_shutdown:
                self.dropped += 1
                self._transport.log(
                    "error", f"{self.topic}: not sent: {error}", key=self.topic, every_s=5.0, error=error
                )

    def subscription_count(self) -> int:
        return int(_unless_destroyed(self.native.get_subscription_count))


class _RosSubscription(CdrSubscription):
    _transport: RosTransport

    def __init__(
        self, transport: RosTransport, topic: str, type_name: str, callback: Callable[[Message], None], qos: Qos
    ) -> None:
        super().__init__(transport, transport.resolve(topic), type_name, callback, qos)
        self._lost = 0
        with _refusals(topic):
            self.native: Any = self._subscribe(topic, native_class(type_name), native_qos(qos))
            self.qos = qos_of(self.native.qos_profile)
        self.mailbox.depth = self.qos.depth

    def _subscribe(self, topic: str, kind: Any, profile: Any) -> Any:
        from rclpy.callback_groups import MutuallyExclusiveCallbackGroup

        try:
            from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
        except ImportError:  # up to Humble
            from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError

        def subscribe(events: Any) -> Any:
            return self._transport.native_node.create_subscription(
                kind,
                topic,
                self.mailbox.put,
                profile,
                callback_group=MutuallyExclusiveCallbackGroup(),
                event_callbacks=events,
                qos_overriding_options=qos_overrides(),
                raw=True,
            )

        try:
            return subscribe(SubscriptionEventCallbacks(message_lost=self._count_lost))
        except UnsupportedEventTypeError:  # not every middleware counts losses
            return subscribe(SubscriptionEventCallbacks())

    def _count_lost(self, event: Any) -> None:
        self._lost = int(event.total_count)

    def lost(self) -> int:
        return self._lost

    def publisher_count(self) -> int:
        if hasattr(self.native, "get_publisher_count"):
            return int(_unless_destroyed(self.native.get_publisher_count))
        # Up to Humble: publishers of a QoS that does not match count, too.
        return int(_unless_destroyed(lambda: self._transport.native_node.count_publishers(self.topic)))

    def close(self) -> None:
        self.mailbox.close()
        self._transport.native_node.destroy_subscription(self.native)


class _SimulationTimer:
    """rclpy timer on /clock; each call costs 1 ms."""

    def __init__(self, transport: RosTransport, period_s: float, callback: Callable[[], None]) -> None:
        from rclpy.callback_groups import MutuallyExclusiveCallbackGroup

        self._node = transport.native_node
        # Depth 1: calls missed by a busy thread are skipped.
        self._mailbox = transport.executor.mailbox(lambda _: callback(), 1, f"timer of {period_s:g} s")
        group = MutuallyExclusiveCallbackGroup()
        self._timer = self._node.create_timer(period_s, lambda: self._mailbox.put(None), callback_group=group)

    def cancel(self) -> None:
        """Stop the calls."""
        self._mailbox.close()
        self._node.destroy_timer(self._timer)


class RosTransport(Transport):
    """Node of rclpy, in its own context.

    Parameters
    ----------
    arguments
        Command line with `--ros-args`, which may rename the node, remap topics and set parameters.

    Raises ValueError for invalid arguments and parameters, TransportError if ROS 2 cannot be used.
    """

    def __init__(
        self,
        node_name: str,
        *,
        namespace: str = "/",
        remappings: Mapping[str, str] | None = None,
        config: Config | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        self._clients: dict[tuple[str, str], Any] = {}
        self._lifecycle: Lifecycle | None = None
        self._context = open_context(arguments, (config or Config()).dds)
        try:
            self.native_node: Any = open_node(self._context, node_name, namespace, remappings or {})
            node = self.native_node
            super().__init__(
                node.get_name(),
                namespace=node.get_namespace(),
                remappings=remappings,
                config=config_of_node(node, config or Config()),
            )
            declare_parameters(node, self.parameters)
            self._start_receiving()
        except BaseException:
            self._context.try_shutdown()
            raise

    def _start_receiving(self) -> None:
        from rclpy.clock import JumpThreshold
        from rclpy.duration import Duration
        from rclpy.executors import MultiThreadedExecutor

        self._native_executor: Any = MultiThreadedExecutor(_THREADS, context=self._context)
        self._native_executor.add_node(self.native_node)
        backwards = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False)
        self._jumps = self.native_node.get_clock().create_jump_callback(backwards, post_callback=self._clock_jumped)
        self._thread = threading.Thread(target=self._receive, name=f"{self.node_name} rclpy", daemon=True)
        self._thread.start()

    def _receive(self) -> None:
        """Loop of the thread that waits for rclpy's callbacks and gives them to the pool."""
        from rclpy.exceptions import InvalidHandle

        while not self._is_shutdown and self._context.ok():
            with self.guard("rclpy"), _silent_after(lambda: self._is_shutdown):
                try:
                    self._native_executor.spin_once()
                except InvalidHandle as error:
                    # Another thread destroyed a subscription that the executor was about to wait for.
                    self.log("debug", f"rclpy: {error}", error=error)
        if not self._is_shutdown:  # the context was shut down from outside
            self.call_soon(self.shutdown)

    def _clock_jumped(self, jump: Any) -> None:
        self.log("warning", f"the clock was set back by {-jump.delta.nanoseconds * 1e-9:.3f} s")

    def wake(self) -> None:
        """Make rclpy notice entities that were added to the node directly."""
        self._native_executor.wake()

    def create_publisher(self, topic: str, type_name: str, qos: Qos = RELIABLE) -> Publisher:
        publisher = _RosPublisher(self, topic, type_name, qos)
        self.publishers.append(publisher)
        return publisher

    def create_subscription(
        self, topic: str, type_name: str, callback: Callable[[Message], None], qos: Qos = SENSOR_DATA
    ) -> Subscription:
        subscription = _RosSubscription(self, topic, type_name, callback, qos)
        self.subscriptions.append(subscription)
        return subscription

    def create_timer(self, period_s: float, callback: Callable[[], None]) -> Timer:
        if period_s > 0 and self.native_node.get_clock().ros_time_is_active:
            return _SimulationTimer(self, period_s, callback)
        return super().create_timer(period_s, callback)

    def create_service(self, name: str, service_type: str, callback: Handler) -> None:
        from rclpy.callback_groups import MutuallyExclusiveCallbackGroup

        request_type, response_type = check_service(service_type)
        kind = native_class(service_type)

        def answer(request: Any, response: Any) -> Any:
            asked = from_native(request, request_type)
            return to_native(self.run_in_spin(lambda: callback(asked)), response_type, kind.Response)

        self.native_node.create_service(kind, name, answer, callback_group=MutuallyExclusiveCallbackGroup())

    def call_service(self, name: str, service_type: str, request: Message, timeout_s: float) -> Message:
        request_type, response_type = check_service(service_type)
        kind = native_class(service_type)
        key = (self.resolve(name), service_type)
        if key not in self._clients:
            self._clients[key] = self.native_node.create_client(kind, name)
        client = self._clients[key]
        if not client.wait_for_service(timeout_s):
            raise TimeoutError(f"service {key[0]}: nobody serves it")
        answered = threading.Event()
        future = client.call_async(to_native(request, request_type, kind.Request))
        future.add_done_callback(lambda _: answered.set())
        if not answered.wait(timeout_s):
            client.remove_pending_request(future)
            raise TimeoutError(f"service {key[0]}: no answer within {timeout_s:g} s")
        return from_native(future.result(), response_type)

    def manage(self, managed: Managed) -> None:
        """Give the node a lifecycle for `managed`; see :mod:`dfs_ros.transport.ros.lifecycle`."""
        self._lifecycle = Lifecycle(self, managed)

    def now_ns(self) -> int:
        return int(self.native_node.get_clock().now().nanoseconds)

    def resolve(self, name: str) -> str:
        return str(self.native_node.resolve_topic_name(name))

    def _close(self) -> None:
        if self._lifecycle is not None:
            with self.guard("bond"):
                self._lifecycle.end_bond()
        self._native_executor.create_task(lambda: None)  # wakes the thread, so that it ends
        self._thread.join()
        # Running callbacks end before their resources are gone; rclpy's own shutdown does not wait up to Jazzy.
        self._native_executor._executor.shutdown(wait=True)
        self._native_executor.shutdown()
        self._jumps.unregister()
        self.native_node.destroy_node()
        self._context.try_shutdown()
        self._context.destroy()

    def _write_log(self, level: str, text: str) -> None:
        if self._is_shutdown:
            super()._write_log(level, text)
            return
        # A branch for each: rclpy refuses two levels from one place.
        logger = self.native_node.get_logger()
        if level == "debug":
            logger.debug(text)
        elif level == "info":
            logger.info(text)
        elif level == "warning":
            logger.warning(text)
        elif level == "error":
            logger.error(text)
        else:
            logger.fatal(text)

    # For threads of rclpy, which must not be held by work that never ends:

    def run_in_spin(self, work: Callable[[], _Result | Future[_Result]]) -> _Result:
        """Do work on the thread that spins; return its result or raise its exception."""
        done: Future[_Result] = Future()

        def run() -> None:
            try:
                when_answered(work(), done.set_result)
            except Exception as error:
                done.set_exception(error)

        self.call_soon(run)
        return self._outcome(done)

    def run_apart(self, work: Callable[[], _Result]) -> _Result:
        """Do long work on a daemon thread; return its result or raise its exception."""
        done: Future[_Result] = Future()

        def run() -> None:
            try:
                done.set_result(work())
            except Exception as error:
                done.set_exception(error)

        threading.Thread(target=run, name=f"{self.node_name} at work", daemon=True).start()
        return self._outcome(done)

    def _outcome(self, done: Future[_Result]) -> _Result:
        while not self._is_shutdown:
            if wait([done], _STOP_CHECK_S).done:
                return done.result()
        raise TransportError("the node was shut down")


@contextmanager
def _refusals(topic: str) -> Iterator[None]:
    """Turn rclpy's refusal of a name or a QoS override into ValueError."""
    try:
        yield
    except TransportError:
        raise
    except Exception as error:
        raise ValueError(f"topic {topic}: {error}") from error


@contextmanager
def _silent_after(ended: Callable[[], bool]) -> Iterator[None]:
    """Ignore exceptions of callbacks whose node has ended."""
    try:
        yield
    except Exception:
        if not ended():
            raise


def _unless_destroyed(count: Callable[[], int]) -> int:
    from rclpy.exceptions import InvalidHandle

    try:
        return count()
    except InvalidHandle:
        return 0
