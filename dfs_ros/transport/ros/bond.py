"""Bond of a native lifecycle node, by which the lifecycle_manager of nav2 notices a node that died.

Between activation and deactivation, heartbeats (bond/Status) go out on topic `bond`, with the node's name as id, as
those of nav2_util::LifecycleNode do. A manager that does not answer within 10 s, or takes leave, gets no more of them;
the node works on, as nodes of nav2 do. Done here, as the publishers that bondpy destroys make rclpy's executor fail.
"""

from __future__ import annotations

import time
import uuid
from typing import Any

_TOPIC = "bond"
_DEPTH = 10


class NodeBond:
    """Bond of a node of rclpy; `period_s`: time between heartbeats, 0: none."""

    def __init__(self, node: Any, period_s: float) -> None:
        self._node = node
        self._period_s = period_s
        self._end: Any = None

    def form(self) -> bool:
        """Begin the heartbeats of a node that was activated; False without package bond."""
        if self._period_s == 0 or self._end is not None:
            return True
        try:
            from bond.msg import Constants, Status
        except ImportError:
            return False
        self._end = _End(self._node, self._period_s, Status, Constants)
        return True

    def end(self) -> None:
        """Take leave of the manager: it does not count the node as dead."""
        end, self._end = self._end, None
        if end is not None:
            end.close()


class _End:
    """One end of a bond, from its first heartbeat to its last."""

    def __init__(self, node: Any, period_s: float, status: Any, constants: Any) -> None:
        from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
        from rclpy.clock import Clock, ClockType

        self._node = node
        self._status = status
        self._timeout_s = float(constants.DEFAULT_HEARTBEAT_TIMEOUT)
        self._period_s = period_s
        self._instance = str(uuid.uuid4())
        self._manager = ""  # instance that answers
        self._deadline_s = time.monotonic() + float(constants.DEFAULT_CONNECT_TIMEOUT)
        self._beating = True
        group = MutuallyExclusiveCallbackGroup()
        self._publisher = node.create_publisher(status, _TOPIC, _DEPTH)
        self._subscription = node.create_subscription(status, _TOPIC, self._on_status, _DEPTH, callback_group=group)
        clock = Clock(clock_type=ClockType.STEADY_TIME)  # heartbeats go on while /clock stands still
        self._timer = node.create_timer(period_s, self._beat, callback_group=group, clock=clock)

    def _beat(self) -> None:
        if not self._manager and time.monotonic() > self._deadline_s:
            self._beating = False
        if self._beating:
            self._publish(True)
        else:
            self._timer.cancel()

    def _on_status(self, msg: Any) -> None:
        if msg.id != self._node.get_name() or msg.instance_id == self._instance:
            return
        if msg.active:
            self._manager = msg.instance_id  # the newest: a manager may have been started again
        elif msg.instance_id == self._manager and self._beating:
            self._beating = False
            self._publish(False)

    def _publish(self, active: bool) -> None:
        msg = self._status(id=self._node.get_name(), instance_id=self._instance, active=active)
        msg.header.stamp = self._node.get_clock().now().to_msg()
        msg.heartbeat_timeout, msg.heartbeat_period = self._timeout_s, self._period_s
        self._publisher.publish(msg)

    def close(self) -> None:
        if self._beating:
            self._beating = False
            self._publish(False)
        self._node.destroy_timer(self._timer)
        self._node.destroy_subscription(self._subscription)
        self._node.destroy_publisher(self._publisher)
