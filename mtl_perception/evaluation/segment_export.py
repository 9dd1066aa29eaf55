# SPDX-License-Identifier: Apache-2.0
"""Copy stretches of a recording into bags that the `rosbag` dataset trains and validates on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from mtl_perception.bags.bag_file import BagFile
from mtl_perception.bags.latched import latched_topics
from mtl_perception.bags.message_writer import MessageWriter
from mtl_perception.bags.recovery import RecordedMessage
from mtl_perception.bags.topics import BagTopics
from mtl_perception.evaluation.errors import EvaluationError
from mtl_perception.files import atomic_directory

TRAIN, VALIDATION = 'train', 'validation'
# What belongs to an image was recorded at most this long before or after it.
_MARGIN_NS = 100_000_000

Range = tuple[int, int]  # first and last image, counted over the image topic


def export_training_split(
    bag: Path, topics: BagTopics, segments: Sequence[Range], held_out: Range, directory: Path
) -> None:
    """
    Write `directory`/train with the images of `segments` and /validation with those of `held_out`.

    Both are rosbag2 (MCAP) with the recorded messages as they are: the images asked for and no
    others, all else that was recorded around them, the camera_info that held when a stretch
    began, and what was latched.

    Raises
    ------
    EvaluationError
        If there is nothing to train on, the directory exists, or it cannot be written to.

    """
    if not segments:
        msg = (
            f'{bag}: no segment is worse than the whole recording, so there is nothing to export; '
            'record more, or train on all of it'
        )
        raise EvaluationError(msg)
    check_export(directory)
    try:
        with atomic_directory(directory) as target:
            _copy(bag, topics, segments, target / TRAIN)
            _copy(bag, topics, [held_out], target / VALIDATION)
    except OSError as error:
        msg = f'--export-worst {directory} cannot be written: {error}'
        raise EvaluationError(msg) from error


def check_export(directory: Path) -> None:
    """
    Refuse a place that is taken: what was trained on must stay as it was.

    Raises
    ------
    EvaluationError
        If the directory exists.

    """
    if directory.exists():
        msg = f'--export-worst {directory} exists; choose another folder or remove it'
        raise EvaluationError(msg)


def _copy(bag: Path, topics: BagTopics, ranges: Sequence[Range], path: Path) -> None:
    chosen = {index for first, last in ranges for index in range(first, last + 1)}
    with BagFile(bag) as source:
        latched = latched_topics(source)
        spans = _recorded_spans(source, str(topics.image), ranges)
        writer = MessageWriter(path)
        with writer:
            writer.take_over(source, tuple(source.topics))
            for message in _selected(source, topics, chosen, spans, latched):
                writer.copy(message)


def _recorded_spans(source: BagFile, image: str, ranges: Sequence[Range]) -> list[Range]:
    """Return from when to when each stretch was recorded, margins included."""
    recorded = [message.recorded_ns for message in source.messages([image])]
    return [
        (recorded[first] - _MARGIN_NS, recorded[last] + _MARGIN_NS) for first, last in ranges
    ]


def _selected(
    source: BagFile,
    topics: BagTopics,
    chosen: set[int],
    spans: Sequence[Range],
    latched: frozenset[str],
) -> Iterator[RecordedMessage]:
    """Yield what belongs to the stretches, in recorded order."""
    index = -1
    camera: RecordedMessage | None = None
    for message in source.messages(source.topics):
        if message.topic == topics.image:
            index += 1
            if index in chosen:
                if camera is not None:
                    yield camera
                    camera = None
                yield message
        elif message.topic in latched or any(
            first <= message.recorded_ns <= last for first, last in spans
        ):
            if message.topic == topics.camera_info:
                camera = None
            yield message
        elif message.topic == topics.camera_info:
            camera = message
