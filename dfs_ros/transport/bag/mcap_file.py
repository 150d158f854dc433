"""mcap files as they lie on the disk: checked chunks, and the summary that an unfinished file lacks.

Format: https://mcap.dev/spec. A file is readable up to its last whole chunk, whatever ended its writer.
"""

from __future__ import annotations

import errno
import io
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from dfs_ros.system.tracebacks import keep_traceback
from dfs_ros.transport.bag.metadata import MAX_MESSAGE_BYTES

_MAGIC = b"\x89MCAP0\r\n"
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _MESSAGE_INDEX, _LAST = 3, 4, 5, 6, 7, 0x0F
_HEAD = struct.Struct("<BQ")
_CHUNK_HEAD = struct.Struct("<QQQII")  # start, end, size, CRC, length of the name of the compression
_MESSAGE_HEAD = struct.Struct("<HIQQ")  # channel, sequence, time of reception, time of publication


class Message(NamedTuple):
    """Message in a chunk: time of reception, place in the chunk, channel, CDR data."""

    stamp_ns: int
    offset: int
    channel: int
    data: bytes


def inflated(compression: str, data: bytes, size: int) -> bytes:
    """Decompress `data` to exactly `size` bytes. Raises ValueError for any other length."""
    if size > MAX_MESSAGE_BYTES:
        raise ValueError(f"expected at most {MAX_MESSAGE_BYTES} bytes uncompressed, received {size}")
    if compression == "zstd":
        import zstandard

        with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)) as reader:
            data = reader.read(size + 1)
    elif compression == "lz4":
        from lz4.frame import LZ4FrameDecompressor

        data = LZ4FrameDecompressor().decompress(data, max_length=size + 1)
    elif compression:
        raise ValueError(f"expected compression by zstd or lz4, received {compression[:20]!r}")
    if len(data) != size:
        raise ValueError(f"expected {size} bytes, received {len(data)}{' or more' if len(data) > size else ''}")
    return data


def chunk_content(stream: BinaryIO, offset: int) -> bytes:
    """Decompressed records of the chunk at `offset`. Raises ValueError if it is damaged."""
    try:
        stream.seek(offset)
        opcode, length = _HEAD.unpack(stream.read(9))
        _, _, size, crc, name_length = _CHUNK_HEAD.unpack(stream.read(32))
        if opcode != _CHUNK or name_length > 20 or length > os.fstat(stream.fileno()).st_size:
            raise ValueError("expected a chunk there")
        compression = stream.read(name_length).decode("ascii")
        (stored,) = struct.unpack("<Q", stream.read(8))
        if stored != length - 40 - name_length:
            raise ValueError(f"expected {length - 40 - name_length} bytes in it, received {stored}")
        data = stream.read(stored)
        content = inflated(compression, data, size)
    except ValueError:
        raise
    except Exception as error:  # of the decompressors
        raise ValueError(str(error) or type(error).__name__) from error
    if crc and zlib.crc32(content) != crc:
        raise ValueError("its CRC differs")
    return content


def records(content: bytes) -> Iterator[tuple[int, int, memoryview]]:
    """Opcode, place and content of each record. Raises ValueError for a truncated one."""
    view, place = memoryview(content), 0
    while place < len(view):
        if place + 9 > len(view):
            raise ValueError("its last record is truncated")
        opcode, length = _HEAD.unpack_from(view, place)
        if length > len(view) - place - 9:
            raise ValueError("its last record is truncated")
        yield opcode, place, view[place + 9 : place + 9 + length]
        place += 9 + length


def messages(content: bytes) -> Iterator[Message]:
    """Messages of a decompressed chunk, in the order of the chunk. Raises ValueError if damaged."""
    for opcode, place, record in records(content):
        if opcode == _MESSAGE:
            if len(record) < _MESSAGE_HEAD.size:
                raise ValueError("one of its messages is truncated")
            channel, _, stamp_ns, _ = _MESSAGE_HEAD.unpack_from(record)
            yield Message(stamp_ns, place, channel, bytes(record[_MESSAGE_HEAD.size :]))


def unchunked(stream: BinaryIO, start: int, end: int) -> Iterator[Message]:
    """Messages outside of chunks between two places of a file, in its order, up to the first damage."""
    place = start
    while place + 9 <= end:
        stream.seek(place)
        opcode, length = _HEAD.unpack(stream.read(9))
        if length > end - place - 9:
            return
        if opcode == _MESSAGE and _MESSAGE_HEAD.size <= length <= MAX_MESSAGE_BYTES:
            channel, _, stamp_ns, _ = _MESSAGE_HEAD.unpack(stream.read(_MESSAGE_HEAD.size))
            yield Message(stamp_ns, place, channel, stream.read(length - _MESSAGE_HEAD.size))
        place += 9 + length


@dataclass
class Walked:
    """What lies in a file, found record by record: `chunks` are whole, `end` is behind the last whole record."""

    end: int = 0
    schemas: dict[int, Any] = field(default_factory=dict)
    channels: dict[int, Any] = field(default_factory=dict)
    chunks: list[Any] = field(default_factory=list)
    counts: list[dict[int, list[tuple[int, int]]]] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)
    unchunked: list[tuple[int, int]] = field(default_factory=list)
    """(channel, time) of each message outside of chunks."""

    @property
    def messages(self) -> int:
        """Number of whole messages."""
        return len(self.unchunked) + sum(len(index) for counts in self.counts for index in counts.values())


