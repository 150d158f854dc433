"""ROS 2 participant without ROS 2: DDS by the package cyclonedds, CDR by rosbags.

`ros2 node list`, `topic echo`, `topic hz`, `service call` and `param` see a ROS 2 node: topic and type names, type
hashes, `ros_discovery_info` and services are those of rmw_cyclonedds. A thread of the transport receives; the thread
that spins makes callbacks. See :mod:`dfs_ros.transport.dds.domain` for discovery.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from dfs_ros.config import Config
from dfs_ros.messages.definitions import (
    Message,
    message,
    message_class,
    serialize,
    service_parts,
    time_message,
)
from dfs_ros.transport.base import (
    RELIABLE,
    SENSOR_DATA,
    Handler,
    Publisher,
    Qos,
    Subscription,
    Transport,
    TransportError,
)
from dfs_ros.transport.cdr import CdrSubscription
from dfs_ros.transport.dds.domain import (
    MAX_PARTICIPANT_INDEX,
    SharedDomain,
    discovery,
)
from dfs_ros.transport.dds.services import ServiceClient, ServiceServer
from dfs_ros.transport.dds.types import dds_qos, idl_type, topic_name
from dfs_ros.transport.dds.wire import (
    Receiver,
    endpoint_id,
    incompatible_qos,
    require_cyclonedds,
    write,
)
from dfs_ros.transport.parameter_services import serve_parameters

DISCOVERY_INFO = "rmw_dds_common/msg/ParticipantEntitiesInfo"
_LOG = "rcl_interfaces/msg/Log"
_LOG_QOS = Qos(reliable=True, depth=100, latched=True)
_HOUSEKEEPING_S = 1.0


class _DdsPublisher(Publisher):
    def __init__(self, transport: DdsTransport, topic: str, type_name: str, qos: Qos) -> None:
        super().__init__(topic, type_name, qos)
        self._transport = transport
        self._class = message_class(type_name)
        self.writer: Any = transport.make_writer(topic_name(topic), type_name, qos)

    def publish(self, msg: Message) -> None:
        writer = self.writer
        if not isinstance(msg, self._class):
            raise ValueError(f"{self.topic}: expected a {self.type_name}, received {type(msg).__name__}")
        if writer is None:
            return
        if not (self.qos.latched or self.subscription_count()):
            return  # no subscription: not serialised
        code = write(writer, serialize(msg, self.type_name))
        if code == 0:
            self.published += 1
        elif self.writer is not None:
            self.dropped += 1
            self._transport.log("error", f"{self.topic}: not sent, DDS error {code}", key=self.topic, every_s=5.0)

    def subscription_count(self) -> int:
        writer = self.writer
        return len(writer.get_matched_subscriptions()) if writer is not None else 0


class _DdsSubscription(CdrSubscription):
    _transport: DdsTransport

    def __init__(
        self, transport: DdsTransport, topic: str, type_name: str, callback: Callable[[Message], None], qos: Qos
    ) -> None:
        super().__init__(transport, topic, type_name, callback, qos)
        self.receiver: Receiver | None = transport.make_receiver(
            topic_name(topic), type_name, qos, lambda cdr, info: self.mailbox.put(cdr)
        )

    def lost(self) -> int:
        receiver = self.receiver
        return receiver.lost() if receiver else 0

    def publisher_count(self) -> int:
        receiver = self.receiver
        return len(receiver.reader.get_matched_publications()) if receiver else 0

    def close(self) -> None:
        self.mailbox.close()
        receiver, self.receiver = self.receiver, None
        if receiver is not None:
            self._transport.drop_receiver(receiver)


class DdsTransport(Transport):
    """Node on DDS; settings in section `dds` of the configuration.

    Raises TransportError if cyclonedds is missing or DDS cannot be opened.
    """

    def __init__(
        self,
        node_name: str,
        *,
        namespace: str = "/",
        remappings: Mapping[str, str] | None = None,
        config: Config | None = None,
    ) -> None:
        super().__init__(node_name, namespace=namespace, remappings=remappings, config=config)
        require_cyclonedds()
        from cyclonedds.core import GuardCondition, WaitSet
        from cyclonedds.util import duration

        self._lock = threading.RLock()
        self._topics: dict[str, Any] = {}
        self._writers: list[Any] = []
        self._receivers: list[Receiver] = []
        self._servers: list[ServiceServer] = []
        self._clients: dict[tuple[str, str], ServiceClient] = {}
        self._endpoint_numbers = itertools.count(1)
        self._domain = SharedDomain.acquire(self.parameters.config.dds)
        try:
            self._participant: Any = _make_participant(self._domain.number)
        except BaseException:
            self._domain.release()
            raise
        self._waitset: Any = WaitSet(self._participant)
        self._wake_up: Any = GuardCondition(self._participant)
        self._waitset.attach(self._wake_up)
        self._wait_ns = duration(seconds=_HOUSEKEEPING_S)
        self._announce: Any = None
        # The announcer does not list itself, as in rmw_cyclonedds.
        announcer = self.make_writer("ros_discovery_info", DISCOVERY_INFO, Qos(reliable=True, depth=1, latched=True))
        with self._lock:
            self._writers.remove(announcer)
            self._announce = announcer
        self._log_publisher = _DdsPublisher(self, "/rosout", _LOG, _LOG_QOS)
        self._tell_of_other_hosts()
        serve_parameters(self)
        self._thread = threading.Thread(target=self._receive, name=f"{node_name} dds", daemon=True)
        self._thread.start()

    def _tell_of_other_hosts(self) -> None:
        settings = self.parameters.config.dds
        if excluded := discovery(settings).excluded:
            self.log(
                "warning",
                f"hosts {', '.join(excluded)} of dds.static_peers and ROS_STATIC_PEERS are not contacted, for "
                "ROS_LOCALHOST_ONLY is 1; unset it, and use ROS_AUTOMATIC_DISCOVERY_RANGE",
            )
        if self._domain.leaks:
            self.log(
                "warning", "other hosts that know this one may take part: this system cannot limit a socket to itself"
            )

    @property
    def domain_id(self) -> int:
        """Number of the ROS domain."""
        return self._domain.number

    def create_publisher(self, topic: str, type_name: str, qos: Qos = RELIABLE) -> Publisher:
        publisher = _DdsPublisher(self, self.resolve(topic), type_name, qos)
        self.publishers.append(publisher)
        return publisher

    def create_subscription(
        self, topic: str, type_name: str, callback: Callable[[Message], None], qos: Qos = SENSOR_DATA
    ) -> Subscription:
        subscription = _DdsSubscription(self, self.resolve(topic), type_name, callback, qos)
        self.subscriptions.append(subscription)
        return subscription

    def create_service(self, name: str, service_type: str, callback: Handler) -> None:
        service_parts(service_type)  # checks the type
        self._servers.append(ServiceServer(self, self.resolve(name), service_type, callback))

    def call_service(self, name: str, service_type: str, request: Message, timeout_s: float) -> Message:
        key = (self.resolve(name), service_type)
        with self._lock:
            if key not in self._clients:
                self._clients[key] = ServiceClient(self, *key)
        return self._clients[key].call(request, timeout_s)

    def now_ns(self) -> int:
        return time.time_ns()

    def _close(self) -> None:
        self._wake_up.set(True)
        self._thread.join()
        self._publish_discovery_info(nodes=False)
        # Cyclone's wrapper deletes unreferenced entities: those that refer to others go first.
        for publisher in (*self.publishers, self._log_publisher):
            publisher.writer = None  # type: ignore[attr-defined]
        for subscription in self.subscriptions:
            subscription.close()
        self._servers.clear()
        self._clients.clear()
        self._receivers.clear()
        self._writers.clear()
        self._announce = None
        self._topics.clear()
        self._waitset = None
        self._wake_up = None
        self._participant = None
        self._domain.release()

    def _write_log(self, level: str, text: str) -> None:
        super()._write_log(level, text)
        levels = message_class(_LOG)
        name = {"warning": "WARN"}.get(level, level.upper())
        stamp = time_message(self.now_ns())
        self._log_publisher.publish(
            message(_LOG, stamp=stamp, level=getattr(levels, name), name=self.full_name.strip("/"), msg=text)
        )

    # For the endpoints above:

    def new_endpoint_id(self) -> str:
        """Id for a service or client."""
        return endpoint_id(self._participant, next(self._endpoint_numbers))

    def make_writer(self, topic: str, type_name: str, qos: Qos, user_data: str = "") -> Any:
        """Make a cyclonedds DataWriter, announced to ROS."""
        from cyclonedds.pub import DataWriter

        with self._lock:
            settings = dds_qos(qos, type_name, user_data)
            writer = DataWriter(self._participant, self._topic(topic, type_name), settings)
            self._writers.append(writer)
            self._publish_discovery_info()
        return writer

    def make_receiver(
        self, topic: str, type_name: str, qos: Qos, deliver: Callable[[bytes, Any], None], user_data: str = ""
    ) -> Receiver:
        """Make a reader on the receiving thread, announced to ROS."""
        with self._lock:
            settings = dds_qos(qos, type_name, user_data)
            receiver = Receiver(self._participant, self._topic(topic, type_name), settings, qos.depth, deliver)
            self._receivers.append(receiver)
            self._waitset.attach(receiver.condition)
            self._publish_discovery_info()
        return receiver

    def drop_receiver(self, receiver: Receiver) -> None:
        """Close a reader."""
        with self._lock:
            if receiver in self._receivers:
                self._receivers.remove(receiver)
                self._waitset.detach(receiver.condition)
                self._publish_discovery_info()

    def _topic(self, name: str, type_name: str) -> Any:
        from cyclonedds.topic import Topic

        if name not in self._topics:
            is_service = "/srv/" in type_name
            self._topics[name] = (type_name, Topic(self._participant, name, idl_type(type_name, is_service)))
        known, topic = self._topics[name]
        if known != type_name:
            raise ValueError(f"{name}: this node has the topic with type {known} already, received {type_name}")
        return topic

    def _publish_discovery_info(self, nodes: bool = True) -> None:
        """Announce the endpoints of this node to ROS, for `ros2 node list`."""
        if self._announce is None:
            return
        gid = "rmw_dds_common/msg/Gid"

        def gid_of(entity: Any) -> Message:
            wanted = message(gid)  # 16 bytes, 24 up to Humble
            wanted.data[:16] = list(entity.guid.bytes)
            return wanted

        info = message(
            "rmw_dds_common/msg/NodeEntitiesInfo",
            node_namespace=self.namespace,
            node_name=self.node_name,
            reader_gid_seq=[gid_of(receiver.reader) for receiver in self._receivers],
            writer_gid_seq=[gid_of(writer) for writer in self._writers],
        )
        everything = message(
            DISCOVERY_INFO, gid=gid_of(self._participant), node_entities_info_seq=[info] if nodes else []
        )
        write(self._announce, serialize(everything, DISCOVERY_INFO))

    def _receive(self) -> None:
        """Loop of the receiving thread: queue samples, check QoS mismatches every second."""
        looked_at = time.monotonic()
        while not self._is_shutdown:
            self._waitset.wait(self._wait_ns)
            with self._lock:
                receivers, writers = tuple(self._receivers), tuple(self._writers)
            for receiver in receivers:
                with self.guard(f"reception of {receiver.name}"):
                    receiver.receive()
            if time.monotonic() - looked_at >= _HOUSEKEEPING_S:
                looked_at = time.monotonic()
                with self.guard("search for mismatches"):
                    self._report_incompatible_qos([receiver.reader for receiver in receivers] + list(writers))

    def _report_incompatible_qos(self, endpoints: list[Any]) -> None:
        for endpoint in endpoints:
            policy = incompatible_qos(endpoint)
            if policy:
                name = endpoint.topic.name.removeprefix("rt")
                self.log("warning", f"{name}: {policy} of another node does not match: no messages pass between them")


def _make_participant(domain_number: int) -> Any:
    from cyclonedds.core import DDSException
    from cyclonedds.domain import DomainParticipant
    from cyclonedds.qos import Policy
    from cyclonedds.qos import Qos as DdsQos

    try:
        return DomainParticipant(domain_number, DdsQos(Policy.Userdata(b"enclave=/;")))
    except DDSException as error:
        raise TransportError(
            f"DDS domain {domain_number}: no participant: {error}; if {MAX_PARTICIPANT_INDEX + 1} processes of this "
            "host are in this domain already, stop some, or use another ROS_DOMAIN_ID"
        ) from error
