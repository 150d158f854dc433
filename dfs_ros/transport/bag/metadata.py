"""Names, topics and metadata.yaml of bags (rosbag2)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from dfs_ros.system.atomic import write_atomically

if TYPE_CHECKING:
    from rosbags.interfaces import Connection
    from rosbags.interfaces import Qos as RosQos

METADATA_FILE = "metadata.yaml"
UNFINISHED_FILE = "unfinished.txt"
"""Mark of a recording that is not closed."""
STORAGES = {"mcap": ".mcap", "sqlite3": ".db3"}
# Every current ROS 2 reads metadata of this version, with type hashes; from 9 on QoS is written in words, which older
# ones do not understand.
METADATA_VERSION = 8
MAX_MESSAGE_BYTES = 1 << 29
"""Largest message, or chunk of messages, that is decompressed."""
CHECKSUMS = "dfs_ros_checksums"
"""Table of the CRC-32 of each message in a sqlite3 bag, which other readers pass over."""


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


def bag_information(
    storage: str, files: Sequence[tuple[str, int, int, int]], topics: list[dict[str, Any]]
) -> dict[str, Any]:
    """Content of metadata.yaml; of each file its name, start and duration (ns) and number of messages."""
    filled = [file for file in files if file[3]]
    start_ns = min((start for _, start, _, _ in filled), default=2**63 - 1)
    end_ns = max((start + duration for _, start, duration, _ in filled), default=start_ns)
    return {
        "version": METADATA_VERSION,
        "storage_identifier": storage,
        "relative_file_paths": [name for name, *_ in files],
        "duration": {"nanoseconds": end_ns - start_ns},
        "starting_time": {"nanoseconds_since_epoch": start_ns},
        "message_count": sum(messages for *_, messages in files),
        "topics_with_message_count": topics,
        "compression_format": "",
        "compression_mode": "",
        "files": [
            {
                "path": name,
                "starting_time": {"nanoseconds_since_epoch": start},
                "duration": {"nanoseconds": duration},
                "message_count": messages,
            }
            for name, start, duration, messages in files
        ],
        "custom_data": None,
        "ros_distro": "rosbags",
    }


def write_metadata(folder: Path, information: dict[str, Any]) -> None:
    """Write metadata.yaml, atomically: the mark of a closed bag."""
    text = yaml.safe_dump({"rosbag2_bagfile_information": information}, sort_keys=False)
    write_atomically(folder / METADATA_FILE, text.encode())


def qos_text(profiles: Sequence[RosQos]) -> str:
    """Quality of service as rosbag2 writes it up to version 8."""

    def seconds(time: Any) -> dict[str, int]:
        return {"sec": time.sec, "nsec": time.nsec}

    values = [
        {
            "history": qos.history.value,
            "depth": qos.depth,
            "reliability": qos.reliability.value,
            "durability": qos.durability.value,
            "deadline": seconds(qos.deadline),
            "lifespan": seconds(qos.lifespan),
            "liveliness": qos.liveliness.value,
            "liveliness_lease_duration": seconds(qos.liveliness_lease_duration),
            "avoid_ros_namespace_conventions": qos.avoid_ros_namespace_conventions,
        }
        for qos in profiles
    ]
    return yaml.safe_dump(values, sort_keys=False).strip() if values else ""


def definition_store(topic: BagTopic) -> Any:
    """Type store with the type of a topic, as the bag defines it. Raises ValueError without a definition."""
    from rosbags.interfaces import MessageDefinitionFormat
    from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore

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


def type_hash(topic: BagTopic) -> str:
    """Type hash (RIHS01) of a topic by the definition in the bag; "" without one."""
    try:
        return topic.connection.digest or str(definition_store(topic).hash_rihs01(topic.type_name))
    except ValueError:
        return ""
