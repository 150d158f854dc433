"""Write docs/nodes: a page a node with its topics, services, diagnostics and parameters.

    python -m tools.node_pages

Topics, types, quality of service, services and diagnostics are those that the nodes open when they run, here on a
transport within this process; parameters are those of :mod:`dfs_ros.config`. A test holds the committed pages equal.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dfs_ros.camera.source import SoftwareSource, SourceFrame, SweepCamera
from dfs_ros.camera.sweeper import FocusSweeper
from dfs_ros.camera.virtual_lens import LiveRgbd
from dfs_ros.cli.participants import CAMERA_NODE, DEPTH_NODE, SWEEPER_NODE, VIEWER_NODE
from dfs_ros.config import Config, sections
from dfs_ros.config.commented import described
from dfs_ros.messages.convert import DIAGNOSTICS, diagnostics_from_message
from dfs_ros.node.depth_node import DepthNode
from dfs_ros.node.outputs import TOPICS
from dfs_ros.optics.pinhole import intrinsics
from dfs_ros.simulation.render import render_stack
from dfs_ros.simulation.scenes import plane_scene
from dfs_ros.system.atomic import write_atomically
from dfs_ros.system.folders import share_folder
from dfs_ros.transforms.rigid import transform
from dfs_ros.transport.base import Qos
from dfs_ros.transport.local import LocalBus, LocalTransport
from dfs_ros.types import Camera, FocusMetadata
from tools.node_texts import CONTENT, SERVICES, VALUES

Settings = Mapping[str, Mapping[str, Any]]
_SIZE, _FOCUS_DIOPTERS = (24, 32), (2.2, 1.1, 0.5)
_CAMERA = Camera(focal_length_m=0.025, f_number=1.4, pixel_pitch_m=4e-4)
_PERIOD_NS = 33_333_333
_FAST = {
    "network": {"name": "none"},
    "hypotheses": {"count": 8, "min_depth_m": 0.4, "max_depth_m": 4.0, "interpolate_to": 0},
    "alignment": {"mode": "off"},
    "processing": {"threads": 1},
}


class Node(NamedTuple):
    """Node of the package: its page, and how it is opened.

    `variants`: settings with which it opens other topics. `sections`: those whose parameters stand on its page.
    """

    title: str
    name: str
    run: str
    text: str
    sections: tuple[str, ...]
    others: str
    make: Callable[[LocalTransport, Config], Any]
    variants: tuple[Settings, ...] = ({},)


class _Plane(SoftwareSource):
    """Camera that moves along a plane and knows its depth."""

    size, intrinsics, frames_per_sweep, description = _SIZE, intrinsics(_CAMERA, _SIZE), len(_FOCUS_DIOPTERS), "plane"

    def frames(self) -> Generator[SourceFrame, None, None]:
        scene = plane_scene(0.9, _SIZE[1], _SIZE[0], seed=3, fx_px=self.intrinsics.fx)
        stack = render_stack(scene.rgb, scene.depth_m, _CAMERA, _FOCUS_DIOPTERS)
        at_rest = transform((0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
        for number in range(1000):
            i = number % len(_FOCUS_DIOPTERS)
            focus = FocusMetadata(
                stamp_ns=0,
                focus_diopters=_FOCUS_DIOPTERS[i],
                focal_length_m=_CAMERA.focal_length_m,
                f_number=_CAMERA.f_number,
                sweep_id=number // len(_FOCUS_DIOPTERS),
                index=i,
                count=len(_FOCUS_DIOPTERS),
            )
            image = np.asarray(stack.images[i])
            yield SourceFrame(image, focus, moved=at_rest, true_depth_m=scene.depth_m.astype(np.float32))


def _camera(transport: LocalTransport, config: Config) -> SweepCamera:
    source = LiveRgbd(config) if config.camera.source == "rgbd" else _Plane()
    return SweepCamera(transport, source, config.camera)


def _viewer(transport: LocalTransport, config: Config) -> Any:
    from dfs_ros.viewer.app import ViewerApp

    return ViewerApp(transport, None)  # type: ignore[arg-type]  # the page is drawn when messages come: here none do


_SWEPT = {"raw_positions": "10,20"}
NODES = {
    "depth_node": Node(
        "Depth node: interface",
        DEPTH_NODE,
        "`ros2 run dfs_ros depth_node`, `dfs node`",
        "Images with focus metadata to depth. Guide, launch arguments and consumers: [Depth node](../node.md).",
        (
            *("lens", "hypotheses", "cost", "regularization", "network", "confidence", "alignment", "motion", "stack"),
            *("processing", "limits", "node", "schedule", "dds"),
        ),
        "Section `dds` is for nodes without a ROS 2 installation (`--transport dds`).",
        lambda transport, config: DepthNode(transport, inline=True),
        (
            {},
            {"node": {"image_transport": "compressed"}},
            {"node": {"focus_source": "diagnostics"}},
            {"motion": {"odometry": True}},
            {"node": {"compressed_outputs": True}},
        ),
    ),
    "sweep_camera": Node(
        "Camera",
        CAMERA_NODE,
        "`ros2 run dfs_ros sweep_camera`, `dfs camera`",
        "Focus-sweeping camera: simulated, recorded, V4L2, or a [virtual lens](../virtual_lens.md).",
        ("camera", "v4l2", "reporting", "rgbd"),
        "Of other sections: `lens.calibration`, `motion.frame`, and [limits](depth_node.md#limits).",
        _camera,
        ({}, {"camera": {"source": "rgbd"}}),
    ),
    "focus_sweeper": Node(
        "Focus sweeper",
        SWEEPER_NODE,
        "`ros2 run dfs_ros focus_sweeper`, `dfs sweeper`",
        "Sweep of the lens of a camera that [another driver](../node.md#lenses-of-other-drivers) runs.",
        ("sweeper",),
        "Of other sections: `lens.calibration`, `v4l2.device`, `camera.frame_id`, `camera.sweep`.",
        FocusSweeper,
        ({"sweeper": _SWEPT}, {"sweeper": {"driver": "topic", **_SWEPT}}),
    ),
    "viewer": Node(
        "Viewer",
        VIEWER_NODE,
        "`dfs view`, and part of `dfs run`",
        "Page in the browser. All subscriptions are best effort: a slow page never holds up the robot.",
        ("viewer",),
        "",
        _viewer,
    ),
}
NO_NODE = ("simulation",)
"""Sections that no node uses."""
DESCRIBED_ELSEWHERE = ("motion",)
"""Statuses whose values another page explains, to which their text leads."""


class Topic(NamedTuple):
    """Topic of a node: type, quality of service, and the setting that opens it, empty = always."""

    name: str
    type_name: str
    qos: Qos
    setting: str


@contextmanager
def opened(node: Node, bus: LocalBus, settings: Settings = {}) -> Iterator[tuple[LocalTransport, Any]]:  # noqa: B006
    """Node on a bus, active."""
    config = Config.from_dict(_FAST).updated(settings)
    with LocalTransport(node.name, bus, config=config) as transport:
        made = node.make(transport, config)
        if node.name == DEPTH_NODE:
            made.activate()
        yield transport, made


def topics(node: Node) -> tuple[list[Topic], list[Topic], list[tuple[str, str]]]:
    """Inputs, outputs and services of a node with all of its variants."""
    found: dict[str, dict[str, Topic]] = {"in": {}, "out": {}}
    services: list[tuple[str, str]] = []
    for settings in node.variants:
        told = [f"{name}.{key}={value}" for name, each in settings.items() for key, value in each.items()]
        setting = next((text for text in told if not text.startswith("sweeper.raw")), "").replace("True", "true")
        bus = LocalBus(start_ns=10**18)
        with opened(node, bus, settings) as (transport, made):
            if node.name == CAMERA_NODE and not settings:
                made.send()  # opens what the source turns out to know
            if node.name == SWEEPER_NODE and "driver" in settings["sweeper"]:
                made.configure()
            for way, ends in (("in", transport.subscriptions), ("out", transport.publishers)):
                for end in ends:
                    name = _shown(end.topic, transport)
                    found[way].setdefault(name, Topic(name, end.type_name, end.qos, setting))
            services = [(_shown(name, transport), kind) for name, kind in transport.bus.services]
    return list(found["in"].values()), list(found["out"].values()), services


def _shown(name: str, transport: LocalTransport) -> str:
    """Name relative to the node, as a remapping or a namespace leaves it."""
    if name.startswith(own := f"{transport.full_name}/"):
        return f"~/{name.removeprefix(own)}"
    return name if name in ("/diagnostics", "/tf", "/tf_static") else name.removeprefix("/")


def statuses() -> dict[str, dict[str, list[str]]]:
    """Keys of the values on /diagnostics, by node and status, of nodes that have run for a sweep."""
    bus = LocalBus(start_ns=10**18)
    keys: dict[str, dict[str, list[str]]] = {}

    def add(msg: Any) -> None:
        for status, diagnostic in diagnostics_from_message(msg).items():
            node, _, part = status.partition(": ")
            names = [_without_topic(key) for key in diagnostic.values]
            keys.setdefault(node, {})[part] = list(dict.fromkeys(names))

    with ExitStack() as stack:
        listener = stack.enter_context(LocalTransport("listener", bus))
        listener.create_subscription("/diagnostics", DIAGNOSTICS, add)
        for topic, kind in TOPICS.items():
            listener.create_subscription(topic, kind, lambda msg: None)
        nodes = [stack.enter_context(opened(NODES[each], bus)) for each in ("sweep_camera", "depth_node")]
        sweeper = stack.enter_context(opened(NODES["focus_sweeper"], bus, NODES["focus_sweeper"].variants[0]))
        spinning = [transport for transport, _ in (*nodes, sweeper)] + [listener]
        camera = nodes[0][1]
        camera.activate()
        for wait_ns in (*(_PERIOD_NS,) * len(_FOCUS_DIOPTERS), 10**9):
            bus.advance_to(bus.now_ns() + wait_ns)
            while any([each.spin_once(0) for each in spinning]):
                pass
        camera.close()
        nodes[1][1].close()
    return keys


def _without_topic(key: str) -> str:
    """`TOPIC received` of `/image received`, `seconds STEP` of `seconds cost volume`."""
    first, _, rest = key.partition(" ")
    if first.startswith("/"):
        return f"TOPIC {rest}"
    return {"seconds": "seconds STEP", "sigma": "sigma PART"}.get(first, key)


def page(node: Node, keys: Mapping[str, list[str]]) -> str:
    """Page of a node in Markdown."""
    inputs, outputs, services = topics(node)
    lines = [
        f"<!-- Generated by `python -m tools.node_pages`. -->\n\n# {node.title}\n\n{node.text}\n\n{node.run}; named "
        f"`{node.name}`. Names are relative to its namespace unless they begin with `/`.",
        *_topic_table("Subscribed topics", inputs),
        *_topic_table("Published topics", outputs),
        "\n## Services\n\n| service | type | |\n|---|---|---|",
        *(f"| `{name}` | {_type(kind)} | {_said(SERVICES, name)} |" for name, kind in services if not _of_all(kind)),
        "| `~/get_parameters`, `~/set_parameters`, ... | rcl_interfaces | parameters |",
        "| `~/get_state`, `~/change_state`, ... | lifecycle_msgs | lifecycle, native nodes only |",
    ]
    if keys:
        lines += ["\n## Diagnostics\n\nOn `/diagnostics`, once a second."]
    for status, names in keys.items():
        lines.append(f"\n### {node.name}: {status}\n\n{VALUES.get(status, '')}".rstrip())
        if names and status not in DESCRIBED_ELSEWHERE:
            lines += ["\n| value | |\n|---|---|", *(f"| `{name}` | {_said(VALUES, name)} |" for name in names)]
    lines.append(
        "\n## Parameters\n\nOn the command line `--set SECTION.NAME=VALUE`. In brackets: range or choices; dynamic: "
        "`ros2 param set` changes it in a running node."
    )
    lines += [f"\n{node.others}"] if node.others else []
    defaults = dict(sections(Config()))
    for name in node.sections:
        section = defaults[name]
        text = (type(section).__doc__ or "").splitlines()[0]
        lines.append(f"\n### {name}\n\n{text}\n\n| parameter | default | |\n|---|---|---|")
        for field in dataclasses.fields(section):
            default = getattr(section, field.name)
            shown = str(default).lower() if isinstance(default, bool) else str(default)
            lines.append(f"| `{name}.{field.name}` | {f'`{shown}`' if shown else ''} | {_cell(described(field))} |")
    return "\n".join(lines) + "\n"


def _topic_table(title: str, found: list[Topic]) -> list[str]:
    if not found:
        return []
    rows = []
    for topic in found:
        only = f" Only with `{topic.setting}`." if topic.setting else ""
        content = f"{_said(CONTENT, topic.name)}.{only}"
        rows.append(f"| `{topic.name}` | {_type(topic.type_name)} | {_qos(topic.qos)} | {content} |")
    return [f"\n## {title}\n\n| topic | type | QoS | content |\n|---|---|---|---|", *rows]


def _of_all(service_type: str) -> bool:
    """True for the services of parameters, which every node has."""
    return service_type.startswith("rcl_interfaces/")


def _said(texts: Mapping[str, str], name: str) -> str:
    if name not in texts:
        raise ValueError(f"{name}: has no text in tools/node_texts.py; write one")
    return texts[name]


def _type(name: str) -> str:
    package, _, kind = name.split("/")
    return f"[dfs_ros/{kind}](../../msg/{kind}.msg)" if package == "dfs_ros" else f"{package}/{kind}"


def _qos(qos: Qos) -> str:
    return f"{'reliable' if qos.reliable else 'best effort'}{', latched' if qos.latched else ''}, last {qos.depth}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


def pages() -> dict[str, str]:
    """All pages by file name. Raises ValueError for a section of settings without a page."""
    placed = {name for node in NODES.values() for name in node.sections} | set(NO_NODE)
    if missing := {name for name, _ in sections(Config())} - placed:
        raise ValueError(f"sections without a page: {', '.join(sorted(missing))}; add them to a node of NODES")
    keys = statuses()
    return {f"{file}.md": page(node, keys.get(node.name, {})) for file, node in NODES.items()}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the pages of the nodes.")
    parser.add_argument("folder", nargs="?", help="folder of the pages (default: docs/nodes of the repository)")
    args = parser.parse_args(arguments)
    folder = Path(args.folder) if args.folder else share_folder("config").parent / "docs" / "nodes"
    for name, text in pages().items():
        write_atomically(folder / name, text.encode())
        print(folder / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
