"""Reader of bags (rosbag2, sqlite3 and mcap), by rosbags; also of unfinished and damaged ones."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

from dfs_ros.config import read_yaml
from dfs_ros.messages.convert import CAMERA_INFO
from dfs_ros.system.tracebacks import keep_traceback
from dfs_ros.transport.bag.inflate import inflated_files, inflated_message
from dfs_ros.transport.bag.metadata import (
    METADATA_FILE,
    STORAGES,
    BagMessage,
    BagTopic,
    bag_information,
    qos_text,
    type_hash,
    write_metadata,
)


class BagReader:
    """Reader of a bag: a folder with `metadata.yaml`, or one .mcap or .db3 file.

    Use it in a `with` statement. It also reads bags compressed by zstd (file or message) and mcap chunks of zstd or
    lz4. Of an unfinished or damaged bag it reads the whole messages; `damage` says what is missing.

    Raises FileNotFoundError without a bag, and ValueError for an unreadable one: not of ROS 2, of a storage or
    compression unknown to rosbags, with nothing whole in it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._check_kind()
        from rosbags.rosbag2.reader import DirectoryReader

        from dfs_ros.transport.bag.storage import Damage, open_bag

        self.damage = Damage()
        """What is missing or damaged, as far as read: a list of sentences."""
        self._view = ExitStack()
        with self._readable(), ExitStack() as view:
            bag = self.path
            if bag.is_dir() and not self._has_metadata():
                bag = view.enter_context(_described(bag))
                self.damage.unfinished = True
                self.damage.add(f"{self.path / METADATA_FILE}: missing or damaged; its values are taken from the files")
            self._reader = open_bag(view.enter_context(inflated_files(bag)), self.damage)
            self._view = view.pop_all()
        storage: Any = self._reader.storage
        self._inflate = False
        if isinstance(storage, DirectoryReader) and storage.metadata.compression_mode == "message":
            storage.metadata = storage.metadata._replace(compression_mode=None)
            self._inflate = True
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

        The order is that of reception. What is damaged is left out, and added to `damage`.
        """
        if not topics:
            return
        seen = dict.fromkeys((topic.connection.id for topic in topics), 0)
        by_connection = {topic.connection.id: topic for topic in topics}
        messages = self._reader.messages([topic.connection for topic in topics], start_ns, stop_ns)
        while True:
            try:
                item = next(messages, None)
                if item is None:
                    break
                connection, stamp_ns, data = item
                data = inflated_message(data) if self._inflate else bytes(data)
            except PermissionError:
                raise
            except Exception as error:  # of rosbags, SQLite or a decompressor
                keep_traceback(error)
                self.damage.add(f"{self.path}: the rest is left out: {_said(error)}")
                break
            seen[connection.id] += 1
            yield BagMessage(by_connection[connection.id], stamp_ns, data)
        for topic in topics if start_ns is None and stop_ns is None else ():
            missing = topic.messages - seen[topic.connection.id]
            if missing > 0:
                self.damage.add(f"{self.path}: {missing} of {topic.messages} messages of {topic.name} are missing")

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
        self._view.close()

    def __enter__(self) -> BagReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _has_metadata(self) -> bool:
        """True for a folder with whole metadata.yaml."""
        try:
            return isinstance(read_yaml(self.path / METADATA_FILE, METADATA_FILE), dict)
        except (ValueError, OSError):
            return False

    def _check_kind(self) -> None:
        path = self.path
        if not path.exists():
            raise FileNotFoundError(f"bag {path}: no such file or folder")
        if path.suffix == ".bag" and path.is_file():
            raise ValueError(f"bag {path}: is of ROS 1; convert it: `rosbags-convert --src {path} --dst {path.stem}`")
        if path.is_file() and path.suffix not in STORAGES.values():
            known = " or ".join(STORAGES.values())
            raise ValueError(f"bag {path}: expected a folder with {METADATA_FILE}, or a file {known}")

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Turn any exception of rosbags, SQLite or a decompressor into one ValueError."""
        try:
            yield
        except PermissionError:
            raise
        except Exception as error:  # also MemoryError, for a length that is damaged
            raise ValueError(f"bag {self.path}: cannot be read, damaged or not a ROS 2 bag: {_said(error)}") from error


def bag_files(folder: Path) -> list[Path]:
    """Files of the bag in a folder, in the order of their numbers. Raises ValueError for none, or for two bags."""
    found = sorted(
        (p for p in folder.iterdir() if p.suffix in STORAGES.values() and p.is_file() and p.stat().st_size),
        key=lambda p: (len(p.name), p.name),
    )
    if not found:
        raise ValueError(f"expected a {METADATA_FILE} or files {' or '.join(STORAGES.values())} in the folder")
    if len({(re.sub(r"_\d+$", "", p.stem), p.suffix) for p in found}) > 1:
        names = ", ".join(p.name for p in found[:10])
        raise ValueError(f"expected the files of one bag or a {METADATA_FILE}, received {names}; name one of them")
    return found


def described_files(bag: Path) -> dict[str, Any]:
    """Content of metadata.yaml made of the files of a folder, or of one. Raises what :func:`open_bag` raises."""
    from dfs_ros.transport.bag.storage import Damage, open_bag

    files, topics = [], dict[tuple[str, str, str], dict[str, Any]]()
    for path in [bag] if bag.is_file() else bag_files(bag):
        reader = open_bag(path, Damage())
        try:
            length_ns = max(0, reader.end_time - reader.start_time - 1)
            files.append((path.name, reader.start_time, length_ns, reader.message_count))
            for c in reader.connections:
                qos: Any = c.ext
                text = qos_text(qos.offered_qos_profiles)
                topic = BagTopic(c.topic, c.msgtype, c.msgcount, c)
                added = {
                    "topic_metadata": {
                        "name": c.topic,
                        "type": c.msgtype,
                        "serialization_format": "cdr",
                        "offered_qos_profiles": text,
                        "type_description_hash": type_hash(topic),
                    },
                    "message_count": 0,
                }
                topics.setdefault((c.topic, c.msgtype, text), added)["message_count"] += c.msgcount
        finally:
            reader.close()
    storage = next(name for name, suffix in STORAGES.items() if suffix == path.suffix)
    return bag_information(storage, files, list(topics.values()))


@contextmanager
def _described(folder: Path) -> Iterator[Path]:
    """Folder with links to the files of a bag, and the metadata.yaml that the bag lacks."""
    with TemporaryDirectory(prefix="dfs_bag_") as made:
        view = Path(made)
        write_metadata(view, described_files(folder))
        for path in bag_files(folder):
            (view / path.name).symlink_to(path.absolute())
        yield view


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


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__
