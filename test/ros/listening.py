"""What the launch tests share: a node that keeps what it receives, and calls services."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from numpy.typing import NDArray
from rcl_interfaces.msg import Parameter
from rcl_interfaces.srv import DescribeParameters, GetParameters, ListParameters, SetParameters
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_srvs.srv import Trigger

RELIABLE = QoSProfile(depth=20)
TOPICS: dict[str, Any] = {
    "depth/image": Image,
    "depth/camera_info": CameraInfo,
    "depth/points": PointCloud2,
    "depth/sigma": Image,
    "depth/confidence": Image,
    "all_in_focus/image": Image,
    "all_in_focus/camera_info": CameraInfo,
}
# A test machine may be slow and busy: the deadlines are for what hangs. What is done is done at once.
PATIENCE_S = 90.0
_NUMBERS = itertools.count()


class Listener:
    """A node with subscriptions, in a context and a thread of its own; `received[topic]` are the messages so far."""

    def __init__(self, namespace: str = "/") -> None:
        self._context = Context()
        rclpy.init(context=self._context)
        self.node = rclpy.create_node(f"listener_{next(_NUMBERS)}", namespace=namespace, context=self._context)
        self.received: dict[str, list[Any]] = {}
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def listen(self, topic: str, kind: Any, qos: QoSProfile = RELIABLE, key: str = "") -> list[Any]:
        """Subscribe; the list that grows."""
        messages = self.received.setdefault(key or topic, [])
        self.node.create_subscription(kind, topic, messages.append, qos)
        self._executor.wake()
        return messages

    def listen_to_results(self, qos: QoSProfile = RELIABLE) -> None:
        """Subscribe to everything that the depth node publishes, and to the camera's images."""
        for topic, kind in TOPICS.items():
            self.listen(topic, kind, qos)
        self.listen("image", Image, QoSProfile(depth=200))
        self.listen("/diagnostics", DiagnosticArray)

    def results(self) -> list[dict[str, Any]]:
        """The messages of each result that came on every topic: {topic: message}, all of one stamp, oldest first."""
        by_stamp = [{stamp_ns(m): m for m in list(self.received[topic])} for topic in TOPICS]
        common = sorted(set.intersection(*(set(messages) for messages in by_stamp)))
        return [{topic: messages[stamp] for topic, messages in zip(TOPICS, by_stamp, strict=True)} for stamp in common]

    def wait_for_results(self, count: int = 1) -> list[dict[str, Any]]:
        wait_until(lambda: len(self.results()) >= count, f"{count} results on all of {', '.join(TOPICS)}")
        return self.results()

    def call(self, name: str, kind: Any, **request: Any) -> Any:
        """The answer of a service."""
        client = self.node.create_client(kind, name)
        self._executor.wake()
        try:
            wait_until(client.service_is_ready, f"service {name}")
            future = client.call_async(kind.Request(**request))
            wait_until(future.done, f"an answer of {name}")
            return future.result()
        finally:
            self.node.destroy_client(client)

    # -- what a node of this package offers ---------------------------------------------------------------------------

    def set_parameter(self, node: str, name: str, value: Any) -> Any:
        """The result: `successful`, and the `reason` where not."""
        parameter = Parameter(name=name, value=rclpy.Parameter(name, value=value).get_parameter_value())
        return self.call(f"{node}/set_parameters", SetParameters, parameters=[parameter]).results[0]

    def get_parameters(self, node: str, *names: str) -> list[Any]:
        answer = self.call(f"{node}/get_parameters", GetParameters, names=list(names))
        return [parameter_value_to_python(value) for value in answer.values]

    def describe_parameter(self, node: str, name: str) -> Any:
        return self.call(f"{node}/describe_parameters", DescribeParameters, names=[name]).descriptors[0]

    def parameter_names(self, node: str) -> list[str]:
        return list(self.call(f"{node}/list_parameters", ListParameters).result.names)

    def state(self, node: str) -> str:
        return str(self.call(f"{node}/get_state", GetState).current_state.label)

    def change_state(self, node: str, transition: str) -> bool:
        wanted = getattr(Transition, f"TRANSITION_{transition.upper()}")
        return bool(self.call(f"{node}/change_state", ChangeState, transition=Transition(id=wanted)).success)

    def capture(self, node: str) -> Any:
        """The answer of ~/capture: `success`, `message`."""
        return self.call(f"{node}/capture", Trigger)

    def close(self) -> None:
        self._context.try_shutdown()
        self._thread.join(60)

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            self._executor.spin()

    def __enter__(self) -> Listener:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = PATIENCE_S) -> None:
    """Wait for a condition; AssertionError that names it where it does not come true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.02)


def stamp_ns(msg: Any) -> int:
    """The header's stamp in nanoseconds."""
    return int(msg.header.stamp.sec) * 10**9 + int(msg.header.stamp.nanosec)


def pixels(msg: Any) -> NDArray[Any]:
    """An image as an array (H, W) or (H, W, 3), read by the layout that the message states and nothing else."""
    dtype, channels = {
        "32FC1": ("<f4", 1),
        "16UC1": ("<u2", 1),
        "rgb8": ("u1", 3),
        "bgr8": ("u1", 3),
        "mono8": ("u1", 1),
    }[msg.encoding]
    if msg.is_bigendian or msg.step != msg.width * channels * np.dtype(dtype).itemsize:
        raise AssertionError(f"step {msg.step}, is_bigendian {msg.is_bigendian} of {msg.encoding} {msg.width} px wide")
    flat = np.frombuffer(bytes(msg.data), dtype)
    return flat.reshape((msg.height, msg.width) if channels == 1 else (msg.height, msg.width, channels))


def points_of(cloud: Any) -> NDArray[np.float32]:
    """(H, W, 3) in metres, by the cloud's own fields."""
    offset = {field.name: field.offset for field in cloud.fields}
    data = np.frombuffer(bytes(cloud.data), np.uint8).reshape(cloud.height, cloud.width, cloud.point_step)
    xyz = [data[..., offset[axis] : offset[axis] + 4].copy().view("<f4")[..., 0] for axis in "xyz"]
    return np.stack(xyz, axis=-1)
