# SPDX-License-Identifier: Apache-2.0
"""Your own robot's recording as a dataset: colour and aligned depth, no labelling at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
import logging
from pathlib import Path
from typing import Any

import cv2
from mtl_perception.bags.bag_file import BagFile
from mtl_perception.bags.decoding import decode_colour, decode_target
from mtl_perception.bags.recovery import RecordedMessage
from mtl_perception.bags.stamps import Match, match_stamps, Stamped
from mtl_perception.bags.topics import BagTopics, find_topics, says_rectified
from mtl_perception.camera import CameraModel
from mtl_perception.command_line import progress_bar
from mtl_perception.datasets.depth_edges import depth_jump_edges
from mtl_perception.datasets.errors import DatasetError
from mtl_perception.datasets.file_dataset import check_split, select_tasks
from mtl_perception.datasets.message_store import MessageStore, Span
from mtl_perception.errors import MtlPerceptionError
from mtl_perception.geometry.normals_from_depth import normals_from_depth
from mtl_perception.tasks import Task
from mtl_perception.values import Array, Sample
import numpy as np

_TASKS = (
    Task('depth', 'depth'),
    Task('normals', 'normals'),
    Task('edges', 'edges', edge_meaning='depth_jumps'),
)
VALIDATION_SHARE = 0.2
# Frames this close before the validation part show nearly the same and are left out of training.
SPLIT_GAP_NS = 1_000_000_000
# Colour and depth are a few pixels off at jumps, and sensors smear depth there.
_JUMP_MARGIN_PX = 2


@dataclass(frozen=True)
class _Entry:
    name: str
    stamp_ns: int
    image: Span
    depth: Span | None


class RosbagDataset:
    """
    Frames of a rosbag2 with measured depth, and normals and depth-edge targets from it.

    Frames come rectified. Depth is as recorded; normals are missing at holes and beside jumps;
    edges are jumps of depth, 255 where depth is unknown. The messages that are needed are kept in
    a temporary file, so frames can be drawn in any order.

    :param split: all; or train (the first 80 % of the recording, without its last second) and
        val (the last 20 %)
    :param tasks: of depth, normals and edges; None is all. Without any, frames need no depth
    :param every: take each so-manieth frame
    :param normals_window: window for normals from depth, pixels at 640 pixels of width
    :param image_topic, depth_topic, camera_info_topic: None is found by type and name
    :param tolerance_s: how far the stamps of an image and its depth may be apart
    :raises DatasetError: if there is no depth registered to the image, or no intrinsics
    :raises BagError: if the bag cannot be read
    """

    def __init__(
        self,
        path: Path,
        split: str,
        *,
        tasks: tuple[str, ...] | None = None,
        every: int = 1,
        normals_window: int = 11,
        image_topic: str | None = None,
        depth_topic: str | None = None,
        camera_info_topic: str | None = None,
        tolerance_s: float = 0.02,
    ) -> None:
        check_split(split, ('all', 'train', 'val'))
        self.tasks = select_tasks(_TASKS, tasks)
        if every < 1:
            msg = f'every is {every}; 1 takes all frames, 2 each second one'
            raise DatasetError(msg)
        self.path = path
        self._window = normals_window
        given = BagTopics(image=image_topic, camera_info=camera_info_topic, depth=depth_topic)
        self._store = MessageStore()
        with BagFile(path) as bag:
            self._topics = find_topics(bag.topics, given)
            self._types = {name: topic.type for name, topic in bag.topics.items()}
            self._check_topics()
            entries = list(self._entries(bag, every, round(tolerance_s * 1e9)))
            self._camera = self._read_camera(bag)
            for damage in bag.damage:
                logging.getLogger(__name__).warning('%s', damage)
        if not entries:
            msg = (
                f'{path}: no image of {self._topics.image} has depth of {self._topics.depth} '
                f'within {tolerance_s:g} s; set tolerance_s, or record both'
            )
            raise DatasetError(msg)
        self._chosen = _part(entries, split)
        self.names = tuple(entry.name for entry in self._chosen)
        if depth_topic is None and self.tasks:
            self._check_registered()

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> Sample:
        entry = self._chosen[index]
        try:
            image, depth = self._read(entry)
        except MtlPerceptionError as error:
            msg = f'{self.path}: {entry.name}: {error}'
            raise DatasetError(msg) from error
        targets = {} if depth is None else self._targets(self._rectified(depth, nearest=True))
        camera = None if self._camera is None else self._camera.rectified()
        return Sample(self._rectified(image, nearest=False), targets, camera, entry.name)

    def _read(self, entry: _Entry) -> tuple[Array, Array | None]:
        image = decode_colour(self._message(entry.image, self._topics.image))
        height, width = image.shape[:2]
        camera = self._camera
        if camera is not None and (camera.width, camera.height) != (width, height):
            msg = (
                f'the image is {width}x{height}, but its camera_info is for '
                f'{camera.width}x{camera.height}'
            )
            raise DatasetError(msg)
        if entry.depth is None:
            return image, None
        depth = decode_target('depth', self._message(entry.depth, self._topics.depth))
        if depth.shape != (height, width):
            msg = (
                f'the image is {width}x{height}, but its depth {depth.shape[1]}x'
                f'{depth.shape[0]}: record depth aligned to colour'
            )
            raise DatasetError(msg)
        return image, depth

    def _targets(self, depth: Array) -> dict[str, Array]:
        names = {task.name for task in self.tasks}
        targets: dict[str, Array] = {}
        if 'depth' in names:
            targets['depth'] = depth
        edges = depth_jump_edges(depth) if names & {'normals', 'edges'} else None
        if 'normals' in names and self._camera is not None and edges is not None:
            scaled = self._window * self._camera.width / 640
            normals = normals_from_depth(depth, self._camera.rectified(), _odd(scaled))
            size = 2 * _JUMP_MARGIN_PX + 1
            beside = cv2.dilate((edges == 1).astype(np.uint8), np.ones((size, size), np.uint8))
            normals[beside == 1] = np.nan
            targets['normals'] = normals
        if 'edges' in names and edges is not None:
            targets['edges'] = edges
        return targets

    def _rectified(self, image: Array, *, nearest: bool) -> Array:
        if self._camera is None or self._camera.is_rectified:
            return image
        return self._camera.rectify(image, nearest=nearest)

    def _entries(self, bag: BagFile, every: int, tolerance_ns: int) -> Iterator[_Entry]:
        image_topic, depth_topic = str(self._topics.image), self._topics.depth
        wanted = [image_topic, *([str(depth_topic)] if self.tasks else [])]
        matches = match_stamps(
            _stamped(bag, wanted), image_topic, wanted[1:], tolerance_ns
        )
        total = bag.topics[image_topic].messages
        for index, match in enumerate(_with_progress(matches, total, self.path)):
            depth = match.partners.get(str(depth_topic))
            if index % every or (self.tasks and depth is None):
                continue
            yield _Entry(
                f'{self.path.stem}/{index:06d}',
                match.reference.stamp_ns,
                self._store.append(match.reference.payload.data),
                None if depth is None else self._store.append(depth.payload.data),
            )

    def _read_camera(self, bag: BagFile) -> CameraModel | None:
        topic = self._topics.camera_info
        message = next(bag.messages([topic]), None) if topic is not None else None
        if message is not None:
            camera = CameraModel.from_camera_info(bag.decode(message))
            # D of a rectified image describes the raw one: the pixels are P's already.
            rectified = says_rectified(str(self._topics.image))
            return camera.of_rectified_image() if rectified else camera
        if any(task.kind == 'normals' for task in self.tasks):
            msg = (
                f'{self.path}: there is no camera_info of {self._topics.image}, which normals '
                'need; record it, name it with camera_info_topic, or take tasks=depth,edges'
            )
            raise DatasetError(msg)
        return None

    def _message(self, span: Span, topic: str | None) -> Any:
        return _decoded(self._store.read(span), self._types[str(topic)])

    def _check_topics(self) -> None:
        if self.tasks and self._topics.depth is None:
            images = [name for name, kind in self._types.items() if kind.endswith('Image')]
            msg = (
                f'{self.path} has no topic with depth registered to {self._topics.image}; it has '
                f'{", ".join(images)}. Record aligned depth (RealSense: align_depth.enable:=true),'
                ' or name a topic with depth_topic'
            )
            raise DatasetError(msg)

    def _check_registered(self) -> None:
        entry = self._chosen[0]
        if entry.depth is None:
            return
        frames = [
            str(self._message(span, topic).header.frame_id)
            for span, topic in (
                (entry.image, self._topics.image), (entry.depth, self._topics.depth)
            )
        ]
        if frames[0] != frames[1]:
            msg = (
                f'{self.path}: {self._topics.depth} is in frame {frames[1]!r} but the image in '
                f'{frames[0]!r}: they do not show the same pixels. Record aligned depth, or '
                'insist with depth_topic'
            )
            raise DatasetError(msg)


def _odd(size: float) -> int:
    return max(3, 2 * round((size - 1) / 2) + 1)


def _part(entries: list[_Entry], split: str) -> tuple[_Entry, ...]:
    if split == 'all':
        return tuple(entries)
    first = len(entries) - max(1, round(VALIDATION_SHARE * len(entries)))
    if split == 'val':
        return tuple(entries[first:])
    latest = entries[first].stamp_ns - SPLIT_GAP_NS
    kept = tuple(entry for entry in entries[:first] if entry.stamp_ns <= latest)
    if not kept:
        msg = f'a recording of {len(entries)} frames is too short to be split; use split all'
        raise DatasetError(msg)
    return kept


def _stamped(bag: BagFile, topics: list[str]) -> Iterator[Stamped[RecordedMessage]]:
    for message in bag.messages(topics):
        stamp = bag.decode(message).header.stamp
        stamp_ns = int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
        yield Stamped(message.topic, stamp_ns, message.recorded_ns, message)


def _with_progress(
    matches: Iterator[Match[RecordedMessage]], total: int | None, path: Path
) -> Iterator[Match[RecordedMessage]]:
    with progress_bar(transient=True) as progress:
        yield from progress.track(matches, total=total, description=f'reading {path.name}')


@lru_cache(maxsize=1)
def _typestore() -> Any:
    from rosbags.typesys import get_typestore, Stores

    return get_typestore(Stores.ROS2_HUMBLE)


def _decoded(data: bytes, kind: str) -> Any:
    try:
        return _typestore().deserialize_cdr(data, kind)
    # Cut bytes fail in the middle of whatever field they should have been.
    except Exception as error:
        msg = f'a message cannot be read as {kind}: {error}'
        raise DatasetError(msg) from error