def walk(stream: BinaryIO) -> Walked:
    """Read a file from its start to its last whole record. Raises ValueError if it is no mcap file."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    if stream.read(8) != _MAGIC:
        raise ValueError("expected an mcap file, received something else or only the start of one")
    found = Walked(end=8)
    while True:
        stream.seek(found.end)
        head = stream.read(9)
        if len(head) < 9:
            break
        opcode, length = _HEAD.unpack(head)
        if not 1 <= opcode <= _LAST or opcode in (2, _LAST) or length > size - found.end - 9:
            break
        try:
            _take(found, opcode, length, stream)
        except Exception as error:  # also of the parsers of records
            keep_traceback(error)
            lost = f"the chunk at byte {found.end}" if opcode == _CHUNK else f"the record at byte {found.end}"
            found.damage.append(f"{lost} is damaged and left out: {error or type(error).__name__}")
        found.end += 9 + length
    return found


def _take(found: Walked, opcode: int, length: int, stream: BinaryIO) -> None:
    from mcap.records import ChunkIndex

    if opcode == _CHUNK:
        start_ns, end_ns, size, _, name_length = _CHUNK_HEAD.unpack(stream.read(32))
        content = chunk_content(stream, found.end)
        index: dict[int, list[tuple[int, int]]] = {}
        for kind, place, record in records(content):
            if kind in (_SCHEMA, _CHANNEL):
                _define(found, kind, bytes(record))
            elif kind == _MESSAGE:
                channel, _, stamp_ns, _ = _MESSAGE_HEAD.unpack_from(record)
                index.setdefault(channel, []).append((stamp_ns, place))
        stream.seek(found.end + 9 + 32)
        found.chunks.append(
            ChunkIndex(
                chunk_length=9 + length,
                chunk_start_offset=found.end,
                compression=stream.read(name_length).decode("ascii"),
                compressed_size=length - 40 - name_length,
                message_end_time=end_ns,
                message_index_length=0,
                message_index_offsets={},
                message_start_time=start_ns,
                uncompressed_size=size,
            )
        )
        found.counts.append(index)
    elif opcode == _MESSAGE_INDEX and found.chunks:
        chunk = found.chunks[-1]
        if found.end == chunk.chunk_start_offset + chunk.chunk_length + chunk.message_index_length:
            chunk.message_index_offsets[struct.unpack("<H", stream.read(2))[0]] = found.end
            chunk.message_index_length += 9 + length
    elif opcode in (_SCHEMA, _CHANNEL):
        _define(found, opcode, stream.read(length))
    elif opcode == _MESSAGE:
        channel, _, stamp_ns, _ = _MESSAGE_HEAD.unpack(stream.read(_MESSAGE_HEAD.size))
        found.unchunked.append((channel, stamp_ns))


def _define(found: Walked, opcode: int, record: bytes) -> None:
    from mcap.data_stream import ReadDataStream
    from mcap.records import Channel, Schema

    stream = ReadDataStream(io.BytesIO(record))
    if opcode == _SCHEMA:
        schema = Schema.read(stream)
        found.schemas[schema.id] = schema
    else:
        channel = Channel.read(stream)
        found.channels[channel.id] = channel


def ending(found: Walked) -> tuple[int, bytes]:
    """Place and content of the end that makes a whole file of what was found: index, summary, footer."""
    from mcap.data_stream import RecordBuilder
    from mcap.records import DataEnd, Footer, MessageIndex, Statistics

    builder: Any = RecordBuilder()
    place = found.end
    if found.chunks:  # the index of the last chunk is written again: it may have been cut off
        last, counts = found.chunks[-1], found.counts[-1]
        if not found.unchunked:
            place = last.chunk_start_offset + last.chunk_length
            last.message_index_offsets = {}
            for channel, index in counts.items():
                last.message_index_offsets[channel] = place + builder.count
                MessageIndex(channel, index).write(builder)
            last.message_index_length = builder.count
    DataEnd(0).write(builder)
    start = place + builder.count
    for group in (found.schemas.values(), found.channels.values(), found.chunks):
        for record in group:
            record.write(builder)
    per_channel = dict.fromkeys(found.channels, 0)
    times = [stamp_ns for _, stamp_ns in found.unchunked]
    for channel, _ in found.unchunked:
        per_channel[channel] = per_channel.get(channel, 0) + 1
    for counts in found.counts:
        for channel, index in counts.items():
            per_channel[channel] = per_channel.get(channel, 0) + len(index)
            times += [min(index)[0], max(index)[0]]
    Statistics(
        attachment_count=0,
        channel_count=len(found.channels),
        channel_message_counts=per_channel,
        chunk_count=len(found.chunks),
        message_count=found.messages,
        message_end_time=max(times, default=0),
        message_start_time=min(times, default=0),
        metadata_count=0,
        schema_count=len(found.schemas),
    ).write(builder)
    Footer(summary_start=start, summary_offset_start=0, summary_crc=0).write(builder)
    builder.write(_MAGIC)
    return place, builder.end()


def finish(path: Path) -> Walked:
    """Give an unfinished file its end, in place, and return what lies in it.

    On a full disk the last chunks make room for it.
    """
    with path.open("r+b") as stream:
        found = walk(stream)
        while True:
            place, content = ending(found)
            try:
                stream.truncate(place)
                stream.seek(place)
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
                return found
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not found.chunks:
                    raise
                found.end = found.chunks.pop().chunk_start_offset
                found.counts.pop()


class Finished(io.RawIOBase):
    """An unfinished file as it reads with its end, which stays in memory."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        try:
            self.found = walk(self._file)
        except BaseException:
            self._file.close()
            raise
        self._data_end, self._end = ending(self.found)
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._file.fileno()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = (0, self._place, self._data_end + len(self._end))[whence]
        self._place = base + offset
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any) -> int:
        if self._place < self._data_end:
            self._file.seek(self._place)
            data = self._file.read(min(len(buffer), self._data_end - self._place))
        else:
            data = self._end[self._place - self._data_end :][: len(buffer)]
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
