# SPDX-License-Identifier: Apache-2.0
"""A rosbag2 recording as a stream of recorded messages, whole or damaged, without ROS."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager, ExitStack
from dataclasses import dataclass
from pathlib import Path
import re
import shutil
import sqlite3
import tempfile
from typing import Any

from mtl_perception.bags.errors import BagError
from mtl_perception.bags.recovery import RecordedMessage, Recovery, zstd_module
from mtl_perception.closing import Closing

_METADATA = 'metadata.yaml'
_STORAGES = ('.mcap', '.db3')
_ZSTD_SUFFIXES = ('.zstd', '.zst')
_ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'


@dataclass(frozen=True)
class RecordedTopic:
    """What a recording says of one topic; `messages` is None where damage leaves it unknown."""

    type: str  # 'sensor_msgs/msg/Image'
    messages: int | None


class BagFile(Closing):
    """
    A rosbag2: a folder, or one of its files (.mcap, .db3, either with .zstd).

    Files are read one after the other, each in recorded order. A file that is cut off or
    damaged is read as far as possible; `damage` then has a sentence for it, complete once
    `messages()` has ended. A context manager.

    Raises
    ------
    BagError
        If there is nothing at `path` or nothing that can be read as a rosbag2.

    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.damage: list[str] = []
        self._stack = ExitStack()
        self._files = _storage_files(self.path)
        self._typestore: Any = None
        self.topics = self._find_topics()

    def close(self) -> None:
        """Remove what was unpacked."""
        self._stack.close()

    def messages(self, topics: Collection[str]) -> Iterator[RecordedMessage]:
        """Yield the messages of these topics; see `damage` for what could not be read."""
        wanted = frozenset(topics)
        self.damage.clear()
        for file in self._files:
            with self._unpacked(file) as storage:
                for message in self._file_messages(storage, wanted):
                    yield _decompressed(message)

    def connections(self) -> dict[str, Any]:
        """Return rosbags' Connection (type, definition, QoS) by topic, of whole files."""
        from rosbags.rosbag2 import Reader

        found: dict[str, Any] = {}
        for file in self._files:
            with self._unpacked(file) as storage:
                try:
                    with Reader(storage) as reader:
                        for connection in reader.connections:
                            found.setdefault(connection.topic, connection)
                # Damaged files make rosbags raise more than its own errors.
                except Exception:
                    continue
        return found

    def decode(self, message: RecordedMessage) -> Any:
        """
        Return the message with its fields.

        Raises
        ------
        BagError
            If the bytes are not a message of its type.

        """
        from rosbags.typesys import get_typestore, Stores

        # The messages read here have had the same fields from Humble to Kilted.
        if self._typestore is None:
            self._typestore = get_typestore(Stores.ROS2_HUMBLE)
        try:
            return self._typestore.deserialize_cdr(message.data, normalised_type(message.type))
        # Cut bytes fail in the middle of whatever field they should have been.
        except Exception as error:
            msg = (
                f'{self.path}: a message of {message.topic} cannot be read as '
                f'{message.type} ({type(error).__name__}: {error})'
            )
            raise BagError(msg) from error

    def _find_topics(self) -> dict[str, RecordedTopic]:
        metadata = _topics_by_metadata(self.path)
        if metadata:
            return metadata
        topics: dict[str, RecordedTopic] = {}
        for file in self._files:
            with self._unpacked(file) as storage:
                for name, found in _file_topics(storage).items():
                    known = topics.get(name, RecordedTopic(found.type, 0))
                    whole = known.messages is not None and found.messages is not None
                    total = (known.messages or 0) + (found.messages or 0) if whole else None
                    topics[name] = RecordedTopic(found.type, total)
        if not topics:
            msg = f'{self.path} cannot be read as a rosbag2: no topic is left in its files'
            raise BagError(msg)
        return topics

    @contextmanager
    def _unpacked(self, file: Path) -> Iterator[Path]:
        """Yield the file itself, or a temporary one with its decompressed content."""
        if file.suffix not in _ZSTD_SUFFIXES:
            with _with_log(file) as storage:
                yield storage
            return
        with tempfile.TemporaryDirectory(prefix='mtl_perception_bag_') as directory:
            unpacked = Path(directory) / file.stem
            with unpacked.open('wb') as target, zstd_module().open(file, 'rb') as source:
                try:
                    shutil.copyfileobj(source, target)
                # What came before the damage is in the file and is read as such.
                except Exception as error:
                    self.damage.append(f'{file} cannot be decompressed further: {error}')
            yield unpacked

    def _file_messages(self, file: Path, wanted: frozenset[str]) -> Iterator[RecordedMessage]:
        from rosbags.rosbag2 import Reader

        seen: Counter[tuple[str, int, int]] = Counter()
        try:
            with Reader(file) as reader:
                connections = [entry for entry in reader.connections if entry.topic in wanted]
                if connections:
                    for connection, recorded_ns, data in reader.messages(connections):
                        message = RecordedMessage(
                            connection.topic, connection.msgtype, recorded_ns, bytes(data)
                        )
                        seen[_identity(message)] += 1
                        yield message
        # Damaged files make rosbags raise more than its own errors.
        except Exception:
            recovery = Recovery(file)
            for message in recovery.messages():
                identity = _identity(message)
                if seen[identity]:
                    seen[identity] -= 1
                elif message.topic in wanted:
                    yield message
            self.damage += recovery.damage


