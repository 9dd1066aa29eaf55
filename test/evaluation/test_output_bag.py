# SPDX-License-Identifier: Apache-2.0
"""The bag that a replay writes: read by rosbags, the numbers recomputed from it by numpy."""

from __future__ import annotations

from collections.abc import Iterator
import csv
import errno
from itertools import islice
import json
from pathlib import Path
import runpy
from typing import Any

import cv2
from mtl_perception.bags.message_writer import MessageWriter
from mtl_perception.evaluation.output_bag import OutputBag
from mtl_perception.evaluation.replay_command import main
from mtl_perception.tasks import load_label_set
import numpy as np
import pytest

pytest.importorskip('rosbags')
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer

IMAGES = {
    '/semantic/image_raw': ('mono8', np.uint8, ()),
    '/semantic/confidence': ('32FC1', np.float32, ()),
    '/semantic_color/image_raw': ('rgb8', np.uint8, (3,)),
    '/depth/image_rect': ('32FC1', np.float32, ()),
    '/normals/image_raw': ('32FC3', np.float32, (3,)),
    '/normals_color/image_raw': ('rgb8', np.uint8, (3,)),
    '/edges/image_raw': ('mono8', np.uint8, ()),
}
OTHERS = ('/semantic/label_names', '/depth/camera_info', '/points')
plane_normals = runpy.run_path(str(Path(__file__).with_name('plane_normals.py')))['plane_normals']
FIELDS = ('x', 'y', 'z', 'rgb', 'normal_x', 'normal_y', 'normal_z', 'label')


def raw(path: Path) -> list[tuple[str, str, int, bytes]]:
    """Return topic, type, time of recording and bytes of every message, in order."""
    with AnyReader([path]) as reader:
        return [
            (connection.topic, connection.msgtype, recorded_ns, bytes(data))
            for connection, recorded_ns, data in reader.messages()
        ]


def decoded(path: Path, topic: str) -> Iterator[tuple[int, int, Any]]:
    """Yield the time of recording, the header's stamp and the message of a topic."""
    with AnyReader([path]) as reader:
        connections = [entry for entry in reader.connections if entry.topic == topic]
        for connection, recorded_ns, data in reader.messages(connections):
            message = reader.deserialize(data, connection.msgtype)
            stamp = message.header.stamp
            yield recorded_ns, stamp.sec * 10**9 + stamp.nanosec, message


def pixels(message: Any, kind: Any, shape: tuple[int, ...]) -> np.ndarray:
    assert message.step == message.width * np.dtype(kind).itemsize * int(np.prod(shape))
    assert not message.is_bigendian
    return np.frombuffer(message.data.tobytes(), kind).reshape(
        message.height, message.width, *shape
    )


def outputs(path: Path, topic: str) -> dict[int, np.ndarray]:
    """Return the arrays of an image output by stamp."""
    encoding, kind, shape = IMAGES[topic]
    found = {}
    for _, stamp, message in decoded(path, topic):
        assert message.encoding == encoding
        found[stamp] = pixels(message, kind, shape)
    return found


def depth_errors(predicted: list[np.ndarray], true: list[np.ndarray]) -> dict[str, float]:
    """Eigen's formulas over all valid pixels of all frames."""
    p, z, q = [], [], []
    for estimate, target in zip(predicted, true):
        valid = np.isfinite(target) & (target > 0)
        a, b = estimate[valid].astype(np.float64), target[valid].astype(np.float64)
        p.append(a)
        z.append(b)
        q.append(a * np.median(b) / np.median(a))
    z_all = np.concatenate(z)
    found = {}
    for prefix, values in (('', np.concatenate(p)), ('scaled_', np.concatenate(q))):
        ratio = np.maximum(values / z_all, z_all / values)
        found |= {
            f'{prefix}abs_rel': np.mean(np.abs(values - z_all) / z_all),
            f'{prefix}sq_rel_m': np.mean((values - z_all) ** 2 / z_all),
            f'{prefix}rmse_m': np.sqrt(np.mean((values - z_all) ** 2)),
            f'{prefix}log10': np.mean(np.abs(np.log10(values) - np.log10(z_all))),
            **{f'{prefix}delta{n}': np.mean(ratio < 1.25**n) for n in (1, 2, 3)},
        }
    return {name: float(value) for name, value in found.items()}


