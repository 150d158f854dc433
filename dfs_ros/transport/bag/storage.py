"""Readers of the files of bags that leave out what is damaged, and say what: additions to those of rosbags."""

from __future__ import annotations

import heapq
import io
import sqlite3
import zlib
from collections.abc import Collection, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from rosbags.rosbag2.reader import DirectoryReader, Reader
from rosbags.rosbag2.storage_mcap import McapReader
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Reader

from dfs_ros.system.tracebacks import keep_traceback
from dfs_ros.transport.bag.mcap_file import Finished, chunk_content, messages, unchunked
from dfs_ros.transport.bag.metadata import CHECKSUMS, MAX_MESSAGE_BYTES

_END = 2**63 - 1


class Damage(list[str]):
    """What is missing or damaged in a bag, one sentence each; at most ten, then their number."""

    MOST = 10
    unfinished = False

    def __init__(self) -> None:
        super().__init__()
        self._more = 0

    def add(self, sentence: str) -> None:
        """Add a sentence, once."""
        if sentence in self:
            return
        if len(self) < self.MOST:
            self.append(sentence)
        else:
            self._more += 1

    @property
    def sentences(self) -> list[str]:
        """The sentences, the last one with the number of those left out."""
        return [*self, *([f"and {self._more} more"] if self._more else [])]


class _Opened:
    """Path whose file is an open stream."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def open(self, mode: str) -> Any:
        return self._stream


class _NoIndex(Exception):
    """A file has no index of chunks, which is no damage."""


class TolerantMcap(McapReader):
    """Reader of an mcap file, also without its end; damaged chunks are left out."""

    damage: Damage
    _walked = False

    def open(self) -> None:
        try:
            super().open()
            if not self.chunks:
                raise _NoIndex
        except PermissionError:
            raise
        except Exception as error:
            if self.bio is not None:
                self.close()
            keep_traceback(error)
            path: Any = self.path
            stream = Finished(path)
            for sentence in stream.found.damage:
                self.damage.add(f"{path}: {sentence}")
            if not isinstance(error, _NoIndex):
                self.damage.unfinished = True
                found = f"{stream.found.messages} messages"
                self.damage.add(f"{path}: has no whole end, as its recorder still runs or was stopped: {found}")
            opened: Any = _Opened(io.BufferedReader(stream))
            self.path, self._walked = opened, True
            try:
                super().open()
            finally:
                self.path = path

    def meta_scan(self) -> None:
        """Leave files without an index to :class:`Finished`: rosbags unpacks their chunks whatever their size."""
        if not self._walked:
            raise _NoIndex

    def messages(
        self, connections: Collection[Any], start: int | None = None, stop: int | None = None
    ) -> Generator[tuple[Any, int, bytes], None, None]:
        by_channel = {connection.id: connection for connection in connections}
        first, last = start or 0, _END if stop is None else stop
        if not self.chunks:
            stream: Any = self.bio
            for m in unchunked(stream, self.data_start, self.data_end):
                if m.channel in by_channel and first <= m.stamp_ns < last:
                    yield by_channel[m.channel], m.stamp_ns, m.data
            return
        chunks = [
            self._of_chunk(chunk, by_channel, first, last)
            for chunk in self.chunks
            if chunk.message_end_time >= first and chunk.message_start_time < last
        ]
        for stamp_ns, _, _, channel, data in heapq.merge(*chunks):
            if channel is not None:
                yield by_channel[channel], stamp_ns, data

    def _of_chunk(self, chunk: Any, wanted: Collection[int], first: int, last: int) -> Iterator[Any]:
        # Stands for the chunk until its time comes, so that only those that overlap are in memory.
        yield chunk.message_start_time, chunk.chunk_start_offset, -1, None, b""
        stream: Any = self.bio
        try:
            found = [
                (m.stamp_ns, chunk.chunk_start_offset, m.offset, m.channel, m.data)
                for m in messages(chunk_content(stream, chunk.chunk_start_offset))
                if m.channel in wanted and first <= m.stamp_ns < last
            ]
        except ValueError as error:
            keep_traceback(error)
            self.damage.add(f"{self.path}: the chunk at byte {chunk.chunk_start_offset} is left out: {error}")
            return
        yield from sorted(found, key=lambda message: message[:3])


class TolerantSqlite(Sqlite3Reader):
    """Reader of a sqlite3 file; an unfinished transaction is rolled back, damaged messages are left out."""

    damage: Damage

    def open(self) -> None:
        if Path(f"{self.path}-journal").exists() or Path(f"{self.path}-wal").exists():
            database = sqlite3.connect(str(self.path))
            try:
                database.execute("SELECT count(*) FROM topics").fetchone()
            finally:
                database.close()
        super().open()
        self._opened = cast(Any, self.dbconn)
        self._summed = bool(list(self._opened.execute(f"PRAGMA table_info({CHECKSUMS})")))
        closed = not self._summed or list(self._opened.execute("SELECT count(*) FROM metadata")) != [(0,)]
        if not closed:
            self.damage.unfinished = True
            self.damage.add(
                f"{self.path}: was not closed, as its recorder still runs or was stopped: "
                f"{self.metadata.message_count} messages"
            )

    def messages(
        self, connections: Collection[Any], start: int | None = None, stop: int | None = None
    ) -> Generator[tuple[Any, int, bytes], None, None]:
        by_topic = {connection.id: connection for connection in connections}
        sums = f"LEFT JOIN {CHECKSUMS} AS c ON c.message_id = m.id" if self._summed else ""
        query = (
            f"SELECT m.id, m.topic_id, m.timestamp, m.data, {'c.crc32' if sums else 'NULL'} FROM messages AS m {sums} "
            f"WHERE m.topic_id IN ({','.join('?' * len(by_topic))}) AND m.timestamp >= ? AND m.timestamp < ? "
            "AND length(m.data) <= ? ORDER BY m.timestamp, m.id"
        )
        limits = (start or 0, _END if stop is None else stop, MAX_MESSAGE_BYTES)
        rows = self._opened.execute(query, (*by_topic, *limits))
        while True:
            try:
                row = next(rows, None)
            except Exception as error:  # apsw's
                keep_traceback(error)
                self.damage.add(f"{self.path}: the rest is left out: {error}")
                return
            if row is None:
                return
            number, topic, stamp_ns, data, crc = row
            if not isinstance(data, bytes) or (crc is not None and zlib.crc32(data) != crc):
                self.damage.add(f"{self.path}: message {number} is left out: its CRC differs")
                continue
            yield by_topic[topic], stamp_ns, data


def open_bag(path: Path, damage: Damage) -> Reader:
    """Open a folder with metadata.yaml or one file by rosbags, tolerant as the classes above.

    Raises any exception of rosbags, sqlite or the decompressors.
    """

    class Mcap(TolerantMcap):
        pass

    class Sqlite(TolerantSqlite):
        pass

    class Folder(DirectoryReader):
        STORAGE_PLUGINS: Mapping[str, Any] = {"mcap": Mcap, "sqlite3": Sqlite}

    class Bag(Reader):
        STORAGE_PLUGINS: Mapping[str, Any] = {"dir": Folder, ".mcap": Mcap, ".db3": Sqlite}

    Mcap.damage = Sqlite.damage = damage
    reader = Bag(path)
    reader.open()
    return reader
