# SPDX-License-Identifier: Apache-2.0
"""Worst segments against a search of all of them; exports opened as datasets and by rosbags."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from mtl_perception.bags.topics import BagTopics
from mtl_perception.camera import CameraModel
from mtl_perception.datasets.dataset import open_dataset
from mtl_perception.evaluation.errors import EvaluationError
from mtl_perception.evaluation.replay_observer import FrameResult, ReplayContext
from mtl_perception.evaluation.replay_report import ReplayReport
from mtl_perception.evaluation.segment_export import export_training_split
from mtl_perception.evaluation.worst_segments import (
    ScoredFrame,
    training_part,
    worst_segments,
    WorstSegments,
)
import numpy as np
import pytest
import yaml

pytest.importorskip('rosbags')
from rosbags.highlevel import AnyReader
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import get_types_from_msg, get_typestore, Stores

PERIOD_NS = 100_000_000
START_NS = 1_700_000_000_000_000_000
FRAMES = 60
CAMERA = CameraModel(32, 24, 30.0, 30.0, 15.5, 11.5)
IMAGE, DEPTH, INFO = '/eye/color/image_raw', '/eye/depth/image_rect', '/eye/color/camera_info'
TOPICS = BagTopics(image=IMAGE, depth=DEPTH, camera_info=INFO)


def frames_of(scores: list[float]) -> list[ScoredFrame]:
    return [
        ScoredFrame(index, START_NS + index * PERIOD_NS, score)
        for index, score in enumerate(scores)
    ]


@given(st.lists(st.integers(0, 50), min_size=6, max_size=40), st.integers(1, 4), st.booleans())
def test_segments_are_those_of_a_search_through_all(
    values: list[int], count: int, higher_is_better: bool
) -> None:
    """At 10 Hz two seconds are 20 frames, so a third of the recording is the limit here."""
    scores = [value / 8 for value in values]  # sums without rounding
    length = len(values) // 3
    sign = -1 if higher_is_better else 1
    expected: list[int] = []
    while len(expected) < count:
        best, where = sign * sum(scores) / len(scores), None
        for start in range(len(scores) - length + 1):
            if any(abs(start - other) < length for other in expected):
                continue
            mean = sign * sum(scores[start : start + length]) / length
            if mean > best + 1e-8:
                best, where = mean, start
        if where is None:
            break
        expected.append(where)
    found = worst_segments(frames_of(scores), count, higher_is_better=higher_is_better)
    assert [one.first_index for one in found] == expected
    for one in found:
        part = scores[one.first_index : one.last_index + 1]
        assert len(part) == length
        assert one.mean == pytest.approx(sum(part) / length)
        assert one.last_stamp_ns - one.first_stamp_ns == (length - 1) * PERIOD_NS


def test_no_segment_reaches_over_a_pause_or_a_jump_back() -> None:
    scores = [0.0] * 30
    scores[9:13] = [3.0] * 4
    frames = frames_of(scores)
    (whole,) = worst_segments(frames, 1, higher_is_better=False)
    assert whole.first_index <= 9 < 12 <= whole.last_index
    for shift_ns in (5_000_000_000, -5_000_000_000):
        broken = [
            ScoredFrame(one.index, one.stamp_ns + (shift_ns if one.index >= 11 else 0), one.score)
            for one in frames
        ]
        (first, second) = worst_segments(broken, 2, higher_is_better=False)
        assert (first.last_index, second.first_index) == (10, 11)


def test_the_parts_are_those_of_the_rosbag_dataset(bags: Any, tmp_path: Path) -> None:
    bag = recording(tmp_path / 'bag')
    split = training_part(frames_of([1.0] * FRAMES))
    for part, name in ((split.train, 'train'), (split.held_out, 'val')):
        dataset = open_dataset({'kind': 'rosbag', 'path': str(bag)}, name)
        assert [int(entry.rpartition('/')[2]) for entry in dataset.names] == [
            one.index for one in part
        ]


def recording(path: Path, storage: StoragePlugin = StoragePlugin.MCAP) -> Path:
    """Colour and depth that tell their number; camera_info each 20th; a latched text; unknowns."""
    store = get_typestore(Stores.ROS2_KILTED)
    store.register(get_types_from_msg('int32 answer', 'nobody_msgs/msg/Unknown'))
    types = store.types
    forever = QosTime(2147483647, 4294967295)
    latched = Qos(
        QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL,
        forever, forever, QosLiveliness.AUTOMATIC, forever, False,
    )  # fmt: skip
    with Writer(path, version=9, storage_plugin=storage) as writer:
        connections = {
            topic: writer.add_connection(
                topic, kind, typestore=store, offered_qos_profiles=profiles
            )
            for topic, kind, profiles in (
                (IMAGE, 'sensor_msgs/msg/Image', ()),
                (DEPTH, 'sensor_msgs/msg/Image', ()),
                (INFO, 'sensor_msgs/msg/CameraInfo', ()),
                ('/note', 'std_msgs/msg/String', (latched,)),
                ('/unknown', 'nobody_msgs/msg/Unknown', ()),
            )
        }

        def write(topic: str, recorded_ns: int, message: Any) -> None:
            data = store.serialize_cdr(message, connections[topic].msgtype)
            writer.write(connections[topic], recorded_ns, data)

        def image(index: int, pixels: np.ndarray, encoding: str) -> Any:
            return types['sensor_msgs/msg/Image'](
                header(index), 24, 32, encoding, 0, pixels.strides[0],
                pixels.reshape(-1).view(np.uint8),
            )  # fmt: skip

        def header(index: int) -> Any:
            stamp_ns = START_NS + index * PERIOD_NS
            stamp = types['builtin_interfaces/msg/Time'](stamp_ns // 10**9, stamp_ns % 10**9)
            return types['std_msgs/msg/Header'](stamp, 'eye')

        write('/note', START_NS - 1, types['std_msgs/msg/String']('hello'))
        k = np.array([30.0, 0, 15.5, 0, 30, 11.5, 0, 0, 1])
        region = types['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False)
        for index in range(FRAMES):
            now = START_NS + index * PERIOD_NS
            if index % 20 == 0:
                p = np.insert(k.reshape(3, 3), 3, 0, axis=1).reshape(-1)
                write(INFO, now, types['sensor_msgs/msg/CameraInfo'](
                    header(index), 24, 32, 'plumb_bob', np.zeros(5), k, np.eye(3).reshape(-1), p,
                    0, 0, region,
                ))  # fmt: skip
            write(IMAGE, now + 1, image(index, np.full((24, 32, 3), index, np.uint8), 'rgb8'))
            depth = np.full((24, 32), 1 + index / 100, np.float32)
            # Depth comes 20 ms later than its image.
            write(DEPTH, now + 20_000_000, image(index, depth, '32FC1'))
            write('/unknown', now + 2, types['nobody_msgs/msg/Unknown'](index))
    return path


def raw(path: Path) -> list[tuple[str, str, int, bytes]]:
    with AnyReader([path]) as reader:
        return [
            (connection.topic, connection.msgtype, recorded_ns, bytes(data))
            for connection, recorded_ns, data in reader.messages()
        ]


def type_hashes(path: Path) -> dict[str, str]:
    """Return the hash of every topic's type as metadata.yaml says it (REP-2011)."""
    document = yaml.safe_load((path / 'metadata.yaml').read_text())
    topics = document['rosbag2_bagfile_information']['topics_with_message_count']
    return {
        entry['topic_metadata']['name']: entry['topic_metadata']['type_description_hash']
        for entry in topics
    }