def _identity(message: RecordedMessage) -> tuple[str, int, int]:
    """Return what tells messages apart: several of /tf may have the same time."""
    return message.topic, message.recorded_ns, hash(message.data)


@contextmanager
def _with_log(file: Path) -> Iterator[Path]:
    """
    Yield the file, or a copy into which the write-ahead log beside it was taken.

    A recorder that was killed leaves its last messages in the log (.db3-wal), which is not read
    from a file that must not be written to.
    """
    log = file.with_name(f'{file.name}-wal')
    if file.suffix != '.db3' or not log.is_file() or not log.stat().st_size:
        yield file
        return
    with tempfile.TemporaryDirectory(prefix='mtl_perception_bag_') as directory:
        copy = Path(directory) / file.name
        shutil.copyfile(file, copy)
        shutil.copyfile(log, copy.with_name(log.name))
        try:
            with closing(sqlite3.connect(copy)) as database:
                database.execute('PRAGMA wal_checkpoint(TRUNCATE)')
        except sqlite3.Error:
            pass  # a damaged database is read as far as possible without its log
        yield copy


def normalised_type(name: str) -> str:
    """Return a type name as ROS 2 writes it: sensor_msgs/Image is sensor_msgs/msg/Image."""
    package, _, rest = name.partition('/')
    return f'{package}/msg/{rest.rpartition("/")[2]}'


def _decompressed(message: RecordedMessage) -> RecordedMessage:
    """Undo rosbag2's compression per message: CDR never begins with zstd's magic number."""
    if not message.data.startswith(_ZSTD_MAGIC):
        return message
    try:
        data = zstd_module().decompress(message.data)
    # A message that cannot be decompressed is refused when it is decoded.
    except Exception:
        return message
    return RecordedMessage(message.topic, message.type, message.recorded_ns, data)


def _is_storage(file: Path) -> bool:
    name = file.name
    for suffix in _ZSTD_SUFFIXES:
        name = name.removesuffix(suffix)
    return name.endswith(_STORAGES)


def _natural_order(file: Path) -> list[tuple[int, str]]:
    """Sort bag_10 after bag_9."""
    return [
        (int(part), '') if part.isdigit() else (-1, part) for part in re.split(r'(\d+)', file.name)
    ]


def _storage_files(path: Path) -> list[Path]:
    if not path.exists():
        msg = f'there is no bag at {path}; give a rosbag2 folder, or its .mcap or .db3 file'
        raise BagError(msg)
    if path.is_file():
        if path.suffix == '.bag':
            msg = f'{path} is a ROS 1 bag; convert it: rosbags-convert --src {path} --dst DIR'
            raise BagError(msg)
        if not _is_storage(path):
            msg = f'{path} is not a rosbag2 file; give a .mcap or .db3 file, or their folder'
            raise BagError(msg)
        return [path]
    files = sorted(filter(_is_storage, path.iterdir()), key=_natural_order)
    if not files:
        msg = f'{path} holds no .mcap or .db3 file: it is not a rosbag2 folder'
        raise BagError(msg)
    return files


def read_metadata(path: Path) -> list[dict[str, Any]]:
    """Return name, type, QoS, `message_count` by topic of metadata.yaml; empty without one."""
    import yaml

    file = path / _METADATA
    if not file.is_file():
        return []
    try:
        information = yaml.safe_load(file.read_text())['rosbag2_bagfile_information']
        return [
            {**entry['topic_metadata'], 'message_count': entry['message_count']}
            for entry in information['topics_with_message_count']
        ]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return []


def _topics_by_metadata(path: Path) -> dict[str, RecordedTopic]:
    try:
        return {
            entry['name']: RecordedTopic(
                normalised_type(entry['type']), int(entry['message_count'])
            )
            for entry in read_metadata(path)
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _file_topics(file: Path) -> dict[str, RecordedTopic]:
    """Return the topics of one file by its index, or by reading it through."""
    from rosbags.rosbag2 import Reader

    try:
        with Reader(file) as reader:
            return {
                entry.topic: RecordedTopic(normalised_type(entry.msgtype), entry.msgcount)
                for entry in reader.connections
            }
    # Damaged files make rosbags raise more than its own errors.
    except Exception:
        return {
            message.topic: RecordedTopic(normalised_type(message.type), None)
            for message in Recovery(file).messages()
        }
