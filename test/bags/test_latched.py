# SPDX-License-Identifier: Apache-2.0
"""Which topics were latched, from recordings of every storage, whole and without their index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mtl_perception.bags.bag_file import BagFile
from mtl_perception.bags.latched import latched_topics
import pytest

# From metadata.yaml as rosbag2 of Humble (a text) and of Kilted (a list) write it.
_HUMBLE = """\
- history: 3
  depth: 0
  reliability: 1
  durability: {durability}
  deadline: {{sec: 9223372036, nsec: 854775807}}
  lifespan: {{sec: 9223372036, nsec: 854775807}}
  liveliness: 1
  liveliness_lease_duration: {{sec: 9223372036, nsec: 854775807}}
  avoid_ros_namespace_conventions: false
"""


def recording(bags: Any, path: Path, storage: str, version: int) -> Path:
    """/names is latched, /chatter is volatile, and nothing is known of /tf_static and /plain."""
    from rosbags.interfaces import (
        Qos,
        QosDurability,
        QosHistory,
        QosLiveliness,
        QosReliability,
        QosTime,
    )
    from rosbags.rosbag2 import StoragePlugin, Writer

    def profile(durability: Any) -> Any:
        time = QosTime(9223372036, 854775807)
        return [Qos(
            QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, durability, time, time,
            QosLiveliness.AUTOMATIC, time, False,
        )]  # fmt: skip

    topics = {
        '/names': profile(QosDurability.TRANSIENT_LOCAL),
        '/tf_static': (),
        '/chatter': profile(QosDurability.VOLATILE),
        '/plain': (),
    }
    name = 'std_msgs/msg/String'
    store = bags.typestore
    with Writer(path, version=version, storage_plugin=StoragePlugin[storage]) as writer:
        for topic, profiles in topics.items():
            link = writer.add_connection(
                topic, name, typestore=store, offered_qos_profiles=profiles
            )
            data = store.serialize_cdr(store.types[name](data=topic * 5000), name)
            writer.write(link, 1, data)
    return path


@pytest.mark.parametrize('storage', ['MCAP', 'SQLITE3'])
@pytest.mark.parametrize('version', [8, 9])
@pytest.mark.parametrize('metadata', [True, False])
def test_latched_topics_are_known_by_metadata_or_by_the_files(
    bags: Any, tmp_path: Path, storage: str, version: int, metadata: bool
) -> None:
    path = recording(bags, tmp_path / 'bag', storage, version)
    if not metadata:
        (path / 'metadata.yaml').unlink()
    with BagFile(path) as bag:
        assert latched_topics(bag) == {'/names', '/tf_static'}
    (file,) = (file for file in path.iterdir() if file.suffix != '.yaml')
    with BagFile(file) as bag:
        assert latched_topics(bag) == {'/names', '/tf_static'}


def test_a_damaged_file_latches_what_metadata_says_or_what_is_always_said_once(
    bags: Any, tmp_path: Path
) -> None:
    path = recording(bags, tmp_path / 'bag', 'MCAP', 9)
    (file,) = path.glob('*.mcap')
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2 + 20_000])
    with BagFile(path) as bag:
        assert latched_topics(bag) == {'/names', '/tf_static'}
    (path / 'metadata.yaml').unlink()
    with BagFile(path) as bag:
        assert '/tf_static' in bag.topics
        assert latched_topics(bag) == {'/tf_static'}
    # Foreign metadata is no reason to end.
    (path / 'metadata.yaml').write_text(
        'rosbag2_bagfile_information:\n  topics_with_message_count:\n'
        '    - {message_count: 1, topic_metadata: {name: /names, type: a/msg/B, '
        'offered_qos_profiles: 5}}\n'
    )
    with BagFile(path) as bag:
        assert latched_topics(bag) == frozenset()


def test_profiles_as_humble_writes_them(bags: Any, tmp_path: Path) -> None:
    path = recording(bags, tmp_path / 'bag', 'SQLITE3', 8)
    rows = ''.join(
        f'  - message_count: 1\n    topic_metadata:\n      name: {name}\n'
        f'      type: std_msgs/msg/String\n      serialization_format: cdr\n'
        f'      offered_qos_profiles: {_HUMBLE.format(durability=durability)!r}\n'.replace(
            "'", '"'
        )
        for name, durability in (('/names', 2), ('/chatter', 1))
    )
    (path / 'metadata.yaml').write_text(
        f'rosbag2_bagfile_information:\n  version: 5\n  topics_with_message_count:\n{rows}'
    )
    with BagFile(path) as bag:
        # The other way round than in the file: durability 2 is volatile, 1 transient_local.
        assert latched_topics(bag) == {'/chatter'}
