# SPDX-License-Identifier: Apache-2.0
"""Recordings as the distributions write them, Humble to Kilted, and those with old type names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import sqlite3
from typing import Any

from mtl_perception.bags.bag_file import BagFile
from mtl_perception.bags.frames import BagFrame, BagReader
from mtl_perception.camera import CameraModel
import numpy as np
import pytest
import yaml

CAMERA = CameraModel(32, 24, 30.0, 31.0, 15.5, 11.5)
IMAGE, INFO, DEPTH = '/camera/image_raw', '/camera/camera_info', '/camera/depth'
MS = 1_000_000
FRAMES = 3
# What each version of metadata.yaml brought (rosbag2, "Version history").
_SINCE = {'files': 5, 'custom_data': 6, 'ros_distro': 8}


def pictures(index: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(index)
    colour = random.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    return colour, random.integers(400, 9000, (24, 32), dtype=np.uint16)


def recording(maker: Any, path: Path, **options: Any) -> Path:
    messages = []
    for index in range(FRAMES):
        stamp = 10**9 + index * 33 * MS
        colour, depth = pictures(index)
        messages += [
            (IMAGE, stamp, maker.image(colour, 'rgb8', stamp)),
            (INFO, stamp + 1, maker.camera_info(CAMERA, stamp)),
            (DEPTH, stamp + 2, maker.image(depth, '16UC1', stamp)),
        ]
    bag: Path = maker.write(path, messages, **options)
    return bag


def check(path: Path) -> None:
    """Every frame has the pixels, depth and camera that were written."""
    with BagReader(path) as reader:
        assert (reader.topics.image, reader.topics.depth) == (IMAGE, DEPTH)
        assert reader.frame_count == FRAMES
        entries = list(reader.frames())
        assert reader.lost() == {}
    assert len(entries) == FRAMES
    for index, entry in enumerate(entries):
        assert isinstance(entry, BagFrame)
        assert entry.notes == ()
        colour, depth = pictures(index)
        np.testing.assert_array_equal(entry.frame.image, colour)
        np.testing.assert_allclose(entry.targets['depth'], depth / 1000, rtol=1e-6)
        assert entry.frame.camera is not None
        assert entry.frame.camera.matrix.tolist() == CAMERA.matrix.tolist()


def make_older(path: Path, version: int) -> None:
    """Take from metadata.yaml, and from a .db3 file, what came with later versions."""
    file = path / 'metadata.yaml'
    document = yaml.safe_load(file.read_text())
    information = document['rosbag2_bagfile_information']
    information['version'] = version
    for name, since in _SINCE.items():
        if version < since:
            del information[name]
    if version < 7:
        for entry in information['topics_with_message_count']:
            del entry['topic_metadata']['type_description_hash']
    file.write_text(yaml.safe_dump(document))
    for storage in path.glob('*.db3'):
        if version < 7:
            database = sqlite3.connect(storage)
            database.execute('DROP TABLE message_definitions')
            database.execute('ALTER TABLE topics DROP COLUMN type_description_hash')
            database.execute('UPDATE schema SET schema_version = 3')
            database.commit()
            database.close()


@pytest.mark.parametrize('storage', ['SQLITE3', 'MCAP'])
@pytest.mark.parametrize(
    ('distribution', 'version'),
    [
        ('ROS2_HUMBLE', 5), ('ROS2_IRON', 6), ('ROS2_IRON', 7), ('ROS2_IRON', 8),
        ('ROS2_JAZZY', 9), ('ROS2_KILTED', 9),
    ],
)  # fmt: skip
@pytest.mark.parametrize('metadata', [True, False])
def test_what_each_distribution_records_is_read(
    bags: Any, tmp_path: Path, storage: str, distribution: str, version: int, metadata: bool
) -> None:
    maker = type(bags)(distribution)
    path = recording(maker, tmp_path / 'bag', storage=storage, version=max(8, version))
    if version < 8:
        make_older(path, version)
    if not metadata:
        (path / 'metadata.yaml').unlink()
    check(path)


@pytest.mark.parametrize('storage', ['SQLITE3', 'MCAP'])
@pytest.mark.parametrize(
    'spoil', [lambda path: None, lambda path: (path / 'metadata.yaml').unlink()]
)
def test_a_recording_with_old_type_names_is_read(
    bags: Any, tmp_path: Path, storage: str, spoil: Callable[[Path], None]
) -> None:
    path = recording(
        bags, tmp_path / 'bag', storage=storage,
        type_name=lambda name: name.replace('/msg/', '/'),
    )  # fmt: skip
    assert b'sensor_msgs/Image' in b''.join(file.read_bytes() for file in path.iterdir())
    spoil(path)
    check(path)
    with BagFile(path) as bag:
        assert bag.topics[INFO].type == 'sensor_msgs/msg/CameraInfo'


def test_a_cut_recording_with_old_type_names_is_read_as_far_as_it_goes(
    bags: Any, tmp_path: Path
) -> None:
    path = recording(
        bags, tmp_path / 'bag', type_name=lambda name: name.replace('/msg/', '/')
    )
    (file,) = path.glob('*.mcap')
    file.write_bytes(file.read_bytes()[:-200])
    check(path)
