# SPDX-License-Identifier: Apache-2.0
"""The camera frames of a recording, each with the depth and labels of the same moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mtl_perception.bags.bag_file import BagFile
from mtl_perception.bags.decoding import decode_colour, decode_target
from mtl_perception.bags.errors import BagError
from mtl_perception.bags.poses import CameraPoses, Pose
from mtl_perception.bags.recovery import RecordedMessage
from mtl_perception.bags.stamps import header_stamp_ns, Match, match_stamps, Stamped
from mtl_perception.bags.topics import BagTopics, find_topics, says_rectified, skipped_outputs
from mtl_perception.camera import CameraError, CameraModel
from mtl_perception.closing import Closing
from mtl_perception.errors import MtlPerceptionError
from mtl_perception.values import Frame
import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class BagFrame:
    """
    One camera frame and what the bag holds to compare its maps with.

    `targets` is by task kind (depth, semantic, normals, edges), in the conventions of
    `mtl_perception.values`, at the image's size; `notes` says why one is missing.
    """

    index: int  # counted over all messages of the image topic
    frame: Frame
    targets: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    pose: Pose | None = None  # (4, 4), the image's frame -> world


@dataclass(frozen=True)
class RefusedFrame:
    """A message of the image topic that is no image."""

    index: int
    stamp_ns: int
    reason: str


class BagReader(Closing):
    """
    Reads the frames of a rosbag2, every one and in order.

    Topics that are not `given` are found by type and name (`topics` says which). Depth and
    ground truth belong to the image with the same stamp, or with the nearest within
    `tolerance_s`; camera_info that is recorded less often holds until the next one, and
    `camera` replaces it all. An image that is rectified already (`image_is_rectified`; by default
    as the topic's name says, image_rect and the like) has P for its camera, and D is not applied
    again. Odometry or transforms give each frame its pose (see
    `CameraPoses`). A context manager; `damage` and `lost()` are complete once `frames()` has
    ended.

    Raises
    ------
    BagError
        If the bag cannot be read or has no camera image; the message lists its topics.

    """

    def __init__(
        self,
        path: Path | str,
        given: BagTopics | None = None,
        *,
        tolerance_s: float = 0.02,
        camera: CameraModel | None = None,
        image_is_rectified: bool | None = None,
    ) -> None:
        self._given = given or BagTopics()
        self._tolerance_ns = round(tolerance_s * 1e9)
        self._bag = BagFile(path)
        self._counts: Counter[str] = Counter()
        self._camera: CameraModel | None = None
        self._poses: CameraPoses | None = None
        try:
            self.topics = find_topics(self._bag.topics, self._given)
        except BagError as error:
            self._bag.close()
            msg = f'{path}: {error}'
            raise BagError(msg) from error
        if camera is not None:
            self.topics = replace(self.topics, camera_info=None)
        self.image_is_rectified = (
            says_rectified(self._image_topic) if image_is_rectified is None else image_is_rectified
        )
        self._given_camera = None if camera is None else self._of_image(camera)
        self.path = Path(path)

    def close(self) -> None:
        """Remove what was unpacked."""
        self._bag.close()

    @property
    def frame_count(self) -> int | None:
        """How many images the bag says it holds; None where damage leaves it unknown."""
        return self._bag.topics[self._image_topic].messages

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the choice of topics left out and why, one sentence each."""
        return tuple(
            f'{topic} is the output of a perception node, not ground truth: not compared with; '
            f'insist with --{kind}-topic'
            for kind, topic in skipped_outputs(self._bag.topics, self.topics).items()
        )

    @property
    def damage(self) -> tuple[str, ...]:
        """What could not be read of the files, one sentence each."""
        return tuple(self._bag.damage)

    def lost(self) -> dict[str, tuple[int, int]]:
        """Return, by topic, how many messages were read and how many the bag says it holds."""
        return {
            topic: (self._counts[topic], expected)
            for topic in self._read_topics
            if (expected := self._bag.topics[topic].messages) is not None
            and self._counts[topic] < expected
        }

    def frames(
        self, first: int = 0, earlier: Collection[int] = ()
    ) -> Iterator[BagFrame | RefusedFrame]:
        """
        Return every message of the image topic from `first` on, or with why it is no frame.

        Of those before it only the ones whose index is in `earlier`. The camera's motion is read
        before this returns, so that taking the first frame costs no more than the next.
        """
        self._poses = CameraPoses(self._bag, self.topics, self._tolerance_ns)
        self._counts.clear()
        self._camera = self._given_camera or self._first_camera()
        others = [topic for topic in self._read_topics if topic != self._image_topic]
        matches = match_stamps(self._stamped(), self._image_topic, others, self._tolerance_ns)
        return self._chosen(matches, first, earlier)

    def _chosen(
        self, matches: Iterator[Match[RecordedMessage]], first: int, earlier: Collection[int]
    ) -> Iterator[BagFrame | RefusedFrame]:
        for index, match in enumerate(matches):
            if index >= first or index in earlier:
                yield self._frame(index, match)
            else:
                self._update_camera(match)

    @property
    def _image_topic(self) -> str:
        return self.topics.image or ''

    @property
    def _read_topics(self) -> tuple[str, ...]:
        named = (self._image_topic, self.topics.camera_info, *self.topics.targets.values())
        return tuple(topic for topic in named if topic is not None)

    def _stamped(self) -> Iterator[Stamped[RecordedMessage]]:
        for message in self._bag.messages(self._read_topics):
            self._counts[message.topic] += 1
            stamp_ns = header_stamp_ns(message.data)
            if stamp_ns is None:
                stamp_ns = message.recorded_ns
            yield Stamped(message.topic, stamp_ns, message.recorded_ns, message)

    def _first_camera(self) -> CameraModel | None:
        """Return the bag's first camera_info: for images recorded before any came."""
        if self.topics.camera_info is None:
            return None
        message = next(self._bag.messages([self.topics.camera_info]), None)
        return None if message is None else self._read_camera(message)[0]

    def _read_camera(self, message: RecordedMessage) -> tuple[CameraModel | None, str | None]:
        try:
            camera = self._of_image(CameraModel.from_camera_info(self._bag.decode(message)))
        except (CameraError, BagError) as error:
            return None, f'no camera: {error}'
        # An equal model keeps the tables that the last one computed.
        return (self._camera if camera == self._camera else camera), None

    def _of_image(self, camera: CameraModel) -> CameraModel:
        return camera.of_rectified_image() if self.image_is_rectified else camera

    def _frame(
        self, index: int, match: Match[RecordedMessage]
    ) -> BagFrame | RefusedFrame:
        stamp_ns = match.reference.stamp_ns
        notes = self._update_camera(match)
        try:
            message = self._bag.decode(match.reference.payload)
            image = decode_colour(message)
        except MtlPerceptionError as error:
            return RefusedFrame(index, stamp_ns, str(error))
        frame_id = str(message.header.frame_id)
        targets = {}
        for kind, topic in self.topics.targets.items():
            partner = match.partners.get(topic)
            if partner is None:
                notes.append(f'{topic}: no message within {self._tolerance_ns / 1e6:g} ms')
                continue
            try:
                targets[kind] = self._target(kind, partner.payload, image, frame_id)
            except MtlPerceptionError as error:
                notes.append(f'{topic}: {error}')
        frame = Frame(image=image, stamp_ns=stamp_ns, frame_id=frame_id, camera=self._camera)
        pose = None if self._poses is None else self._poses.at(frame_id, stamp_ns)
        if pose is None and self._poses is not None and not self._poses.is_empty:
            notes.append(f'no pose of {frame_id!r} is known at the time of the frame')
        return BagFrame(index, frame, targets, tuple(notes), pose)

    def _update_camera(self, match: Match[RecordedMessage]) -> list[str]:
        """Take the camera_info of this moment, if there is one; return what is wrong with it."""
        info = match.partners.get(self.topics.camera_info or '')
        if info is None:
            return []
        self._camera, note = self._read_camera(info.payload)
        return [note] if note else []

    def _target(
        self, kind: str, recorded: RecordedMessage, image: npt.NDArray[np.uint8], frame_id: str
    ) -> npt.NDArray[Any]:
        message = self._bag.decode(recorded)
        other_frame = str(message.header.frame_id)
        if getattr(self._given, kind) is None and other_frame != frame_id:
            msg = (
                f'is in frame {other_frame!r}, the image in {frame_id!r}: not compared; register '
                f'it to the colour camera, or insist with --{kind}-topic'
            )
            raise BagError(msg)
        target = decode_target(kind, message)
        if target.shape[:2] != image.shape[:2]:
            msg = (
                f'is {target.shape[1]}x{target.shape[0]}, the image '
                f'{image.shape[1]}x{image.shape[0]}: not compared; record depth and ground truth '
                'at the size of the image'
            )
            raise BagError(msg)
        return target
