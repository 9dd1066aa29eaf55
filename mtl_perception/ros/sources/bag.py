# SPDX-License-Identifier: Apache-2.0
"""The messages of a rosbag2 as the bytes that were recorded, as far as the bag is whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtl_perception.ros.errors import RosError
from mtl_perception.ros.sources.bag_recovery import recover, SavedMessage
import yaml

_METADATA = 'metadata.yaml'
_STORAGES = ('.mcap', '.db3')


@dataclass(frozen=True)
class BagTopic:
    """One recorded topic; `latched` = its publisher was transient_local (tf_static, labels)."""

    name: str
    type_name: str  # 'sensor_msgs/msg/Image'
    latched: bool = False


@dataclass(frozen=True)
class BagMessage:
    """One recorded message: the CDR bytes, and when the recorder received them."""

    topic: BagTopic
    stamp_ns: int
    data: bytes


class BagSource:
    """
    Reads a rosbag2 folder, or one of its .mcap or .db3 files, in the order of recording.

    `topics` are the recorded ones by name and `expected` how many messages each should have,
    empty where a damaged bag does not tell. A context manager.

    Raises
    ------
    RosError
        If nothing at `path` can be read as a rosbag2.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files = _storage_files(path)
        self._metadata = _read_metadata(path)
        self._stack = ExitStack()
        self._reader: Any = None
        self._failure = ''
        self._open()
        self.topics, self.expected = self._describe()

    def _open(self) -> None:
        from rosbags.rosbag2 import Reader

        try:
            self._reader = self._stack.enter_context(Reader(self.path))
        # Damaged files make rosbags raise more than its own errors.
        except Exception as error:
            self._failure = str(error) or type(error).__name__
            if self._metadata.get('compression_mode') or not self._files:
                msg = f'bag:{self.path} cannot be read: {self._failure}'
                raise RosError(msg) from error

    def _describe(self) -> tuple[dict[str, BagTopic], dict[str, int]]:
        topics: dict[str, BagTopic] = {}
        expected: dict[str, int] = {}
        if self._reader is not None:
            for one in self._reader.connections:
                topics[one.topic] = BagTopic(one.topic, one.msgtype, _latched(one))
                expected[one.topic] = one.msgcount
            return topics, expected
        for entry in self._metadata.get('topics_with_message_count', []):
            name = str(entry['topic_metadata']['name'])
            topics[name] = BagTopic(name, str(entry['topic_metadata']['type']))
            expected[name] = int(entry['message_count'])
        if not topics:
            try:
                for saved in self._saved():
                    topics.setdefault(saved.topic, BagTopic(saved.topic, saved.type_name))
            except RosError as error:
                self._failure = str(error)
        if not topics:
            msg = f'bag:{self.path} cannot be read: {self._failure}'
            raise RosError(msg)
        return topics, expected

    def _saved(self) -> Iterator[SavedMessage]:
        """Yield what can be saved from every file, then raise for the first damaged one."""
        damage: RosError | None = None
        for file in self._files:
            try:
                yield from recover(file)
            except RosError as error:
                damage = damage or error
        if damage is not None:
            raise damage

    def messages(self) -> Iterator[BagMessage]:
        """
        Yield every message in the order of recording.

        Raises
        ------
        RosError
            Once everything readable has been yielded, if the bag is damaged.

        """
        last_ns = -1
        at_last: set[str] = set()
        if self._reader is not None:
            try:
                for connection, stamp_ns, data in self._reader.messages():
                    if stamp_ns != last_ns:
                        last_ns, at_last = stamp_ns, set()
                    at_last.add(connection.topic)
                    yield BagMessage(self.topics[connection.topic], stamp_ns, bytes(data))
                return
            # GeneratorExit, the caller's wish to stop, is no Exception.
            except Exception as error:
                self._failure = str(error) or type(error).__name__
                if self._metadata.get('compression_mode'):
                    msg = f'bag:{self.path} is damaged: {self._failure}'
                    raise RosError(msg) from error
        try:
            for saved in self._saved():
                topic = self.topics.get(saved.topic)
                is_new = saved.stamp_ns > last_ns or (
                    saved.stamp_ns == last_ns and saved.topic not in at_last
                )
                if topic is not None and is_new:
                    yield BagMessage(topic, saved.stamp_ns, saved.data)
        except RosError as error:
            msg = f'bag:{self.path} is damaged: {error}'
            raise RosError(msg) from error
        if self._reader is not None:
            msg = f'bag:{self.path} is damaged: {self._failure}'
            raise RosError(msg)

    def __enter__(self) -> BagSource:
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the files."""
        self._stack.close()


def _storage_files(path: Path) -> list[Path]:
    """Return the files that hold the messages of the bag at `path`, in recording order."""
    if not path.exists():
        msg = f'bag:{path} does not exist'
        raise RosError(msg)
    if path.suffix == '.bag':
        msg = f'bag:{path} is a ROS 1 bag; convert it: rosbags-convert --src {path} --dst DIR'
        raise RosError(msg)
    if path.is_file():
        if path.suffix not in _STORAGES:
            msg = f'bag:{path} is neither a rosbag2 folder nor a .mcap or .db3 file'
            raise RosError(msg)
        return [path]
    files = [file for file in path.iterdir() if file.suffix in _STORAGES]
    if not files and not (path / _METADATA).is_file():
        msg = f'bag:{path} holds neither {_METADATA} nor a .mcap or .db3 file'
        raise RosError(msg)
    # rosbag2 numbers the parts of a split bag without padding: _2 comes before _10.
    return sorted(files, key=lambda file: (len(file.name), file.name))


def _read_metadata(path: Path) -> dict[str, Any]:
    """Return what metadata.yaml says about the bag, {} where it says nothing usable."""
    try:
        content = yaml.safe_load((path / _METADATA).read_text())
        return dict(content['rosbag2_bagfile_information'])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValueError):
        return {}


def _latched(connection: Any) -> bool:
    return any(
        qos.durability.name == 'TRANSIENT_LOCAL' for qos in connection.ext.offered_qos_profiles
    )
