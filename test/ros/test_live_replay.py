# SPDX-License-Identifier: Apache-2.0
"""Replays through the running node over real DDS, against the same replay without ROS."""

from __future__ import annotations

from collections.abc import Callable
import csv
import json
from pathlib import Path
import shutil
from typing import Any

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('onnxruntime')
pytest.importorskip('torch')
from mtl_perception.evaluation.replay_command import main

pytestmark = pytest.mark.ros

FRAMES = 8
SAME = (
    'bag', 'topics', 'model', 'frames', 'processed', 'scores', 'class_iou', 'frames_scored',
    'refused', 'notes', 'damage', 'lost', 'interrupted', 'confusion', 'warnings',
    'worst_segments',
)  # fmt: skip


def rows(out: Path) -> list[dict[str, str]]:
    """Return per_frame.csv without its milliseconds."""
    with (out / 'per_frame.csv').open(newline='') as stream:
        return [
            {name: value for name, value in row.items() if not name.endswith('_ms')}
            for row in csv.DictReader(stream)
        ]


@pytest.fixture(scope='module')
def offline(
    walk_bag: Path, small_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out: Path = tmp_path_factory.mktemp('offline')
    command = [str(walk_bag), '--out', str(out), '--model', str(small_bundle), '--threads', '1']
    assert main(command) == 0
    assert len(rows(out)) == FRAMES
    return out


def test_step_by_step_the_node_scores_as_the_engine_does(
    walk_bag: Path,
    small_bundle: Path,
    offline: Path,
    tmp_path: Path,
    start_command: Callable[..., Any],
) -> None:
    """Not nearly: labels are bytes, and floats travel as floats."""
    running = start_command(
        'replay', walk_bag, '--out', tmp_path, '--model', small_bundle, '--threads', 1,
        '--live', '--step',
    )  # fmt: skip
    assert running.wait(200) == 0, running.output
    documents = [json.loads((out / 'metrics.json').read_text()) for out in (offline, tmp_path)]
    for name in SAME:
        assert documents[1][name] == documents[0][name], name
    assert documents[1]['engine'] == 'onnxruntime, live step by step'
    assert rows(tmp_path) == rows(offline)
    assert documents[1]['latency_ms']['live']['median'] > 0
    # Of the node's process, which has no torch: less than ours.
    assert 0 < documents[1]['peak_memory_mib'] < 0.8 * documents[0]['peak_memory_mib']
    with (tmp_path / 'per_frame.csv').open(newline='') as stream:
        assert all(float(row['live_ms']) > 0 for row in csv.DictReader(stream))
    assert 'live_ms' in (tmp_path / 'report.html').read_text()
    assert 'onnxruntime runs' in (tmp_path / 'live.log').read_text()
    assert 'Traceback' not in (tmp_path / 'live.log').read_text() + running.output


def test_at_a_rate_every_frame_is_scored_or_accounted_for(
    walk_bag: Path,
    small_bundle: Path,
    offline: Path,
    tmp_path: Path,
    start_command: Callable[..., Any],
) -> None:
    """Into a node that runs already: what it publishes is scored, what it drops is said."""
    node = start_command(
        'live', '--model', small_bundle, '--ros-args', '-p', 'threads:=1',
        '-p', 'use_sim_time:=true', '-r', 'image:=/camera/color/image_raw',
        '-r', 'camera_info:=/camera/color/camera_info',
    )  # fmt: skip
    running = start_command(
        'replay', walk_bag, '--out', tmp_path, '--model', small_bundle, '--live', '--attach',
        '--rate', 0.5, '--engine', 'openvino',
    )  # fmt: skip
    assert running.wait(200) == 0, running.output
    document = json.loads((tmp_path / 'metrics.json').read_text())
    assert document['processed'] >= 1
    assert document['processed'] + sum(document['refused'].values()) == FRAMES
    # The engine of the node that runs, whatever was asked for.
    assert document['engine'] == 'onnxruntime, live'
    assert document['peak_memory_mib'] is None
    # Eight frames in 3.5 seconds: more cannot have come out.
    assert document['frames_per_second'] < 2.3
    assert 0 < document['latency_ms']['live']['median'] < 3500
    expected = {row['stamp_ns']: row for row in rows(offline)}
    for row in rows(tmp_path):
        if row['refused']:
            assert row['refused'].startswith(('dropped', 'outputs were lost', 'no outputs came'))
        else:
            assert row == expected[row['stamp_ns']]
    assert not (tmp_path / 'live.log').exists()
    assert node.interrupt() == 0


@pytest.mark.slow
def test_an_image_of_a_few_bytes_is_refused_and_the_rest_scored(
    walk_bag: Path, small_bundle: Path, tmp_path: Path, start_command: Callable[..., Any]
) -> None:
    """The third image is cut off within its header."""
    from rosbags.highlevel import AnyReader
    from rosbags.rosbag2 import StoragePlugin, Writer

    bag, images = tmp_path / 'bag', 0
    with (
        AnyReader([walk_bag]) as reader,
        Writer(bag, version=9, storage_plugin=StoragePlugin.MCAP) as writer,
    ):
        topics = {
            one.topic: writer.add_connection(
                one.topic, one.msgtype, msgdef=one.msgdef.data, rihs01=one.digest
            )
            for one in reader.connections
        }
        for connection, recorded_ns, data in reader.messages():
            if connection.topic == '/camera/color/image_raw':
                images += 1
                data = data[:8] if images == 3 else data
            writer.write(topics[connection.topic], recorded_ns, data)
    running = start_command(
        'replay', bag, '--out', tmp_path, '--model', small_bundle, '--threads', 1, '--live',
        '--step',
    )  # fmt: skip
    assert running.wait(200) == 0, running.output
    found = rows(tmp_path)
    assert [bool(row['refused']) for row in found] == [index == 2 for index in range(FRAMES)]
    assert 'cannot be read' in found[2]['refused']


def test_a_node_that_cannot_start_is_one_line(
    walk_bag: Path, small_bundle: Path, tmp_path: Path, start_command: Callable[..., Any]
) -> None:
    broken = shutil.copytree(small_bundle, tmp_path / 'broken')
    (broken / 'graph.onnx').write_bytes(b'cut off')
    running = start_command(
        'replay', walk_bag, '--out', tmp_path, '--model', broken, '--live', '--step'
    )
    assert running.wait(200) == 1
    last = running.output.splitlines()[-1]
    assert 'the perception node ended with code 1' in last
    assert 'live.log' in last


@pytest.mark.parametrize(
    'wrong',
    [['--step'], ['--attach'], ['--rate', '2'], ['--live', '--rate', '0'],
     ['--live', '--step', '--rate', '2'], ['--live', '--resume'],
     ['--live', '--camera', 'c.yaml']],
)  # fmt: skip
def test_options_that_do_not_go_together_end_with_2(tmp_path: Path, wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path), '--out', str(tmp_path / 'out'), *wrong])
    assert ended.value.code == 2
    assert not (tmp_path / 'out').exists()
