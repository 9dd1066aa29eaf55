# SPDX-License-Identifier: Apache-2.0
"""Camera poses against transforms that are multiplied by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mtl_perception.bags.frames import BagReader
from mtl_perception.bags.topics import BagTopics
import numpy as np
import pytest

MS = 1_000_000
START = 10**9


def pose(turn: float, position: tuple[float, float, float]) -> np.ndarray:
    """Turned about a slanted axis by `turn` radians (Rodrigues)."""
    axis = np.array([1.0, 2.0, -2.0]) / 3
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    result = np.eye(4)
    result[:3, :3] += np.sin(turn) * cross + (1 - np.cos(turn)) * cross @ cross
    result[:3, 3] = position
    return result


def quaternion(turn: float, sign: float = 1.0) -> tuple[float, ...]:
    x, y, z = np.array([1.0, 2.0, -2.0]) / 3 * np.sin(turn / 2)
    return tuple(sign * value for value in (x, y, z, np.cos(turn / 2)))


class Messages:
    """The messages of a bag with 3 frames 40 ms apart, seen by frame `optical`."""

    def __init__(self, bags: Any) -> None:
        self._bags, self._types = bags, bags.typestore.types
        self.entries: list[tuple[str, int, Any]] = []
        for index in range(3):
            stamp = START + index * 40 * MS
            image = bags.image(np.zeros((8, 8, 3), np.uint8), 'rgb8', stamp)
            self.entries.append(('/image', stamp, image))

    def _make(self, name: str, **fields: Any) -> Any:
        return self._types[f'{name}'](**fields)

    def _rotation(self, turn: float, sign: float) -> Any:
        x, y, z, w = quaternion(turn, sign)
        return self._make('geometry_msgs/msg/Quaternion', x=x, y=y, z=z, w=w)

    def odometry(
        self, stamp: int, turn: float, position: tuple[float, float, float],
        child: str = 'optical', sign: float = 1.0, topic: str = '/odom',
    ) -> None:
        x, y, z = position
        zero = self._make('geometry_msgs/msg/Vector3', x=0.0, y=0.0, z=0.0)
        message = self._make(
            'nav_msgs/msg/Odometry', header=self._bags.header(stamp, 'odom'),
            child_frame_id=child,
            pose=self._make(
                'geometry_msgs/msg/PoseWithCovariance', covariance=np.zeros(36),
                pose=self._make(
                    'geometry_msgs/msg/Pose', orientation=self._rotation(turn, sign),
                    position=self._make('geometry_msgs/msg/Point', x=x, y=y, z=z),
                ),
            ),
            twist=self._make(
                'geometry_msgs/msg/TwistWithCovariance', covariance=np.zeros(36),
                twist=self._make('geometry_msgs/msg/Twist', linear=zero, angular=zero),
            ),
        )
        self.entries.append((topic, stamp, message))

    def transform(
        self, topic: str, stamp: int, parent: str, child: str, turn: float,
        position: tuple[float, float, float],
    ) -> None:
        x, y, z = position
        entry = self._make(
            'geometry_msgs/msg/TransformStamped', header=self._bags.header(stamp, parent),
            child_frame_id=child,
            transform=self._make(
                'geometry_msgs/msg/Transform', rotation=self._rotation(turn, 1.0),
                translation=self._make('geometry_msgs/msg/Vector3', x=x, y=y, z=z),
            ),
        )
        message = self._make('tf2_msgs/msg/TFMessage', transforms=[entry])
        self.entries.append((topic, stamp, message))

    def poses(self, path: Path, given: BagTopics | None = None) -> list[Any]:
        ordered = sorted(self.entries, key=lambda entry: entry[1])
        with BagReader(self._bags.write(path, ordered), given) as reader:
            self.notes: list[str] = []
            result = []
            for entry in reader.frames():
                assert not hasattr(entry, 'reason')
                self.notes += entry.notes
                result.append(entry.pose)
            return result


def test_odometry_is_interpolated_at_the_stamp(bags: Any, tmp_path: Path) -> None:
    """Turning evenly about one axis, slerp gives the angle itself; one quaternion is negated."""
    messages = Messages(bags)
    for index in range(-1, 4):
        sign = -1.0 if index == 1 else 1.0
        at = START + index * 30 * MS
        messages.odometry(at, 0.3 * index, (0.1 * index, 1.0, -0.2 * index), sign=sign)
    poses = messages.poses(tmp_path / 'bag')
    for index, found in enumerate(poses):
        steps = index * 40 / 30
        expected = pose(0.3 * steps, (0.1 * steps, 1.0, -0.2 * steps))
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_odometry_of_the_base_goes_through_the_mounting(bags: Any, tmp_path: Path) -> None:
    messages = Messages(bags)
    for index in range(3):
        messages.odometry(START + index * 40 * MS, 0.2 * index, (index, 0.0, 0.0), 'base')
    messages.transform('/tf_static', START - 1, 'base', 'mast', 0.5, (0.0, 0.0, 1.0))
    messages.transform('/tf_static', START - 1, 'mast', 'optical', -1.0, (0.1, 0.0, 0.0))
    # A localisation above odometry jumps; it is not part of the way.
    messages.transform('/tf', START, 'map', 'odom', 1.0, (5.0, 5.0, 5.0))
    mounting = pose(0.5, (0, 0, 1)) @ pose(-1.0, (0.1, 0, 0))
    for index, found in enumerate(messages.poses(tmp_path / 'bag')):
        expected = pose(0.2 * index, (index, 0, 0)) @ mounting
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_transforms_alone_end_at_the_odometry_frame(bags: Any, tmp_path: Path) -> None:
    messages = Messages(bags)
    for index in range(3):
        at = START + index * 40 * MS
        messages.transform('/tf', at, 'odom', 'base', 0.1 * index, (0.0, index, 0.0))
        messages.transform('/tf', at, 'map', 'odom', 1.0 * index, (9.0, 9.0, 9.0))
    messages.transform('/tf_static', START, 'base', 'optical', 0.7, (0.0, 0.1, 0.0))
    for index, found in enumerate(messages.poses(tmp_path / 'bag')):
        expected = pose(0.1 * index, (0, index, 0)) @ pose(0.7, (0, 0.1, 0))
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_what_is_not_known_is_none_and_said(bags: Any, tmp_path: Path) -> None:
    messages = Messages(bags)
    messages.odometry(START, 0.0, (0.0, 0.0, 0.0))
    messages.odometry(START + 60 * MS, 0.0, (0.6, 0.0, 0.0))
    first, second, third = messages.poses(tmp_path / 'ends')
    assert first[0, 3] == 0
    assert second[0, 3] == pytest.approx(0.4)
    # 20 ms after the last pose: within the tolerance it is still the last pose.
    assert third[0, 3] == pytest.approx(0.6)
    gap = Messages(bags)
    gap.odometry(START - 600 * MS, 0.0, (0.0, 0.0, 0.0))
    gap.odometry(START + 600 * MS, 0.0, (0.6, 0.0, 0.0))
    assert gap.poses(tmp_path / 'gap') == [None] * 3
    assert gap.notes == ["no pose of 'optical' is known at the time of the frame"] * 3
    # A tree that does not reach the camera, one that never moves, and rotations of zero.
    other = Messages(bags)
    other.odometry(START, 0.0, (0.0, 0.0, 0.0), 'base')
    assert other.poses(tmp_path / 'other') == [None] * 3
    still = Messages(bags)
    still.transform('/tf_static', START, 'base', 'optical', 0.0, (0.0, 0.0, 0.0))
    assert still.poses(tmp_path / 'still') == [None] * 3
    zero = Messages(bags)
    zero.odometry(START, 0.0, (0.0, 0.0, 0.0), sign=0.0)
    assert zero.poses(tmp_path / 'zero') == [None] * 3
    nothing = Messages(bags)
    assert nothing.poses(tmp_path / 'nothing') == [None] * 3
    assert nothing.notes == []


def test_one_of_several_odometries_must_be_named(bags: Any, tmp_path: Path) -> None:
    messages = Messages(bags)
    for number, topic in enumerate(('/wheels', '/visual')):
        for index in range(3):
            at = START + index * 40 * MS
            messages.odometry(at, 0.0, (number + 1.0, 0.0, 0.0), topic=topic)
    assert messages.poses(tmp_path / 'none') == [None] * 3
    found = messages.poses(tmp_path / 'named', BagTopics(odometry='/visual'))
    assert [entry[0, 3] for entry in found] == [2.0] * 3
