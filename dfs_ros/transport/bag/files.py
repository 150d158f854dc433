"""Bag files (rosbag2, sqlite3 and mcap), by rosbags; written for every ROS 2.

Errors of reading are made clear.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from dfs_ros.messages.convert import CAMERA_INFO
from dfs_ros.messages.definitions import type_store
from dfs_ros.transport.base import Qos

if TYPE_CHECKING:
    from rosbags.interfaces import Connection

METADATA_FILE = "metadata.yaml"
STORAGES = {"mcap": ".mcap", "sqlite3": ".db3"}
# Every current ROS 2 reads metadata of this version, with type hashes; from 9 on QoS is written in words, which older
# ones do not understand.
_METADATA_VERSION: Literal[8] = 8
_FOREVER = (9223372036, 854775807)  # seconds and nanoseconds of an infinite time in ROS

_Self = TypeVar("_Self", bound="BagWriter")


class BagTopic(NamedTuple):
    """Topic in a bag: type and number of its messages. `connection` is rosbags' own."""

    name: str
    type_name: str
    messages: int
    connection: Connection


class BagMessage(NamedTuple):
    """Recorded message: CDR `data`, received at `stamp_ns`."""

    topic: BagTopic
    stamp_ns: int
    data: bytes


class BagReader:
    """Reader of a bag: a folder with `metadata.yaml`, or one .mcap or .db3 file.

    Use it in a `with` statement. It also reads bags compressed by zstd (file or message) and mcap chunks of zstd or
    lz4.

    Raises FileNotFoundError without a bag, and ValueError for an unreadable one: not of ROS 2, damaged, truncated, of a
    storage or compression unknown to rosbags.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._check_kind()
        from rosbags.rosbag2 import Reader

        with self._readable():
            self._reader = Reader(self.path)
            self._reader.open()
        self.topics = [BagTopic(c.topic, c.msgtype, c.msgcount, c) for c in self._reader.connections]
        """Topics in the order of the bag. A topic of two types is there twice."""

    @property
    def count(self) -> int:
        """Number of messages."""
        return self._reader.message_count

    @property
    def start_ns(self) -> int:
        """Time of reception of the first message."""
        return self._reader.start_time

    @property
    def end_ns(self) -> int:
        """Time just after the reception of the last message."""
        return self._reader.end_time

    def messages(
        self, topics: Collection[BagTopic], start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[BagMessage]:
        """Iterate over messages of some topics from `start_ns` to before `stop_ns`, in order.

        The order is that of reception. Raises ValueError for a damaged bag, at the end also for missing messages.
        """
        if not topics:
            return
        seen = dict.fromkeys((topic.connection.id for topic in topics), 0)
        by_connection = {topic.connection.id: topic for topic in topics}
        messages = self._reader.messages([topic.connection for topic in topics], start_ns, stop_ns)
        while True:
            with self._readable():
                item = next(messages, None)
            if item is None:
                break
            connection, stamp_ns, data = item
            seen[connection.id] += 1
            yield BagMessage(by_connection[connection.id], stamp_ns, bytes(data))
        for topic in topics if start_ns is None and stop_ns is None else ():
            found = seen[topic.connection.id]
            if found != topic.messages:
                raise ValueError(
                    f"bag {self.path}: damaged: {found} of {topic.messages} messages of {topic.name} are there; "
                    "`ros2 bag reindex` or `mcap recover` may mend it"
                )

    def latched_before(self, start_ns: int, topics: Collection[BagTopic]) -> list[BagMessage]:
        """Messages that a late subscriber at `start_ns` gets, with this time of reception.

        Of each topic with durability TRANSIENT_LOCAL the newest ones up to the depth of its history, of `/tf_static`
        all; of camera_info, whatever its durability, the newest.
        """
        kept = {topic.connection.id: deque[BagMessage](maxlen=depth) for topic in topics if (depth := _kept_by(topic))}
        wanted = [topic for topic in topics if topic.connection.id in kept]
        for message in self.messages(wanted, self.start_ns, start_ns):
            kept[message.topic.connection.id].append(message._replace(stamp_ns=start_ns))
        return [message for messages in kept.values() for message in messages]

    def listing(self) -> str:
        """List of the topics, one a line, for error messages."""
        lines = [f"  {topic.name}  {topic.type_name}  {topic.messages} messages" for topic in self.topics]
        return "\n".join(sorted(lines)) or "  none"

    def close(self) -> None:
        """Close the files."""
        if self._reader.is_open:
            self._reader.close()

    def __enter__(self) -> BagReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _check_kind(self) -> None:
        path = self.path
        if not path.exists():
            raise FileNotFoundError(f"bag {path}: no such file or folder")
        if path.suffix == ".bag" and path.is_file():
            raise ValueError(f"bag {path}: is of ROS 1; convert it: `rosbags-convert --src {path} --dst {path.stem}`")
        if path.is_dir() and not (path / METADATA_FILE).is_file():
            files = sorted(p.name for suffix in STORAGES.values() for p in path.glob(f"*{suffix}*"))
            hint = f"; name one of its files: {', '.join(files)}, or `ros2 bag reindex {path}`" if files else ""
            raise ValueError(f"bag {path}: expected a {METADATA_FILE} in the folder, and there is none{hint}")
        if path.is_file() and path.suffix not in STORAGES.values():
            known = " or ".join(STORAGES.values())
            raise ValueError(f"bag {path}: expected a folder with {METADATA_FILE}, or a file {known}")

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Turn any exception of rosbags, SQLite or a decompressor into one ValueError."""
        try:
            yield
        except (KeyboardInterrupt, MemoryError, PermissionError):
            raise
        except Exception as error:
            text = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"bag {self.path}: cannot be read, damaged or not a ROS 2 bag: {text}") from error


