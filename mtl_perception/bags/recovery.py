# SPDX-License-Identifier: Apache-2.0
"""
Read what a damaged .mcap or .db3 file still holds.

A recorder that lost power leaves a file without its index, which the ordinary readers refuse.
Sources: the MCAP specification (records, chunks), the tables of rosbag2_storage_sqlite3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
import sqlite3
import struct
import sys
from typing import Any, BinaryIO
import zlib

_MAGIC = b'\x89MCAP0\r\n'
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END = 0x03, 0x04, 0x05, 0x06, 0x0F


@dataclass(frozen=True)
class RecordedMessage:
    """One message as it was recorded: its CDR bytes and the time of its recording."""

    topic: str
    type: str
    recorded_ns: int
    data: bytes


@dataclass
class Recovery:
    """
    What is left of one file; `damage` says, after `messages()`, what could not be read.

    `messages()` never raises for damaged content: it ends where nothing more can be read.
    """

    path: Path
    damage: list[str] = field(default_factory=list)

    def messages(self) -> Iterator[RecordedMessage]:
        """Yield the messages in the order of the file."""
        if self.path.suffix == '.db3':
            yield from self._sqlite3_messages()
        else:
            yield from self._mcap_messages()

    def _mcap_messages(self) -> Iterator[RecordedMessage]:
        size = self.path.stat().st_size
        records = _McapRecords()
        with self.path.open('rb') as stream:
            if stream.read(len(_MAGIC)) != _MAGIC:
                self.damage.append(f'{self.path} does not start like an MCAP file')
                return
            while True:
                position = stream.tell()
                kind, content, is_whole = _read_record(stream, size)
                if kind == _DATA_END and is_whole:
                    return
                try:
                    if is_whole:
                        yield from records.read(kind, content)
                    elif kind == _CHUNK:
                        yield from records.read_cut_chunk(content)
                # Damaged bytes fail in as many ways as there are bytes, and the decompressors
                # have no error in common; the next chunk may well be whole.
                except Exception as error:
                    reason = str(error) or type(error).__name__
                    self.damage.append(f'{self.path} is damaged at byte {position}: {reason}')
                if not is_whole:
                    self.damage.append(f'{self.path} was cut off at byte {size}')
                    return

    def _sqlite3_messages(self) -> Iterator[RecordedMessage]:
        database = sqlite3.connect(f'{self.path.resolve().as_uri()}?immutable=1', uri=True)
        newest: RecordedMessage | None = None
        is_partial = False
        try:
            # SQLite refuses a file that is shorter than its header says, unless schemas may be
            # written (which an immutable database never is).
            database.execute('PRAGMA writable_schema = ON')
            (page_size,) = database.execute('PRAGMA page_size').fetchone()
            is_partial = self.path.stat().st_size % page_size != 0
            topics = {
                number: (name, kind)
                for number, name, kind in database.execute('SELECT id, name, type FROM topics')
            }
            # By the table itself: the index by time lies all over the file.
            for number, recorded_ns, data in database.execute(
                'SELECT topic_id, timestamp, data FROM messages NOT INDEXED ORDER BY id'
            ):
                if newest is not None:
                    yield newest
                topic, kind = topics[number]
                newest = RecordedMessage(topic, kind, recorded_ns, data)
        except (sqlite3.Error, KeyError) as error:
            self.damage.append(f'{self.path} cannot be read further: {error}')
        finally:
            database.close()
        # SQLite fills up a last page that was cut with zeros, and with it the newest message.
        if newest is not None and not (is_partial and self.damage):
            yield newest


def _read_record(stream: BinaryIO, size: int) -> tuple[int, bytes, bool]:
    """Return the kind of the next record, its content, and whether the file holds all of it."""
    header = stream.read(9)
    if len(header) < 9:
        return 0, b'', False
    kind, length = struct.unpack('<BQ', header)
    # A length of damaged bytes may be astronomical: never ask for more than there is.
    available = size - stream.tell()
    return kind, stream.read(min(length, available)), length <= available


def _text(content: bytes, offset: int) -> tuple[str, int]:
    (length,) = struct.unpack_from('<I', content, offset)
    start = offset + 4
    return content[start : start + length].decode(), start + length


def zstd_module() -> Any:
    """Return the zstd that rosbags decompresses with: Python's own since 3.14."""
    name = 'compression.zstd' if sys.version_info >= (3, 14) else 'backports.zstd'
    return import_module(name)


class _McapRecords:
    """The schemas and channels seen so far, which give the messages their topic and type."""

    def __init__(self) -> None:
        self._types: dict[int, str] = {}
        self._channels: dict[int, tuple[str, str]] = {}

    def read(self, kind: int, content: bytes) -> Iterator[RecordedMessage]:
        if kind == _SCHEMA:
            (number,) = struct.unpack_from('<H', content)
            self._types[number] = _text(content, 2)[0]
        elif kind == _CHANNEL:
            number, schema = struct.unpack_from('<HH', content)
            self._channels[number] = (_text(content, 4)[0], self._types[schema])
        elif kind == _MESSAGE:
            number, _, recorded_ns, _ = struct.unpack_from('<HIQQ', content)
            yield RecordedMessage(*self._channels[number], recorded_ns, content[22:])
        elif kind == _CHUNK:
            yield from self._chunk(content)

    def _chunk(self, content: bytes) -> Iterator[RecordedMessage]:
        from rosbags.rosbag2.storage_mcap import DECOMPRESSORS

        _, _, size, checksum = struct.unpack_from('<QQQI', content)
        compression, offset = _text(content, 28)
        records = DECOMPRESSORS[compression](content[offset + 8 :], size)
        if checksum and zlib.crc32(records) != checksum:
            msg = 'the checksum of a chunk does not match'
            raise ValueError(msg)
        yield from self._records(records)

    def read_cut_chunk(self, content: bytes) -> Iterator[RecordedMessage]:
        """Yield the whole messages of a chunk that the file ends in."""
        if len(content) < 40:
            return
        compression, offset = _text(content, 28)
        records = content[offset + 8 :]
        if compression == 'zstd':
            records = zstd_module().ZstdDecompressor().decompress(records)
        if compression in ('', 'zstd'):
            yield from self._records(records)

    def _records(self, records: bytes) -> Iterator[RecordedMessage]:
        position = 0
        while position + 9 <= len(records):
            kind, length = struct.unpack_from('<BQ', records, position)
            start = position + 9
            position = start + length
            if position <= len(records):
                yield from self.read(kind, records[start:position])
