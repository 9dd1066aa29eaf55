# SPDX-License-Identifier: Apache-2.0
"""
Saves what a damaged rosbag2 file still holds.

A recorder that lost power leaves a file without its index, which ordinary readers refuse.
Sources: the MCAP specification (mcap.dev/spec), the schema of rosbag2_storage_sqlite3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
import os
from pathlib import Path
import sqlite3
import struct
from typing import BinaryIO

from mtl_perception.ros.errors import RosError

_MAGIC = b'\x89MCAP0\r\n'
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END = 0x03, 0x04, 0x05, 0x06, 0x0F


@dataclass(frozen=True)
class SavedMessage:
    """One message as it was recorded."""

    topic: str
    type_name: str
    stamp_ns: int
    data: bytes


def recover(path: Path) -> Iterator[SavedMessage]:
    """
    Yield every message of a .mcap or .db3 file that can still be read, in file order.

    Raises
    ------
    RosError
        At the end, if anything was unreadable; the message says where.

    """
    return _recover_mcap(path) if path.suffix == '.mcap' else _recover_sqlite3(path)


def _text(data: bytes, offset: int) -> tuple[str, int]:
    (size,) = struct.unpack_from('<I', data, offset)
    start = offset + 4
    return data[start : start + size].decode(), start + size


class _Records:
    """Remembers the schemas and channels seen and turns message records into messages."""

    def __init__(self) -> None:
        self._schemas: dict[int, str] = {}
        self._channels: dict[int, tuple[str, str]] = {}

    def read(self, kind: int, content: bytes) -> SavedMessage | None:
        if kind == _SCHEMA:
            (number,) = struct.unpack_from('<H', content)
            self._schemas[number] = _text(content, 2)[0]
        elif kind == _CHANNEL:
            number, schema = struct.unpack_from('<HH', content)
            self._channels[number] = (_text(content, 4)[0], self._schemas[schema])
        elif kind == _MESSAGE:
            number, _, stamp_ns, _ = struct.unpack_from('<HIQQ', content)
            return SavedMessage(*self._channels[number], stamp_ns, content[22:])
        return None

    def read_chunk(self, content: bytes, cut: bool) -> Iterator[SavedMessage]:
        """Yield the messages of a chunk; of one that was cut, those stored uncompressed."""
        from rosbags.rosbag2.storage_mcap import DECOMPRESSORS

        _, _, size, _ = struct.unpack_from('<QQQI', content)
        compression, offset = _text(content, 28)
        data = content[offset + 8 :]
        if compression and cut:
            return
        records = DECOMPRESSORS[compression](data, size)
        position = 0
        while position + 9 <= len(records):
            kind, length = struct.unpack_from('<BQ', records, position)
            start = position + 9
            if start + length > len(records):
                return
            message = self.read(kind, records[start : start + length])
            if message is not None:
                yield message
            position = start + length


def _recover_mcap(path: Path) -> Iterator[SavedMessage]:
    size = path.stat().st_size
    damage = ''
    with path.open('rb') as stream:
        if stream.read(len(_MAGIC)) != _MAGIC:
            msg = f'{path} does not start like an MCAP file'
            raise RosError(msg)
        records = _Records()
        while True:
            position = stream.tell()
            kind, content, cut = _read_record(stream, size)
            if kind == _DATA_END and not cut:
                break
            try:
                if kind == _CHUNK:
                    yield from records.read_chunk(content, cut)
                elif not cut:
                    message = records.read(kind, content)
                    if message is not None:
                        yield message
            # Damaged bytes fail in as many ways as there are bytes; the next chunk may be whole.
            except Exception as error:
                damage = damage or (
                    f'{path} cannot be read at byte {position}: {error or type(error).__name__}'
                )
            if cut:
                damage = damage or f'{path} ends at byte {size} in the middle of a record'
                break
    if damage:
        raise RosError(damage)


def _read_record(stream: BinaryIO, size: int) -> tuple[int, bytes, bool]:
    """Return the kind and content of the next record, and whether the file ends inside it."""
    header = stream.read(9)
    if len(header) < 9:
        return 0, b'', True
    kind, length = struct.unpack('<BQ', header)
    # A length out of damaged bytes may be astronomical: never ask for more than there is.
    available = size - stream.tell()
    return kind, stream.read(min(length, available)), length > available


def _recover_sqlite3(path: Path) -> Iterator[SavedMessage]:
    uri = f'{path.resolve().as_uri()}?mode=ro&immutable=1'
    try:
        connection = sqlite3.connect(uri, uri=True)
        try:
            # Without this SQLite refuses any file that is shorter than its header says.
            connection.execute('PRAGMA writable_schema = ON')
            rows = connection.execute('SELECT id, name, type FROM topics')
            topics = {number: (name, type_name) for number, name, type_name in rows}
            # The order of the table itself: the index by time is often what was cut off.
            for number, stamp_ns, data in connection.execute(
                'SELECT topic_id, timestamp, data FROM messages ORDER BY id'
            ):
                yield SavedMessage(*topics[number], stamp_ns, data)
        finally:
            connection.close()
    except sqlite3.Error as error:
        msg = f'{path} cannot be read further than byte {os.path.getsize(path)}: {error}'
        raise RosError(msg) from error