def normal_errors(predicted: list[np.ndarray], true: list[np.ndarray]) -> dict[str, float]:
    """Means over all pixels with a true normal."""
    degrees = angles(predicted, true)
    return {
        'mean_deg': float(degrees.mean()),
        'rmse_deg': float(np.sqrt((degrees**2).mean())),
        **{f'within_{limit:g}': float((degrees < limit).mean()) for limit in (11.25, 22.5, 30)},
    }


def angles(predicted: list[np.ndarray], true: list[np.ndarray]) -> np.ndarray:
    """The angle to the true normal wherever there is one, degrees."""
    degrees = []
    for estimate, target in zip(predicted, true):
        valid = np.isfinite(target).all(axis=-1)
        a, b = estimate[valid].astype(np.float64), target[valid].astype(np.float64)
        # atan2 keeps the digits of small angles, which arccos loses.
        sine = np.linalg.norm(np.cross(a, b), axis=-1)
        degrees.append(np.degrees(np.arctan2(sine, (a * b).sum(axis=-1))))
    return np.concatenate(degrees)


def check_cloud(path: Path, images: dict[int, np.ndarray]) -> None:
    """Compare every field of every cloud with arithmetic on the maps beside it."""
    maps = {topic: outputs(path, topic) for topic in IMAGES}
    infos = {stamp: message for _, stamp, message in decoded(path, '/depth/camera_info')}
    count = 0
    for _, stamp, message in decoded(path, '/points'):
        count += 1
        layout = [(entry.name, entry.offset, entry.datatype, entry.count)
                  for entry in message.fields]  # fmt: skip
        assert layout == [
            (name, 4 * index, 6 if name == 'label' else 7, 1) for index, name in enumerate(FIELDS)
        ]
        assert (message.point_step, message.row_step) == (32, 32 * message.width)
        assert not message.is_dense
        words = np.frombuffer(message.data.tobytes(), np.uint32).reshape(
            message.height, message.width, 8
        )
        values = words.view(np.float32)
        fx, _, cx, _, fy, cy = infos[stamp].k[:6]
        assert not infos[stamp].d.any()
        depth = maps['/depth/image_rect'][stamp].astype(np.float64)
        rows, columns = np.indices(depth.shape)
        np.testing.assert_allclose(values[..., 0], depth * (columns - cx) / fx, rtol=2e-6)
        np.testing.assert_allclose(values[..., 1], depth * (rows - cy) / fy, rtol=2e-6)
        np.testing.assert_array_equal(values[..., 2], maps['/depth/image_rect'][stamp])
        np.testing.assert_array_equal(values[..., 4:7], maps['/normals/image_raw'][stamp])
        np.testing.assert_array_equal(words[..., 7], maps['/semantic/image_raw'][stamp])
        red, green, blue = np.moveaxis(images[stamp].astype(np.uint32), -1, 0)
        np.testing.assert_array_equal(words[..., 3], red << 16 | green << 8 | blue)
    assert count == len(images)


