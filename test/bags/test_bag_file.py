# SPDX-License-Identifier: Apache-2.0
"""Recordings of every storage, whole, split, packed and damaged, against what was written."""

from __future__ import annotations

import gzip
from itertools import islice
from pathlib import Path
import shutil
import sqlite3
from typing import Any

from mtl_perception.bags.bag_file import BagFile, RecordedTopic
from mtl_perception.bags.errors import BagError
import numpy as np
import pytest

IMAGE = '/camera/image_raw'
DEPTH = '/camera/depth'
FRAMES = 24


def recording(bags: Any, first: int = 0, last: int = FRAMES) -> list[tuple[str, int, Any]]:
    """Two topics; incompressible pixels, so that a cut somewhere costs about that much."""
    messages = []
    for index in range(first, last):
        random = np.random.default_rng(index)
        stamp = 1_000_000_000 + index * 33_000_000
        pixels = random.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        depth = random.integers(500, 5000, (24, 32), dtype=np.uint16)
        messages.append((IMAGE, stamp, bags.image(pixels, 'rgb8', stamp)))
        messages.append((DEPTH, stamp + 1000, bags.image(depth, '16UC1', stamp)))
    return messages


def read(path: Path, topics: tuple[str, ...] = (IMAGE, DEPTH)) -> tuple[list[Any], list[str]]:
    """Return (topic, recorded_ns, first pixels) of all messages, and the damage."""
    with BagFile(path) as bag:
        entries = [
            (message.topic, message.recorded_ns, bytes(bag.decode(message).data[:16]))
            for message in bag.messages(topics)
        ]
        return entries, list(bag.damage)


def written(messages: list[tuple[str, int, Any]]) -> list[Any]:
    return [(topic, stamp, bytes(message.data[:16])) for topic, stamp, message in messages]


def storage_file(bag: Path) -> Path:
    (file,) = (file for file in bag.iterdir() if file.name != 'metadata.yaml')
    return file


@pytest.mark.parametrize(
    ('storage', 'compression'),
    [
        ('MCAP', None),
        ('MCAP', 'STORAGE'),
        ('MCAP', 'FILE'),
        ('MCAP', 'MESSAGE'),
        ('SQLITE3', None),
        ('SQLITE3', 'FILE'),
        ('SQLITE3', 'MESSAGE'),
    ],
)
@pytest.mark.parametrize('metadata', [True, False])
def test_every_storage_gives_every_message(
    bags: Any, tmp_path: Path, storage: str, compression: str | None, metadata: bool
) -> None:
    messages = recording(bags)
    path = bags.write(tmp_path / 'bag', messages, storage=storage, compression=compression)
    if not metadata:
        (path / 'metadata.yaml').unlink()
    assert read(path) == (written(messages), [])
    assert read(storage_file(path)) == (written(messages), [])
    with BagFile(path) as bag:
        assert bag.topics == {
            name: RecordedTopic('sensor_msgs/msg/Image', FRAMES) for name in (IMAGE, DEPTH)
        }


def test_only_the_topics_asked_for(bags: Any, tmp_path: Path) -> None:
    messages = recording(bags)
    path = bags.write(tmp_path / 'bag', messages)
    assert read(path, (DEPTH,))[0] == [entry for entry in written(messages) if entry[0] == DEPTH]


def test_the_parts_of_a_split_bag_follow_each_other(bags: Any, tmp_path: Path) -> None:
    """Part 10 comes after part 9, whatever the alphabet says."""
    whole = tmp_path / 'whole'
    whole.mkdir()
    expected = []
    for part in range(11):
        messages = recording(bags, 2 * part, 2 * part + 2)
        expected += written(messages)
        piece = bags.write(tmp_path / f'part{part}', messages)
        shutil.copy(storage_file(piece), whole / f'whole_{part}.mcap')
    assert read(whole) == (expected, [])
    with BagFile(whole) as bag:
        assert bag.topics[IMAGE].messages == 22


@pytest.mark.parametrize(
    ('storage', 'compression'), [('MCAP', None), ('MCAP', 'STORAGE'), ('SQLITE3', None)]
)
@pytest.mark.parametrize('fraction', [0.2, 0.5, 0.9, 0.999])
def test_a_cut_file_gives_what_is_left_and_says_so(
    bags: Any, tmp_path: Path, storage: str, compression: str | None, fraction: float
) -> None:
    messages = recording(bags, last=200)
    path = bags.write(tmp_path / 'bag', messages, storage=storage, compression=compression)
    file = storage_file(path)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * fraction)])
    entries, damage = read(path)
    # A prefix, and not much less than the share of the file: its index is a part too, and zstd
    # gives a block of 128 KiB whole or not at all.
    assert entries == written(messages)[: len(entries)]
    block = 0 if compression is None else 2**17 / len(content)
    assert len(entries) / len(messages) > fraction - 0.06 - block
    # Where only the index was cut off, nothing is lost and there is nothing to say.
    assert len(damage) == (len(entries) < len(messages))
    assert all(str(file) in sentence for sentence in damage)
    with BagFile(path) as bag:
        assert bag.topics[IMAGE].messages == 200  # metadata.yaml still knows


