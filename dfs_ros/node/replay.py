"""Replay of a recorded bag through the depth node, repeatable to the byte.

The node is the same as live; its clock is the bag's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path

from dfs_ros.config import Config
from dfs_ros.messages.convert import Message
from dfs_ros.node.depth_node import DepthNode
from dfs_ros.node.outputs import ODOMETRY_TOPIC, TOPICS
from dfs_ros.transport.bag.files import BagReader
from dfs_ros.transport.bag.metadata import BagTopic
from dfs_ros.transport.bag.output import bag_output
from dfs_ros.transport.bag.topics import ChosenTopics, choose_topics
from dfs_ros.transport.bag.transport import BagTransport
from dfs_ros.transport.bag.writer import BagWriter
from dfs_ros.transport.names import check_namespace, resolve_name

NODE_NAME = "dfs"
OUTPUTS = (*TOPICS, ODOMETRY_TOPIC, "/diagnostics")
COPIES = ("none", "tf", "inputs", "all")
_TF = ("/tf", "/tf_static")


@dataclass(frozen=True)
class ReplayOptions:
    """Options of a replay.

    `outputs`: topics of the node to write, None = all. `copy`: further topics to copy from the old bag: none, tf (/tf
    and /tf_static), inputs (and tf), or all. `start_s` after the start of the bag, for `duration_s`.
    """

    namespace: str = "/"
    remappings: Mapping[str, str] = field(default_factory=dict)
    outputs: Collection[str] | None = None
    copy: str = "tf"
    start_s: float = 0.0
    duration_s: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "namespace", check_namespace(self.namespace))
        if self.copy not in COPIES:
            raise ValueError(f"copy: expected one of {', '.join(COPIES)}, received {self.copy!r}")
        for topic in self.outputs or ():
            if topic not in OUTPUTS:
                raise ValueError(f"outputs: expected some of {', '.join(OUTPUTS)}, received {topic!r}")
        if not self.start_s >= 0:
            raise ValueError(f"start_s: expected 0 or more, received {self.start_s}")
        if self.duration_s is not None and not self.duration_s > 0:
            raise ValueError(f"duration_s: expected over 0, received {self.duration_s}")


@dataclass(frozen=True)
class Replayed:
    """Result of a replay: messages written by topic, last diagnostics, inputs, damage of the bag."""

    written: Mapping[str, int]
    values: Mapping[str, str]
    inputs: tuple[str, ...]
    damage: tuple[str, ...] = ()


def replay(
    bag: str | Path,
    output: str | Path,
    config: Config | None = None,
    options: ReplayOptions | None = None,
    *,
    storage: str | None = None,
    overwrite: bool = False,
    progress: Callable[[float], None] = lambda share: None,
) -> Replayed:
    """Run a bag through the depth node and write its outputs into another.

    Parameters
    ----------
    bag
        Folder with metadata.yaml, or a .mcap or .db3 file.
    output
        New folder, or with the suffix .mcap or .db3 a single file. It appears complete or not at all.
    storage
        mcap or sqlite3; None = by the suffix of `output`, else mcap.
    overwrite
        Replace an existing bag.
    progress
        Called with the completed share of the bag.

    An unfinished or damaged bag is read as far as it is whole. Raises FileNotFoundError and ValueError for a bag that
    is unreadable, lacks inputs or gives no depth at all, and for an output that exists or cannot be written.
    """
    options = options or ReplayOptions()
    with BagReader(bag) as reader, bag_output(output, storage, overwrite, source=reader.path) as writer:
        resolve = partial(resolve_name, node_name=NODE_NAME, namespace=options.namespace, remappings=options.remappings)
        chosen = choose_topics(reader, resolve, options.remappings, config or Config())
        return _play(reader, writer, chosen, options, progress)


def _play(
    reader: BagReader,
    writer: BagWriter,
    chosen: ChosenTopics,
    options: ReplayOptions,
    progress: Callable[[float], None],
) -> Replayed:
    start_ns = reader.start_ns + round(options.start_s * 1e9)
    stop_ns = reader.end_ns if options.duration_s is None else start_ns + round(options.duration_s * 1e9)
    last = _LastDiagnostics()
    names = options.outputs or OUTPUTS
    wanted = {resolve_name(name, NODE_NAME, options.namespace, chosen.remappings) for name in names}
    transport = BagTransport(
        NODE_NAME,
        writer,
        start_ns,
        recorded=wanted.__contains__,
        namespace=options.namespace,
        remappings=chosen.remappings,
        config=chosen.config,
    )
    transport.watch("/diagnostics", last.add)
    with transport, DepthNode(transport, inline=True) as node:
        copies = _copies(reader, chosen, options.copy, {p.topic for p in transport.publishers} - {"/diagnostics"})
        for topic in copies:
            writer.announce_copy(topic)
        copied = {topic.connection.id for topic in copies}
        played = copies + [topic for topic in chosen.topics if topic.connection.id not in copied]
        part = (start_ns, stop_ns) if options.start_s or options.duration_s else ()
        earlier = reader.latched_before(start_ns, played) if options.start_s else []
        for message in chain(earlier, reader.messages(played, *part)):
            if message.topic.connection.id in copied:
                writer.write(message.topic.name, message.topic.type_name, message.stamp_ns, message.data)
            transport.play(message)
            progress((message.stamp_ns - start_ns) / max(stop_ns - start_ns, 1))
        node.finish()
        transport.advance_to(transport.now_ns() + 10**9)  # the last diagnostics
    values = last.values
    if values.get("published", "0") == "0":
        damage = "".join(f"\n- {sentence}" for sentence in reader.damage.sentences)
        reason = f"{last.trouble or last.text}; {_counts(values)}{damage}"
        raise ValueError(f"bag {reader.path}: no depth came of it: {reason}")
    inputs = tuple(topic.name for topic in chosen.topics)
    return Replayed(dict(writer.counts), values, inputs, tuple(reader.damage.sentences))


def _copies(reader: BagReader, chosen: ChosenTopics, copy: str, taken: Collection[str]) -> list[BagTopic]:
    """Topics to copy, without those that the node publishes."""
    if copy == "none":
        return []
    return [
        topic
        for topic in reader.topics
        if topic.name not in taken
        and (copy == "all" or topic.name in _TF or (copy == "inputs" and topic in chosen.topics))
    ]


class _LastDiagnostics:
    """Newest diagnostics of the depth node, and newest ones that reported trouble."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.text = ""
        self.trouble = ""

    def add(self, msg: Message) -> None:
        status = next(s for s in msg.status if s.name.endswith(f"{NODE_NAME}: depth"))
        self.values = {pair.key: pair.value for pair in status.values}
        self.text = status.message
        if status.level:
            self.trouble = status.message


def _counts(values: Mapping[str, str]) -> str:
    return f"{values.get('received', '0')} images, {values.get('stacks', '0')} stacks"