class BagWriter:
    """Writer of a bag into a new `folder`; its file has the name of the folder.

    The same calls give the same bytes. Use it in a `with` statement: after an exception the folder has no
    `metadata.yaml` and is no bag.
    """

    def __init__(self, folder: Path, storage: str = "mcap") -> None:
        from rosbags.rosbag2 import StoragePlugin, Writer

        if storage not in STORAGES:
            raise ValueError(f"storage: expected one of {', '.join(STORAGES)}, received {storage!r}")
        self._writer = Writer(folder, version=_METADATA_VERSION, storage_plugin=StoragePlugin[storage.upper()])
        self._connections: dict[tuple[str, str], Connection] = {}
        self.counts: dict[str, int] = {}
        """Messages written, by topic."""

    def announce(self, topic: str, type_name: str, qos: Qos) -> None:
        """Add a topic to the bag, with the quality of service for players."""
        if (topic, type_name) not in self._connections:
            self._add(topic, type_name, typestore=type_store(), offered_qos_profiles=[_ros_qos(qos)])

    def announce_copy(self, topic: BagTopic) -> None:
        """Add a topic of another bag to this one, unchanged.

        Raises ValueError if neither that bag nor this package knows the definition of its messages.
        """
        if (topic.name, topic.type_name) in self._connections:
            return
        qos: Any = topic.connection.ext
        options = {"offered_qos_profiles": qos.offered_qos_profiles}
        self._add(topic.name, topic.type_name, typestore=_store_of(topic), **options)

    def write(self, topic: str, type_name: str, stamp_ns: int, data: bytes | bytearray) -> None:
        """Write a message of an announced topic, received at `stamp_ns`."""
        with _writing(self._writer.path):
            self._writer.write(self._connections[topic, type_name], stamp_ns, memoryview(data))
        self.counts[topic] += 1

    def _add(self, topic: str, type_name: str, **options: Any) -> None:
        with _writing(self._writer.path):
            self._connections[topic, type_name] = self._writer.add_connection(topic, type_name, **options)
        self.counts.setdefault(topic, 0)

    def __enter__(self: _Self) -> _Self:
        with _writing(self._writer.path):
            self._writer.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            with contextlib.suppress(Exception):
                self._writer.abort()
            return
        with _writing(self._writer.path):
            self._writer.close()


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:  # a full disk, mostly
        raise OSError(f"bag {path}: cannot be written: {error}") from error


def _kept_by(topic: BagTopic) -> int:
    """Number of messages that a topic keeps for late subscribers."""
    from rosbags.interfaces import QosDurability, QosHistory

    if topic.name == "/tf_static":
        return topic.messages
    offered: Any = getattr(topic.connection.ext, "offered_qos_profiles", None)
    latched = [qos for qos in offered or () if qos.durability == QosDurability.TRANSIENT_LOCAL]
    if any(qos.history == QosHistory.KEEP_ALL for qos in latched):
        return topic.messages
    return max([qos.depth for qos in latched], default=int(topic.type_name == CAMERA_INFO))


def _store_of(topic: BagTopic) -> Any:
    """Type store with the types of a topic: this package's, or that of the bag's definition."""
    from rosbags.interfaces import MessageDefinitionFormat
    from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore

    if topic.type_name in type_store().fielddefs:
        return type_store()
    definition = topic.connection.msgdef
    try:
        if not definition.data.strip():
            raise ValueError("the bag holds no definition of it")
        if definition.format == MessageDefinitionFormat.MSG:
            types = get_types_from_msg(definition.data, topic.type_name)
        elif definition.format == MessageDefinitionFormat.IDL:
            types = get_types_from_idl(definition.data)
        else:
            raise ValueError("its definition is in a form that is not known")
        store = get_typestore(Stores.EMPTY)
        store.register(types)
        store.hash_rihs01(topic.type_name)
    except Exception as error:
        raise ValueError(f"{topic.name}: messages of {topic.type_name} cannot be copied: {error}") from error
    return store


def _ros_qos(qos: Qos) -> Any:
    from rosbags.interfaces import Qos as RosQos
    from rosbags.interfaces import QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

    forever = QosTime(*_FOREVER)
    return RosQos(
        QosHistory.KEEP_LAST,
        qos.depth,
        QosReliability.RELIABLE if qos.reliable else QosReliability.BEST_EFFORT,
        QosDurability.TRANSIENT_LOCAL if qos.latched else QosDurability.VOLATILE,
        forever,
        forever,
        QosLiveliness.AUTOMATIC,
        forever,
        False,
    )