@pytest.fixture(scope='module')
def written(walk_bag: Path, small_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp('written') / 'out'
    command = [str(walk_bag), '--out', str(out), '--model', str(small_bundle)]
    assert main([*command, '--threads', '1', '--write-bag']) == 0
    return out


def test_what_was_recorded_is_copied_byte_by_byte(walk_bag: Path, written: Path) -> None:
    copied = [
        entry for entry in raw(written / 'bag') if entry[0] not in IMAGES and
        entry[0] not in OTHERS
    ]  # fmt: skip
    assert copied == raw(walk_bag)
    assert not [path for path in written.iterdir() if path.name.startswith('.')]


def test_every_output_has_the_header_and_the_time_of_its_image(
    walk_bag: Path, written: Path
) -> None:
    camera = list(decoded(walk_bag, '/camera/color/image_raw'))
    for topic in (*IMAGES, '/depth/camera_info', '/points'):
        found = list(decoded(written / 'bag', topic))
        assert [entry[:2] for entry in found] == [entry[:2] for entry in camera], topic
        assert {entry[2].header.frame_id for entry in found} == {'camera_color_optical_frame'}
    with AnyReader([written / 'bag']) as reader:
        (names,) = (entry for entry in reader.connections if entry.topic.endswith('label_names'))
        (profile,) = names.ext.offered_qos_profiles
        assert profile.durability.name == 'TRANSIENT_LOCAL'
        ((_, _, data),) = reader.messages([names])
        document = json.loads(reader.deserialize(data, names.msgtype).data)
    expected = load_label_set('rooms').names
    assert [one['class_name'] for one in document['class_map']] == [*expected, 'unlabelled']


def test_clouds_follow_from_depth_and_camera_info(walk_bag: Path, written: Path) -> None:
    images = {
        stamp: pixels(message, np.uint8, (3,))
        for _, stamp, message in decoded(walk_bag, '/camera/color/image_raw')
    }
    check_cloud(written / 'bag', images)


def test_the_metrics_follow_from_the_written_bag(walk_bag: Path, written: Path) -> None:
    scores = json.loads((written / 'metrics.json').read_text())['scores']
    bag = written / 'bag'
    depth = outputs(bag, '/depth/image_rect')
    sensor = {
        stamp: pixels(message, np.float32, ())
        for _, stamp, message in decoded(bag, '/camera/aligned_depth_to_color/image_raw')
    }
    stamps = sorted(depth)
    expected = depth_errors([depth[at] for at in stamps], [sensor[at] for at in stamps])
    assert {name: scores['depth'][name] for name in expected} == pytest.approx(expected, abs=1e-6)

    normals = outputs(bag, '/normals/image_raw')
    truth = {
        stamp: pixels(message, np.float32, (3,))
        for _, stamp, message in decoded(bag, '/ground_truth/normals/image_raw')
    }
    expected = normal_errors([normals[at] for at in stamps], [truth[at] for at in stamps])
    found = {name: scores['normals'][name] for name in expected}
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)

    labels = outputs(bag, '/semantic/image_raw')
    matrix = np.zeros((18, 18), np.int64)
    for _, stamp, message in decoded(bag, '/ground_truth/semantic/image_raw'):
        np.add.at(matrix, (pixels(message, np.uint8, ()), labels[stamp]), 1)
    union = matrix.sum(0) + matrix.sum(1) - np.diag(matrix)
    iou = np.diag(matrix)[union > 0] / union[union > 0]
    assert scores['semantic']['miou'] == pytest.approx(iou.mean(), abs=1e-6)


def test_a_bag_of_outputs_can_be_replayed_and_written_again(
    written: Path, small_bundle: Path, tmp_path: Path
) -> None:
    """Its outputs are recorded topics now: the new ones go into a namespace."""
    command = [
        str(written / 'bag'), '--out', str(tmp_path), '--model', str(small_bundle), '--threads',
        '1', '--write-bag', '--image-topic', '/camera/color/image_raw', '--depth-topic',
        '/camera/aligned_depth_to_color/image_raw',
    ]  # fmt: skip
    assert main(command) == 0
    first = outputs(written / 'bag', '/depth/image_rect')
    again = {
        stamp: pixels(message, np.float32, ())
        for _, stamp, message in decoded(tmp_path / 'bag', '/mtl_perception/depth/image_rect')
    }
    np.testing.assert_array_equal(list(again.values()), list(first.values()))
    kept = [entry for entry in raw(tmp_path / 'bag') if not entry[0].startswith('/mtl_perception')]
    assert kept == raw(written / 'bag')