def test_a_damaged_chunk_costs_only_itself(bags: Any, tmp_path: Path) -> None:
    messages = recording(bags, last=900)
    path = bags.write(tmp_path / 'bag', messages, compression='STORAGE')
    file = storage_file(path)
    content = bytearray(file.read_bytes())
    # The frame of zstd that comes first after the middle: without its magic it is lost.
    middle = content.index(b'\x28\xb5\x2f\xfd', len(content) // 2)
    content[middle : middle + 4] = bytes(4)
    file.write_bytes(content)
    entries, damage = read(path)
    expected = written(messages)
    assert set(entries) < set(expected)
    assert len(set(entries)) == len(entries)
    assert entries[0] == expected[0]
    assert entries[-1] == expected[-1]
    assert len(entries) > 0.3 * len(expected)
    assert len(damage) == 1
    assert 'damaged at byte' in damage[0]


@pytest.mark.parametrize('storage', ['MCAP', 'SQLITE3'])
@pytest.mark.parametrize('good', range(7))
def test_messages_of_one_time_are_told_apart_after_damage(
    bags: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: str, good: int
) -> None:
    """Damage after `good` messages; /tf has several at one time, two of them alike."""
    from rosbags.rosbag2 import Reader

    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (4, 4, 3), dtype=np.uint8) for _ in range(3)]
    messages = [
        (topic, stamp, bags.image(pictures[index], 'rgb8', stamp))
        for topic, stamp, index in (
            ('/tf', 1, 0), ('/tf', 1, 1), ('/tf', 1, 1), (IMAGE, 1, 0), ('/tf', 2, 1),
            ('/tf', 2, 2),
        )
    ]  # fmt: skip
    path = bags.write(tmp_path / 'bag', messages, storage=storage)
    whole = Reader.messages

    def until(self: Reader, *arguments: Any) -> Any:
        yield from islice(whole(self, *arguments), good)
        raise ValueError('damaged')

    monkeypatch.setattr(Reader, 'messages', until)
    entries, _ = read(path, ('/tf', IMAGE))
    assert sorted(entries) == sorted(written(messages))


@pytest.mark.parametrize('storage', ['MCAP', 'SQLITE3'])
def test_a_cut_packed_file_gives_what_can_be_unpacked(
    bags: Any, tmp_path: Path, storage: str
) -> None:
    messages = recording(bags, last=900)
    path = bags.write(tmp_path / 'bag', messages, storage=storage, compression='FILE')
    file = storage_file(path)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 2 // 3])
    entries, damage = read(path)
    assert entries == written(messages)[: len(entries)]
    assert 0 < len(entries) < len(messages)
    assert any('decompressed' in sentence for sentence in damage)


def test_metadata_that_is_no_yaml_does_not_matter(bags: Any, tmp_path: Path) -> None:
    messages = recording(bags)
    path = bags.write(tmp_path / 'bag', messages)
    (path / 'metadata.yaml').write_text('{[')
    assert read(path) == (written(messages), [])


def test_a_message_of_another_type_is_refused(bags: Any, tmp_path: Path) -> None:
    path = bags.write(tmp_path / 'bag', recording(bags, last=1))
    with BagFile(path) as bag:
        message = next(bag.messages([IMAGE]))
        cut = type(message)(message.topic, message.type, message.recorded_ns, message.data[:30])
        with pytest.raises(BagError, match=rf'{IMAGE}.*sensor_msgs/msg/Image'):
            bag.decode(cut)


def test_old_type_names_are_understood(bags: Any, tmp_path: Path) -> None:
    path = bags.write(tmp_path / 'bag', recording(bags, last=1))
    with BagFile(path) as bag:
        message = next(bag.messages([IMAGE]))
        old = type(message)(message.topic, 'sensor_msgs/Image', 0, message.data)
        assert bag.decode(old).encoding == 'rgb8'


def test_what_is_no_bag_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(BagError, match='there is no bag'):
        BagFile(tmp_path / 'missing')
    with pytest.raises(BagError, match=r'no \.mcap or \.db3'):
        BagFile(tmp_path)
    ros1 = tmp_path / 'old.bag'
    ros1.write_bytes(b'#ROSBAG V2.0\n')
    with pytest.raises(BagError, match='rosbags-convert'):
        BagFile(ros1)
    text = tmp_path / 'notes.txt'
    text.write_text('nothing')
    with pytest.raises(BagError, match='not a rosbag2 file'):
        BagFile(text)
    for name, content in (
        ('a.mcap', b''), ('b.db3', b''), ('c.mcap', gzip.compress(b'x')), ('d.db3', b'SQLite'),
    ):  # fmt: skip
        foreign = tmp_path / name
        foreign.write_bytes(content)
        with pytest.raises(BagError, match='no topic is left'):
            BagFile(foreign)


def test_a_log_that_a_killed_recorder_left_is_read(bags: Any, tmp_path: Path) -> None:
    """The last messages are in the write-ahead log only; the bag itself stays as it is."""
    messages = recording(bags)
    path = bags.write(tmp_path / 'bag', messages, storage='SQLITE3')
    file = storage_file(path)
    database = sqlite3.connect(file)
    database.execute('PRAGMA journal_mode = WAL')
    database.execute('PRAGMA wal_autocheckpoint = 0')
    extra = database.execute('SELECT topic_id, data FROM messages ORDER BY id LIMIT 1').fetchone()
    database.execute(
        'INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)',
        (extra[0], 9 * 10**9, extra[1]),
    )
    database.commit()
    killed = tmp_path / 'killed'
    killed.mkdir()
    for entry in path.iterdir():
        if not entry.name.endswith(('-shm', '.yaml')):
            shutil.copy(entry, killed / entry.name)
    database.close()
    before = {entry.name: entry.read_bytes() for entry in killed.iterdir()}
    assert any(name.endswith('-wal') for name in before)
    entries, damage = read(killed)
    assert len(entries) == len(messages) + 1
    assert entries[-1][1] == 9 * 10**9
    assert damage == []
    assert {entry.name: entry.read_bytes() for entry in killed.iterdir()} == before
