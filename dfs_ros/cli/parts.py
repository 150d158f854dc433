"""Parts of a run (camera, depth node, viewer) as processes, or as threads of one process."""

from __future__ import annotations

import argparse
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import yaml

from dfs_ros.camera.source import FrameSource
from dfs_ros.cli import camera, node, view
from dfs_ros.cli.participants import CAMERA_NODE, DEPTH_NODE, VIEWER_NODE
from dfs_ros.cli.processes import Processes
from dfs_ros.config import Config
from dfs_ros.system.tracebacks import keep_traceback
from dfs_ros.transport import chosen_kind, open_transport
from dfs_ros.transport.base import Transport
from dfs_ros.transport.local import LocalBus, LocalTransport
from dfs_ros.transport.names import parse_remappings

_THREAD_STOP_S = 15.0


class SourceFacts(NamedTuple):
    """Facts of an image source without its images, which the camera's process opens itself."""

    description: str
    frames_per_sweep: int


def without_images(source: FrameSource) -> SourceFacts:
    """Facts of a source, which is closed; its memory goes back to the system."""
    facts = SourceFacts(source.description, source.frames_per_sweep)
    source.close()
    return facts


@dataclass(frozen=True)
class Setup:
    """Arguments, configuration and image source of one `dfs run`.

    Only parts that are threads of this process need the images of `source`. `arguments` hold `transport`, `namespace`
    and `remap`; `bus` joins the nodes of transport `local`.
    """

    arguments: argparse.Namespace
    config: Config
    source: FrameSource | SourceFacts
    with_viewer: bool
    bus: LocalBus = field(default_factory=LocalBus)

    @property
    def kind(self) -> str:
        """Transport: ros, dds or local."""
        return chosen_kind(self.arguments.transport)

    def open_transport(self, node_name: str) -> Transport:
        """Open a node of this run in this process."""
        namespace, remappings = self.arguments.namespace, parse_remappings(self.arguments.remap)
        if self.kind == "local":
            return LocalTransport(node_name, self.bus, namespace=namespace, remappings=remappings, config=self.config)
        return open_transport(self.kind, node_name, namespace=namespace, remappings=remappings, config=self.config)


class Parts(ABC):
    """Context that starts the parts of a run, and ends all of them."""

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def failure(self) -> str | None:
        """Fault of a part that ended by itself; None while all are running."""

    @abstractmethod
    def stop(self) -> list[str]:
        """End all parts; return a line for each fault. May be repeated."""

    def __enter__(self) -> Parts:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


class ProcessParts(Parts):
    """Parts as processes, each the sub-command of `dfs` that runs it alone.

    `show` is called with the name of a part and each line of its output.
    """

    def __init__(self, setup: Setup, show: Callable[[str, str], None]) -> None:
        self._setup = setup
        self._show = show
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.processes = Processes(self._show_line)
        self._stopped: list[str] | None = None

    def start(self) -> None:
        setup, arguments = self._setup, self._setup.arguments
        kind = setup.kind
        self._folder = tempfile.TemporaryDirectory(prefix="dfs_run_")
        settings = Path(self._folder.name) / "settings.yaml"
        settings.write_text(yaml.safe_dump(setup.config.to_dict(), sort_keys=False), encoding="utf-8")
        common = ["--config", str(settings), "--transport", kind, "--namespace", arguments.namespace]
        common += [text for remapping in arguments.remap for text in ("--remap", remapping)]
        self.processes.start("node", ["node", *common])
        if setup.with_viewer:
            self.processes.start("viewer", ["view", *common])
        self.processes.start("camera", ["camera", *common])

    def failure(self) -> str | None:
        ended = self.processes.ended()
        return None if ended is None else f"the {ended.name} ended by itself, exit status {ended.status}"

    def stop(self) -> list[str]:
        if self._stopped is None:
            self._stopped = []  # hides their further output
            self._stopped = [
                "\n".join([f"the {name} ended with status {status}", *lines[-5:]])
                for name, status, lines in self.processes.stop()
            ]
            if self._folder is not None:
                self._folder.cleanup()
        return self._stopped

    def _show_line(self, name: str, line: str) -> None:
        if self._stopped is None:
            self._show(name, line)


class ThreadParts(Parts):
    """Parts as threads of this process."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._errors: list[str] = []
        self._running: list[tuple[Transport, threading.Thread]] = []

    def start(self) -> None:
        setup = self._setup
        self._run(DEPTH_NODE, node.serve)
        if setup.with_viewer:
            self._run(VIEWER_NODE, partial(view.serve, config=setup.config))
        if isinstance(setup.source, SourceFacts):
            raise TypeError("source: expected one with images, received its facts")
        self._run(CAMERA_NODE, partial(camera.serve, source=setup.source, config=setup.config))

    def failure(self) -> str | None:
        return self._errors[0] if self._errors else None

    def stop(self) -> list[str]:
        for transport, _ in self._running:
            transport.shutdown()
        for _, thread in self._running:
            thread.join(_THREAD_STOP_S)
        return [f"the thread {thread.name} did not end" for _, thread in self._running if thread.is_alive()]

    def _run(self, node_name: str, serve: Callable[[Transport], None]) -> None:
        transport = self._setup.open_transport(node_name)

        def work() -> None:
            try:
                with transport:
                    serve(transport)
            except Exception as error:
                keep_traceback(error)
                self._errors.append(f"{node_name}: {error}")

        thread = threading.Thread(target=work, name=node_name, daemon=True)
        self._running.append((transport, thread))
        thread.start()