def test_ctrl_c_leaves_a_whole_bag(
    walk_bag: Path, written: Path, small_bundle: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frame = OutputBag.frame

    def interrupted(self: OutputBag, result: Any) -> None:
        frame(self, result)
        if result.index == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(OutputBag, 'frame', interrupted)
    command = [str(walk_bag), '--out', str(tmp_path), '--model', str(small_bundle)]
    assert main([*command, '--threads', '1', '--write-bag']) == 130
    stamps = [entry[1] for entry in decoded(tmp_path / 'bag', '/camera/color/image_raw')]
    assert len(stamps) == 3
    assert list(outputs(tmp_path / 'bag', '/edges/image_raw')) == stamps
    # Resumed, it becomes the bag of a replay that was not interrupted.
    monkeypatch.undo()
    assert main([*command, '--threads', '1', '--write-bag', '--resume']) == 0
    assert raw(tmp_path / 'bag') == raw(written / 'bag')


def test_a_full_disk_ends_the_bag_but_not_the_replay(
    walk_bag: Path, small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, calls = MessageWriter.copy, []

    def full(self: MessageWriter, message: Any) -> None:
        calls.append(message)
        if len(calls) == 20:
            raise OSError(errno.ENOSPC, 'No space left on device')
        copy(self, message)

    monkeypatch.setattr(MessageWriter, 'copy', full)
    command = [str(walk_bag), '--out', str(tmp_path), '--model', str(small_bundle)]
    assert main([*command, '--threads', '1', '--write-bag']) == 0
    document = json.loads((tmp_path / 'metrics.json').read_text())
    assert document['processed'] == 8
    (note,) = (text for text in document['notes'] if 'could not be written' in text)
    assert 'No space left on device' in note
    # The image of the fourth frame is the twentieth message: five frames have no outputs.
    assert document['notes'][note] == 5
    assert not (tmp_path / 'bag').exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith('.')]


@pytest.mark.realdata
@pytest.mark.parametrize('frames', [10, pytest.param(70, marks=pytest.mark.matrix)])
def test_a_real_kitchen_in_numbers(
    sample_data: Path, small_bundle: Path, tmp_path: Path, frames: int
) -> None:
    """
    JPEG colour, depth in millimetres; every number of depth and normals to 1e-6.

    From the recorded and the written bag by rosbags and numpy alone. The first ten frames; all
    70 take two minutes and 1.3 GB.
    """
    bag = tmp_path / 'kitchen'
    with (
        AnyReader([sample_data / 'bags' / 'kitchen_val']) as reader,
        Writer(bag, version=9, storage_plugin=StoragePlugin.MCAP) as writer,
    ):
        connections = {
            entry.topic: writer.add_connection(
                entry.topic, entry.msgtype, msgdef=entry.msgdef.data, rihs01=entry.digest
            )
            for entry in reader.connections
        }
        for connection, recorded_ns, data in islice(reader.messages(), 4 * frames):
            writer.write(connections[connection.topic], recorded_ns, data)
    command = [str(bag), '--out', str(tmp_path), '--model', str(small_bundle), '--write-bag']
    assert main([*command, '--threads', '1']) == 0
    written, recorded = tmp_path / 'bag', raw(bag)
    topics = {entry[0] for entry in recorded}
    assert [entry for entry in raw(written) if entry[0] in topics] == recorded
    depth = outputs(written, '/depth/image_rect')
    assert len(depth) == frames
    sensor = {
        stamp: pixels(message, np.uint16, ())
        for _, stamp, message in decoded(bag, '/camera/aligned_depth_to_color/image_raw')
    }
    stamps = sorted(depth)
    metres = [np.where(sensor[at] == 0, np.nan, sensor[at] / 1000.0) for at in stamps]
    scores = json.loads((tmp_path / 'metrics.json').read_text())['scores']
    expected = depth_errors([depth[at] for at in stamps], metres)
    assert set(expected) == set(scores['depth'])
    assert scores['depth'] == pytest.approx(expected, abs=1e-6)

    _, _, info = next(decoded(bag, '/camera/color/camera_info'))
    assert not info.d.any()
    normals = outputs(written, '/normals/image_raw')
    truth = [plane_normals(one, info.k.reshape(3, 3)) for one in metres]
    expected = normal_errors([normals[at] for at in stamps], truth)
    assert set(scores['normals']) == {*expected, 'median_deg'}
    found = {name: scores['normals'][name] for name in expected}
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)
    # The median is that of a histogram: exact to half of its 0.01 degree bins.
    median = np.median(angles([normals[at] for at in stamps], truth))
    assert scores['normals']['median_deg'] == pytest.approx(median, abs=0.0051)

    with (tmp_path / 'per_frame.csv').open(newline='') as stream:
        rows = list(csv.DictReader(stream))
    for row, at, target, true in zip(rows, stamps, metres, truth):
        assert int(row['stamp_ns']) == at
        frame = depth_errors([depth[at]], [target])
        assert float(row['depth.abs_rel']) == pytest.approx(frame['abs_rel'], abs=1e-6)
        frame = normal_errors([normals[at]], [true])
        assert float(row['normals.mean_deg']) == pytest.approx(frame['mean_deg'], rel=1e-6)
    images = {
        stamp: cv2.cvtColor(cv2.imdecode(message.data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        for _, stamp, message in decoded(bag, '/camera/color/image_raw/compressed')
    }
    if frames == 10:
        check_cloud(written, images)
