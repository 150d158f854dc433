"""Services over DDS in rmw_cyclonedds's mapping: `rq/<name>Request`, `rr/<name>Reply`.

A request and its reply begin with the client's guid and its sequence number.
"""

from __future__ import annotations

import itertools
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

from dfs_ros.messages.definitions import Message, deserialize, serialize
from dfs_ros.transport.base import Handler, Qos, when_answered
from dfs_ros.transport.cdr import decoded_cdr
from dfs_ros.transport.dds.types import SERVICE_HEADER_BYTES, service_topics
from dfs_ros.transport.dds.wire import service_header, user_data_value, write

SERVICE_QOS = Qos(reliable=True, depth=10)
_DISCOVERY_S = 1.0


class Participant(Protocol):
    """Interface of services to the transport."""

    executor: Any
    parameters: Any

    def new_endpoint_id(self) -> str: ...
    def make_writer(self, topic: str, type_name: str, qos: Qos, user_data: str = ...) -> Any: ...
    def make_receiver(
        self, topic: str, type_name: str, qos: Qos, deliver: Callable[[bytes, Any], None], user_data: str = ...
    ) -> Any: ...
    def call_soon(self, work: Callable[[], None]) -> None: ...


class ServiceClient:
    """Client of a service. Answers arrive on the receiving thread."""

    def __init__(self, transport: Participant, name: str, service_type: str) -> None:
        (request_topic, self._request), (reply_topic, self._response) = service_topics(name, service_type)
        user_data = f"clientid={transport.new_endpoint_id()};"
        self.writer = transport.make_writer(request_topic, self._request, SERVICE_QOS, user_data)
        self.receiver = transport.make_receiver(reply_topic, self._response, SERVICE_QOS, self._deliver, user_data)
        self._name = name
        self._guid = self.writer.instance_handle & 0xFFFFFFFFFFFFFFFF
        self._numbers = itertools.count(1)
        self._waiting: dict[int, tuple[threading.Event, list[Message]]] = {}

    def call(self, request: Message, timeout_s: float) -> Message:
        deadline = time.monotonic() + timeout_s
        while not (self.writer.get_matched_subscriptions() and self.receiver.reader.get_matched_publications()):
            if time.monotonic() >= deadline:
                raise TimeoutError(f"service {self._name}: nobody serves it")
            time.sleep(0.01)
        number = next(self._numbers)
        answered, replies = self._waiting[number] = (threading.Event(), [])
        try:
            write(self.writer, serialize(request, self._request, struct.pack("<Qq", self._guid, number)))
            if not answered.wait(max(0.0, deadline - time.monotonic())):
                raise TimeoutError(f"service {self._name}: no answer within {timeout_s:g} s")
        finally:
            del self._waiting[number]
        return replies[0]

    def _deliver(self, cdr: bytes, info: Any) -> None:
        guid, number = service_header(cdr)
        waiting = self._waiting.get(number)
        if guid == self._guid and waiting is not None:
            waiting[1].append(deserialize(cdr, self._response, SERVICE_HEADER_BYTES))
            waiting[0].set()


class ServiceServer:
    """Server of a service. The thread that spins answers requests."""

    def __init__(self, transport: Participant, name: str, service_type: str, callback: Handler) -> None:
        (request_topic, self._request), (reply_topic, self._response) = service_topics(name, service_type)
        user_data = f"serviceid={transport.new_endpoint_id()};"
        self._transport = transport
        self._limits = transport.parameters.config.limits
        self._callback = callback
        self._mailbox = transport.executor.mailbox(self._answer, SERVICE_QOS.depth, f"service {name}")
        self.writer = transport.make_writer(reply_topic, self._response, SERVICE_QOS, user_data)
        self.receiver = transport.make_receiver(
            request_topic, self._request, SERVICE_QOS, lambda cdr, info: self._mailbox.put((cdr, info)), user_data
        )

    def _answer(self, cdr_and_info: tuple[bytes, Any]) -> None:
        cdr, info = cdr_and_info
        guid, number = service_header(cdr)
        answer = self._callback(decoded_cdr(cdr, self._request, self._limits, SERVICE_HEADER_BYTES))
        header = struct.pack("<Qq", guid, number)
        if isinstance(answer, Future):
            when_answered(
                answer,
                lambda response: self._transport.call_soon(
                    lambda: self._reply(response, header, info.publication_handle)
                ),
            )
        else:
            self._reply(answer, header, info.publication_handle)

    def _reply(self, response: Message, header: bytes, request_writer: int) -> None:
        reply = serialize(response, self._response, header)
        self._wait_for_client(request_writer)
        write(self.writer, reply)

    def _wait_for_client(self, request_writer: int) -> None:
        """Wait up to a second for the discovery of the client's reader.

        A request may arrive before it, and the reply would be lost; ROS waits, too, though only for 0.1 s, which a busy
        machine exceeds.
        """
        client = user_data_value(self.receiver.reader.get_matched_publication_data(request_writer), "clientid")
        deadline = time.monotonic() + _DISCOVERY_S
        while client and time.monotonic() < deadline:
            readers = map(self.writer.get_matched_subscription_data, self.writer.get_matched_subscriptions())
            if any(user_data_value(reader, "clientid") == client for reader in readers):
                return
            time.sleep(0.005)
