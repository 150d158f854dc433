"""Writer of bags (rosbag2, mcap and sqlite3) for every ROS 2: with CRCs, flushed on request, split on request."""

from __future__ import annotations

import os
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import yaml

from dfs_ros.messages.definitions import type_store
from dfs_ros.transport.bag.metadata import (
    CHECKSUMS,
    METADATA_VERSION,
    STORAGES,
    BagTopic,
    bag_information,
    definition_store,
    qos_text,
    write_metadata,
)
from dfs_ros.transport.base import Qos
from dfs_ros.version import __version__

if TYPE_CHECKING:
    from rosbags.interfaces import Qos as RosQos

_FOREVER = (9223372036, 854775807)  # seconds and nanoseconds of an infinite time in ROS
_CHUNK_BYTES = 1 << 20

_Self = TypeVar("_Self", bound="BagWriter")


class WrittenTopic(NamedTuple):
    """Topic of a bag in writing: definition of its type, type hash, quality of service for players."""

    number: int
    name: str
    type_name: str
    encoding: str
    definition: str
    type_hash: str
    qos: str


class Split(NamedTuple):
    """Limits of one file of a bag, 0 = none; beyond one of them the next file begins."""

    max_bytes: int = 0
    max_duration_ns: int = 0

    @property
    def wanted(self) -> bool:
        """True if there is a limit."""
        return self.max_bytes > 0 or self.max_duration_ns > 0


class _File(Protocol):
    """One file of a bag; errors are OSError or sqlite3.Error."""

    path: Path
    written_bytes: int

    def add(self, topic: WrittenTopic) -> None: ...
    def write(self, topic: WrittenTopic, stamp_ns: int, data: bytes | bytearray) -> None: ...
    def flush(self) -> None: ...
    def close(self, metadata: str) -> None: ...
    def abort(self) -> None: ...