@pytest.mark.parametrize('storage', [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_an_export_opens_as_a_dataset_with_the_chosen_frames(
    bags: Any, tmp_path: Path, storage: StoragePlugin
) -> None:
    bag = recording(tmp_path / 'bag', storage)
    out = tmp_path / 'data'
    export_training_split(bag, TOPICS, [(23, 29), (3, 7)], (48, 59), out)
    expected = {'train': [*range(3, 8), *range(23, 30)], 'validation': list(range(48, 60))}
    written = set(raw(bag))
    for name, indices in expected.items():
        dataset = open_dataset({'kind': 'rosbag', 'path': str(out / name)}, 'all')
        samples = [dataset[position] for position in range(len(dataset))]
        assert [int(sample.image[0, 0, 0]) for sample in samples] == indices
        for index, sample in zip(indices, samples):
            np.testing.assert_allclose(sample.targets['depth'], 1 + index / 100, rtol=1e-6)
            # The camera_info of a stretch may have been recorded long before it.
            assert sample.camera == CAMERA.rectified()
        copied = raw(out / name)
        assert set(copied) <= written
        assert len(copied) == len(set(copied))
        assert [entry[0] for entry in copied].count('/note') == 1
        seen = {entry[0] for entry in copied}
        assert '/unknown' in seen
        assert type_hashes(out / name) == type_hashes(bag)
        with AnyReader([out / name]) as reader:
            (note,) = (entry for entry in reader.connections if entry.topic == '/note')
            assert note.ext.offered_qos_profiles[0].durability.name == 'TRANSIENT_LOCAL'
    # Nothing is written over: what was trained on stays.
    with pytest.raises(EvaluationError, match='exists; choose another folder'):
        export_training_split(bag, TOPICS, [(3, 7)], (48, 59), out)


def observe(bag: Path, directory: Path, scores: list[float | None], **options: Any) -> Any:
    """Run the observer over frames with these scores; return the report."""
    with (directory / 'per_frame.csv').open('w', newline='') as stream:
        writer = csv.writer(stream)
        writer.writerow(('index', 'stamp_ns', 'refused', 'depth.abs_rel'))
        for index, score in enumerate(scores):
            stamp_ns = START_NS + index * PERIOD_NS
            writer.writerow((index, stamp_ns, '', '' if score is None else score))
    observer = WorstSegments(2, **options)
    observer.begin(ReplayContext('bag', bag, TOPICS, (), directory, FRAMES))
    observer.frame(FrameResult(0, START_NS, ranking=('depth', 'abs_rel', False)))
    observer.frame(FrameResult(1, START_NS, 'no image'))
    report = ReplayReport(str(bag), {})
    observer.finish(report)
    return report


def test_the_worst_frames_are_named_and_exported_without_the_held_out_ones(
    bags: Any, tmp_path: Path
) -> None:
    """The very worst lie in the last fifth: they are named, but not trained on."""
    bag = recording(tmp_path / 'bag')
    scores: list[float | None] = [0.1] * FRAMES
    scores[10:18] = [0.5] * 8
    scores[50:58] = [0.9] * 8
    scores[2] = None  # not compared with anything
    report = observe(bag, tmp_path, scores, export=tmp_path / 'data')
    worst = report.worst_segments
    assert (worst['task'], worst['metric'], worst['higher_is_better']) == (
        'depth', 'abs_rel', False
    )  # fmt: skip
    assert worst['mean'] == pytest.approx((43 * 0.1 + 8 * 0.5 + 8 * 0.9) / 59)
    # Nineteen frames are a third of the 59.
    first, second = worst['segments']
    assert first['first_index'] <= 50
    assert first['last_index'] >= 57
    assert first['mean'] == pytest.approx((8 * 0.9 + 11 * 0.1) / 19)
    assert second['first_index'] <= 10
    assert second['last_index'] >= 17
    dataset = open_dataset({'kind': 'rosbag', 'path': str(tmp_path / 'data/train')}, 'all')
    images = [int(dataset[position].image[0, 0, 0]) for position in range(len(dataset))]
    chosen = [
        index
        for one in worst['exported']
        for index in range(one['first_index'], one['last_index'] + 1)
    ]
    assert images == sorted(chosen)
    # Frame 48 is the first held out; from frame 38 on all are within a second of it.
    assert max(images) <= 38
    assert set(range(10, 18)) <= set(images)


def test_a_recording_that_is_alike_all_over_has_nothing_to_export(
    bags: Any, tmp_path: Path
) -> None:
    bag = recording(tmp_path / 'bag')
    assert observe(bag, tmp_path, [0.1] * FRAMES).worst_segments['segments'] == []
    with pytest.raises(EvaluationError, match='nothing to export'):
        observe(bag, tmp_path, [0.1] * FRAMES, export=tmp_path / 'data')
    assert not (tmp_path / 'data').exists()
