# SPDX-License-Identifier: Apache-2.0
"""Where the camera was at each moment, from a recording's odometry and transforms."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mtl_perception.bags.bag_file import BagFile
from mtl_perception.bags.errors import BagError
from mtl_perception.bags.topics import BagTopics
import numpy as np
import numpy.typing as npt

Pose = npt.NDArray[np.float64]  # (4, 4)

# A pose is not made up where nothing was said for longer than this.
_WIDEST_GAP_NS = 1_000_000_000
# Where to stop on the way up: the first has no jumps, the others may (REP-105).
_WORLD_FRAMES = ('odom', 'map', 'world')


@dataclass
class PoseTrack:
    """
    A frame's pose in its parent over time; linear in position, slerp in rotation between.

    Slerp: Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985.
    """

    parent: str
    is_static: bool = False
    _samples: dict[int, tuple[float, ...]] = field(default_factory=dict)
    _table: tuple[Any, Any] | None = None

    def add(self, stamp_ns: int, translation: Any, rotation: Any) -> None:
        """Add a geometry_msgs Point or Vector3 and a Quaternion; refuse what is no pose."""
        values = (
            translation.x, translation.y, translation.z,
            rotation.x, rotation.y, rotation.z, rotation.w,
        )  # fmt: skip
        norm = float(np.linalg.norm(values[3:]))
        if not np.isfinite(values).all() or not 0.9 < norm < 1.1:
            return  # drivers that do not know the pose yet send zeros or NaN
        # The first of two with one stamp: a looped recording says the same again.
        self._samples.setdefault(stamp_ns, tuple(float(value) for value in values))
        self._table = None

    def at(self, stamp_ns: int, reach_ns: int) -> Pose | None:
        """Return the pose (4, 4) at this time; None before, after (by `reach_ns`) or in a gap."""
        if not self._samples:
            return None
        if self._table is None:
            stamps = np.array(sorted(self._samples), np.int64)
            self._table = stamps, np.array([self._samples[int(stamp)] for stamp in stamps])
        stamps, values = self._table
        if self.is_static:
            return _matrix(values[0])
        right = int(np.searchsorted(stamps, stamp_ns))
        if right < len(stamps) and stamps[right] == stamp_ns:
            return _matrix(values[right])
        if right in (0, len(stamps)):
            nearest = min(right, len(stamps) - 1)
            is_near = abs(int(stamps[nearest]) - stamp_ns) <= reach_ns
            return _matrix(values[nearest]) if is_near else None
        before, after = int(stamps[right - 1]), int(stamps[right])
        if after - before > _WIDEST_GAP_NS:
            return None
        share = (stamp_ns - before) / (after - before)
        first, second = values[right - 1], values[right]
        position = (1 - share) * first[:3] + share * second[:3]
        return _matrix(np.concatenate((position, _slerp(first[3:], second[3:], share))))


class CameraPoses:
    """
    The pose of any frame of a recording in its world frame.

    Odometry (nav_msgs/Odometry) is an edge child_frame_id -> header.frame_id of the tree that
    /tf and /tf_static span, and its frame is then the world; without odometry the world is the
    frame odom, map or world on the way up, else the root. A chain that never moves is no motion.
    """

    def __init__(self, bag: BagFile, topics: BagTopics, reach_ns: int) -> None:
        self._reach_ns = reach_ns
        self._tracks: dict[str, PoseTrack] = {}
        self._odometry: PoseTrack | None = None
        self._chains: dict[str, list[PoseTrack] | None] = {}
        self.is_empty = True
        names = [name for name in (topics.odometry, topics.tf, topics.tf_static) if name]
        if names:
            self._read(bag, topics, names)

    def at(self, frame_id: str, stamp_ns: int) -> Pose | None:
        """Return frame_id -> world (4, 4) at this time, or None where it is not known."""
        if frame_id not in self._chains:
            self._chains[frame_id] = self._chain(frame_id)
        chain = self._chains[frame_id]
        if chain is None:
            return None
        pose = np.eye(4)
        for track in chain:
            step = track.at(stamp_ns, self._reach_ns)
            if step is None:
                return None
            pose = step @ pose
        return pose

    def _read(self, bag: BagFile, topics: BagTopics, names: list[str]) -> None:
        odometry_child = ''
        for recorded in bag.messages(names):
            try:
                message = bag.decode(recorded)
            except BagError:
                continue  # one pose less; the gap says so
            if recorded.topic == topics.odometry:
                if self._odometry is None:
                    odometry_child = str(message.child_frame_id)
                    self._odometry = PoseTrack(str(message.header.frame_id))
                pose = message.pose.pose
                self._odometry.add(_stamp(message.header), pose.position, pose.orientation)
                continue
            for entry in message.transforms:
                track = self._tracks.setdefault(
                    entry.child_frame_id,
                    PoseTrack(entry.header.frame_id, recorded.topic == topics.tf_static),
                )
                transform = entry.transform
                track.add(_stamp(entry.header), transform.translation, transform.rotation)
        if self._odometry is not None:
            self._tracks[odometry_child] = self._odometry
        self.is_empty = not self._tracks

    def _chain(self, frame_id: str) -> list[PoseTrack] | None:
        """Return the edges from this frame up to the world; None if they never move."""
        chain: list[PoseTrack] = []
        name = frame_id
        while name in self._tracks and len(chain) <= len(self._tracks):
            track = self._tracks[name]
            chain.append(track)
            name = track.parent
            if track is self._odometry or (
                self._odometry is None and name in _WORLD_FRAMES and not track.is_static
            ):
                break
        moves = any(not track.is_static for track in chain)
        return chain if moves and len(chain) <= len(self._tracks) else None


def _stamp(header: Any) -> int:
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)


def _slerp(first: Any, second: Any, share: float) -> npt.NDArray[np.float64]:
    first, second = first / np.linalg.norm(first), second / np.linalg.norm(second)
    cosine = float(first @ second)
    if cosine < 0:  # q and -q are one rotation: take the shorter way
        second, cosine = -second, -cosine
    angle = float(np.arctan2(np.linalg.norm(second - cosine * first), cosine))
    if angle < 1e-9:
        return np.asarray(first)
    weights = np.sin([(1 - share) * angle, share * angle]) / np.sin(angle)
    return np.asarray(weights[0] * first + weights[1] * second)


def _matrix(values: Any) -> Pose:
    x, y, z, w = values[3:] / np.linalg.norm(values[3:])
    pose = np.eye(4)
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    pose[:3, 3] = values[:3]
    return pose