class _Part:
    """Numbers of one file of a bag: messages, first and last time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.messages = 0
        self.start_ns = 2**63 - 1
        self.end_ns = 0

    def count(self, stamp_ns: int) -> None:
        self.messages += 1
        self.start_ns, self.end_ns = min(self.start_ns, stamp_ns), max(self.end_ns, stamp_ns)

    @property
    def duration_ns(self) -> int:
        return max(0, self.end_ns - self.start_ns)


class BagWriter:
    """Writer of a bag into `folder`: NAME.mcap or NAME.db3, with `split` NAME_0, NAME_1, ..., and metadata.yaml.

    Parameters
    ----------
    folder
        Folder without a bag, made if missing.
    name
        Name of the files; None = that of the folder.
    metadata
        Write metadata.yaml; False for a single file.
    split
        Limits of one file.

    The same calls give the same bytes. Use it in a `with` statement: after an exception the folder has no
    `metadata.yaml` and is no closed bag. Raises OSError if it cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        storage: str = "mcap",
        *,
        name: str | None = None,
        metadata: bool = True,
        split: Split | None = None,
    ) -> None:
        if storage not in STORAGES:
            raise ValueError(f"storage: expected one of {', '.join(STORAGES)}, received {storage!r}")
        self.folder = folder
        self.storage = storage
        self.counts: dict[str, int] = {}
        """Messages written, by topic."""
        self.unflushed = 0
        """Messages since the last flush."""
        self._name = folder.absolute().name if name is None else name
        self._metadata = metadata
        self._split = split or Split()
        self._topics: dict[tuple[str, str], WrittenTopic] = {}
        self._counts: dict[int, int] = {}
        self._parts: list[_Part] = []
        self._file: _File | None = None

    @property
    def files(self) -> list[Path]:
        """Files of the bag so far."""
        return [part.path for part in self._parts]

    def announce(self, topic: str, type_name: str, qos: Qos) -> None:
        """Add a topic to the bag, with the quality of service for players."""
        if (topic, type_name) not in self._topics:
            self._add(topic, type_name, type_store(), [_ros_qos(qos)])

    def announce_copy(self, topic: BagTopic) -> None:
        """Add a topic of another bag to this one, unchanged.

        Raises ValueError if neither that bag nor this package knows the definition of its messages.
        """
        if (topic.name, topic.type_name) not in self._topics:
            qos: Any = topic.connection.ext
            self._add(topic.name, topic.type_name, _store_of(topic), qos.offered_qos_profiles)

    def write(self, topic: str, type_name: str, stamp_ns: int, data: bytes | bytearray) -> None:
        """Write a message of an announced topic, received at `stamp_ns`."""
        added = self._topics[topic, type_name]
        part = self._parts[-1]
        full = 0 < self._split.max_bytes < self._open_file.written_bytes + len(data)
        long = 0 < self._split.max_duration_ns <= stamp_ns - part.start_ns
        if part.messages and (full or long):
            with _writing(self.folder):
                self._open_file.close(self._text())
                part = self._next_part()
        with _writing(self.folder):
            self._open_file.write(added, stamp_ns, data)
        part.count(stamp_ns)
        self._counts[added.number] += 1
        self.counts[topic] += 1
        self.unflushed += 1

    def flush(self) -> None:
        """Write all messages to the disk: they outlast a kill and a power cut."""
        with _writing(self.folder):
            self._open_file.flush()
        self.unflushed = 0

    def __enter__(self: _Self) -> _Self:
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._next_part()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is not None and kind is not None:
            with suppress(Exception):
                self._file.abort()
        elif self._file is not None:
            with _writing(self.folder):
                try:
                    self._file.close(self._text())
                except BaseException:
                    with suppress(Exception):
                        self._file.abort()
                    raise
                if self._metadata:
                    write_metadata(self.folder, self._information())
        self._file = None

    @property
    def _open_file(self) -> _File:
        if self._file is None:
            raise ValueError(f"bag {self.folder}: is not open")
        return self._file

    def _next_part(self) -> _Part:
        number = f"_{len(self._parts)}" if self._split.wanted else ""
        path = self.folder / f"{self._name}{number}{STORAGES[self.storage]}"
        self._file = _FILES[self.storage](path)
        for topic in self._topics.values():
            self._file.add(topic)
        self._parts.append(_Part(path))
        return self._parts[-1]

    def _add(self, topic: str, type_name: str, store: Any, profiles: Sequence[RosQos]) -> None:
        definition, _ = store.generate_msgdef(type_name, ros_version=2)
        encoding = "ros2idl" if definition.startswith("=" * 80 + "\nIDL: ") else "ros2msg"
        type_hash = store.hash_rihs01(type_name)
        added = WrittenTopic(
            len(self._topics) + 1, topic, type_name, encoding, definition, type_hash, qos_text(profiles)
        )
        with _writing(self.folder):
            self._open_file.add(added)
        self._topics[topic, type_name] = added
        self._counts[added.number] = 0
        self.counts.setdefault(topic, 0)

    def _information(self) -> dict[str, Any]:
        topics = [
            {
                "topic_metadata": {
                    "name": topic.name,
                    "type": topic.type_name,
                    "serialization_format": "cdr",
                    "offered_qos_profiles": topic.qos,
                    "type_description_hash": topic.type_hash,
                },
                "message_count": self._counts[topic.number],
            }
            for topic in self._topics.values()
        ]
        files = [(part.path.name, part.start_ns, part.duration_ns, part.messages) for part in self._parts]
        return bag_information(self.storage, files, topics)

    def _text(self) -> str:
        return yaml.safe_dump(self._information(), sort_keys=False)


class _McapFile:
    """An mcap file; a chunk has up to 1 MiB, or what was written until a flush."""

    def __init__(self, path: Path) -> None:
        from mcap.writer import CompressionType, Writer

        self.path = path
        self._stream = path.open("xb")
        self._writer: Any = Writer(self._stream, chunk_size=_CHUNK_BYTES, compression=CompressionType.NONE)
        self._writer.start("ros2", f"dfs_ros {__version__}")
        self._stream.flush()
        self._schemas: dict[str, int] = {}
        self._channels: dict[int, int] = {}
        self.written_bytes = 0

    def add(self, topic: WrittenTopic) -> None:
        if topic.type_name not in self._schemas:
            self._schemas[topic.type_name] = self._writer.register_schema(
                topic.type_name, topic.encoding, topic.definition.encode()
            )
        metadata = {"offered_qos_profiles": topic.qos, "topic_type_hash": topic.type_hash}
        schema = self._schemas[topic.type_name]
        self._channels[topic.number] = self._writer.register_channel(topic.name, "cdr", schema, metadata)

    def write(self, topic: WrittenTopic, stamp_ns: int, data: bytes | bytearray) -> None:
        self._writer.add_message(self._channels[topic.number], stamp_ns, bytes(data), stamp_ns)
        self.written_bytes += len(data)

    def flush(self) -> None:
        self._writer.flush()
        os.fdatasync(self._stream.fileno())

    def close(self, metadata: str) -> None:
        self._writer.flush()
        self._writer.add_metadata("rosbag2", {"serialized_metadata": metadata})
        self._writer.finish()
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()

    def abort(self) -> None:
        self._stream.close()


