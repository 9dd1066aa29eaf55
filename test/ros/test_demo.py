# SPDX-License-Identifier: Apache-2.0
"""The demo as a newcomer runs it, and what it says when it cannot run."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
import json
from pathlib import Path
import socket
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy')
from mtl_perception.ros import demo_command
from mtl_perception.ros.errors import RosError

pytestmark = pytest.mark.ros

IMAGES = {
    'semantic/image_raw', 'semantic/confidence', 'semantic_color/image_raw', 'depth/image_rect',
    'normals/image_raw', 'normals_color/image_raw', 'edges/image_raw',
}  # fmt: skip


@pytest.mark.slow
def test_headless_saves_a_picture_of_every_output(
    tmp_path: Path, start_command: Callable[..., Any]
) -> None:
    pytest.importorskip('embreex')
    pytest.importorskip('onnxruntime')
    out = tmp_path / 'out'
    demo = start_command('demo', '--headless', '--duration', 3, '--out', out)
    assert demo.wait(120) == 0, demo.output
    assert str(out / 'contact_sheet.png') in demo.output
    rows = {row['topic']: row for row in json.loads((out / 'demo.json').read_text())['topics']}
    assert {*IMAGES, 'depth/camera_info', 'points'} < set(rows)
    for topic, row in rows.items():
        assert row['verdict'] == 'fine', topic
        assert row['received'] >= 1, topic
    for topic in (*IMAGES, 'points'):
        assert rows[topic]['received'] >= 2, topic
        assert rows[topic]['latency_ms'] > 0, topic
        picture = cv2.imread(str(out / f'{topic.replace("/", "_")}.png'))
        assert picture is not None, (topic, sorted(file.name for file in out.iterdir()))
        assert np.ptp(picture) > 0, topic
    sheet = cv2.imread(str(out / 'contact_sheet.png'))
    assert sheet.shape[0] > 240
    assert sheet.shape[1] > 320


def test_a_model_that_is_none_is_said_in_one_line(
    tmp_path: Path, start_command: Callable[..., Any]
) -> None:
    demo = start_command('demo', '--headless', '--model', tmp_path / 'none', '--out', tmp_path)
    assert demo.wait(60) == 1
    (line,) = demo.output.splitlines()
    assert 'none is not a bundle: there is no such directory' in line


@pytest.mark.parametrize(
    ('camera', 'expected'),
    [
        ('rooms', ['rooms', '--seed', '7', '--rate', '5.0']),
        ('rooms --size 640x480', ['rooms', '--seed', '7', '--size', '640x480', '--rate', '5.0']),
        ('rooms --seed 3', ['rooms', '--seed', '7', '--seed', '3', '--rate', '5.0']),
        ('"video:a walk.mp4" --loop', ['video:a walk.mp4', '--loop', '--rate', '5.0']),
    ],
)
def test_the_seed_goes_to_rooms_with_options_too(camera: str, expected: list[str]) -> None:
    arguments = Namespace(camera=camera, rate=5.0, seed=7)
    assert demo_command._camera_arguments(arguments) == expected


@pytest.mark.parametrize('which', ['web_port', 'data_port'])
def test_a_taken_port_is_named_with_the_remedy(which: str) -> None:
    pytest.importorskip('rerun')
    from mtl_perception.ros.viewer import Viewer

    with socket.socket() as taken, socket.socket() as other:
        for one in (taken, other):
            one.bind(('0.0.0.0', 0))
        taken.listen()
        free = other.getsockname()[1]
        other.close()
        port = taken.getsockname()[1]
        ports = {'web_port': free, 'data_port': free, which: port}
        with pytest.raises(RosError, match=rf'on port {port}: .*in use; .*--headless'):
            Viewer(**ports)
