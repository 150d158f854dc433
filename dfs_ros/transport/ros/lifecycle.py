"""Lifecycle of a native ROS 2 node: states of `ros2 lifecycle` and their transitions.

    unconfigured --configure--> inactive --activate--> active --deactivate--> inactive --cleanup--> unconfigured

Configuring loads the network and may take minutes; it has its own thread, so that everything else continues. The thread
that spins makes the other transitions. With parameter `node.autostart` the node configures and activates itself;
otherwise it has a :mod:`bond <dfs_ros.transport.ros.bond>` to its manager while it is active.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from dfs_ros.transport.base import Managed
from dfs_ros.transport.parameters import Parameters
from dfs_ros.transport.ros.bond import NodeBond


class Spinner(Protocol):
    """Interface of a lifecycle to the transport."""

    parameters: Parameters

    @property
    def native_node(self) -> Any: ...
    @property
    def is_shutdown(self) -> bool: ...
    def run_apart(self, work: Callable[[], None]) -> None: ...
    def run_in_spin(self, work: Callable[[], None]) -> None: ...
    def wake(self) -> None: ...
    def end(self, error: BaseException) -> None: ...
    def log(
        self, level: str, text: str, *, key: str = ..., every_s: float = ..., error: BaseException | None = ...
    ) -> None: ...


class Lifecycle:
    """Lifecycle of a transport's node, which `managed` follows."""

    def __init__(self, transport: Spinner, managed: Managed) -> None:
        self._transport = transport
        self._managed = managed
        self._in_transition = threading.Lock()
        self._error: Exception | None = None
        node = transport.native_node
        self._node = node
        settings = transport.parameters.config.node
        self._bond = NodeBond(node, 0.0 if settings.autostart else settings.bond_heartbeat_s)
        work: dict[str, Callable[[], None]] = {
            "configure": partial(transport.run_apart, managed.configure),
            "activate": partial(transport.run_in_spin, managed.activate),
            "deactivate": partial(transport.run_in_spin, managed.deactivate),
            "cleanup": partial(transport.run_in_spin, managed.close),
            "shutdown": partial(transport.run_in_spin, managed.close),
            "error": partial(transport.run_in_spin, managed.close),
        }
        for name, do in work.items():
            setattr(node, f"on_{name}", partial(self._transition, name, do))
        self._offer_services()
        if settings.autostart:
            threading.Thread(target=self._start, name="lifecycle", daemon=True).start()

    def _offer_services(self) -> None:
        from rclpy.callback_groups import ReentrantCallbackGroup
        from rclpy.lifecycle import LifecycleNodeMixin

        # Reentrant: the state can be queried during a long transition.
        LifecycleNodeMixin.__init__(self._node, callback_group=ReentrantCallbackGroup())
        services = [service for service in self._node.services if service.srv_name.endswith("/change_state")]
        for service in services:
            service.callback = partial(self._change_state, service.callback)
        self._transport.wake()

    def _change_state(self, change: Callable[[Any, Any], Any], request: Any, response: Any) -> Any:
        """Answer `~/change_state`, with `success` False for an invalid or simultaneous transition.

        rclpy raises an exception for an invalid one.
        """
        response.success = False
        if not self._in_transition.acquire(blocking=False):
            self._transport.log("warning", "lifecycle: refused: another transition is under way")
            return response
        try:
            return change(request, response)
        except Exception as error:
            self._transport.log("warning", f"lifecycle: transition refused: {error}", error=error)
            response.success = False
            return response
        finally:
            self._in_transition.release()

    def _transition(self, name: str, do: Callable[[], None], previous_state: Any) -> Any:
        from rclpy.lifecycle import TransitionCallbackReturn

        try:
            do()
        except Exception as error:
            self._error = error
            self._transport.log("error", f"lifecycle: {name} failed: {error}", error=error)
            return TransitionCallbackReturn.FAILURE
        self._tell_manager(name)
        self._transport.log("debug", f"lifecycle: {name} done, was {previous_state.label}")
        return TransitionCallbackReturn.SUCCESS

    def _tell_manager(self, transition: str) -> None:
        """Form the bond of an active node, or end it; a node works without."""
        try:
            if transition != "activate":
                self.end_bond()
            elif not self._bond.form():
                self._transport.log("info", "lifecycle: no bond to a manager: package bond is not installed")
        except Exception as error:
            self._transport.log("warning", f"lifecycle: no bond to a manager: {error}", error=error)

    def end_bond(self) -> None:
        """End the heartbeats, before the node is destroyed."""
        self._bond.end()

    def _start(self) -> None:
        """Configure and activate; on failure, end spinning with the exception."""
        from rclpy.lifecycle import TransitionCallbackReturn

        try:
            with self._in_transition:
                for trigger in (self._node.trigger_configure, self._node.trigger_activate):
                    if trigger() != TransitionCallbackReturn.SUCCESS:
                        raise self._error or RuntimeError("lifecycle: the node did not start")
        except Exception as error:
            if not self._transport.is_shutdown:
                self._transport.end(error)