_SQLITE_SCHEMA = f"""
CREATE TABLE schema(schema_version INTEGER PRIMARY KEY, ros_distro TEXT NOT NULL);
CREATE TABLE metadata(id INTEGER PRIMARY KEY, metadata_version INTEGER NOT NULL, metadata TEXT NOT NULL);
CREATE TABLE topics(
  id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL, serialization_format TEXT NOT NULL,
  offered_qos_profiles TEXT NOT NULL, type_description_hash TEXT NOT NULL);
CREATE TABLE message_definitions(
  id INTEGER PRIMARY KEY, topic_type TEXT NOT NULL, encoding TEXT NOT NULL,
  encoded_message_definition TEXT NOT NULL, type_description_hash TEXT NOT NULL);
CREATE TABLE messages(
  id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, timestamp INTEGER NOT NULL, data BLOB NOT NULL);
CREATE INDEX timestamp_idx ON messages (timestamp ASC);
CREATE TABLE {CHECKSUMS}(message_id INTEGER PRIMARY KEY, crc32 INTEGER NOT NULL);
INSERT INTO schema(schema_version, ros_distro) VALUES (4, 'rosbags');
"""


class _SqliteFile:
    """A sqlite3 file, of the schema of rosbag2; a flush ends a transaction, on the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._database = sqlite3.connect(path)
        # EXTRA: the end of the journal is on the disk, too; else a power cut after a flush takes the flush back.
        self._database.execute("PRAGMA synchronous = EXTRA")
        self._database.executescript(_SQLITE_SCHEMA)
        self._types: set[str] = set()
        self.written_bytes = 0

    def add(self, topic: WrittenTopic) -> None:
        if topic.type_name not in self._types:
            self._types.add(topic.type_name)
            self._database.execute(
                "INSERT INTO message_definitions VALUES(NULL, ?, ?, ?, ?)",
                (topic.type_name, topic.encoding, topic.definition, topic.type_hash),
            )
        self._database.execute(
            "INSERT INTO topics VALUES(?, ?, ?, 'cdr', ?, ?)",
            (topic.number, topic.name, topic.type_name, topic.qos, topic.type_hash),
        )

    def write(self, topic: WrittenTopic, stamp_ns: int, data: bytes | bytearray) -> None:
        row = self._database.execute("INSERT INTO messages VALUES(NULL, ?, ?, ?)", (topic.number, stamp_ns, data))
        self._database.execute(f"INSERT INTO {CHECKSUMS} VALUES(?, ?)", (row.lastrowid, zlib.crc32(data)))
        self.written_bytes += len(data)

    def flush(self) -> None:
        self._database.commit()

    def close(self, metadata: str) -> None:
        self._database.execute("INSERT INTO metadata VALUES(NULL, ?, ?)", (METADATA_VERSION, metadata))
        self._database.commit()
        self._database.execute("PRAGMA optimize")
        self._database.close()

    def abort(self) -> None:
        try:
            self._database.rollback()
        finally:
            self._database.close()


_FILES: dict[str, type[_McapFile] | type[_SqliteFile]] = {"mcap": _McapFile, "sqlite3": _SqliteFile}


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:  # a full disk, mostly
        raise OSError(f"bag {path}: cannot be written: {error}") from error


def _store_of(topic: BagTopic) -> Any:
    """Type store with the types of a topic: this package's, or that of the bag's definition."""
    return type_store() if topic.type_name in type_store().fielddefs else definition_store(topic)


def _ros_qos(qos: Qos) -> RosQos:
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
