# SPDX-License-Identifier: Apache-2.0
"""The page and the fused scene of the replay command, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path
import re
from typing import Any

import cv2
from mtl_perception import cli
from mtl_perception.camera import CameraModel
import numpy as np
import pytest

pytest.importorskip('open3d', reason='Open3D is not installed', exc_type=ImportError)
trimesh = pytest.importorskip('trimesh')

CAMERA = CameraModel(128, 96, 120.0, 120.0, 63.5, 47.5)
MS = 1_000_000


def write_bag(bags: Any, path: Path) -> Path:
    """A camera that moves 2 cm a frame to the right, past a wall 2 m away."""
    types = bags.typestore.types
    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    jpeg = cv2.imencode('.jpg', cv2.GaussianBlur(pixels, (0, 0), 5))[1].tobytes()
    messages = []
    for index in range(4):
        stamp = 10**9 + index * 33 * MS
        pose = types['geometry_msgs/msg/Pose'](
            position=types['geometry_msgs/msg/Point'](x=0.02 * index, y=0.0, z=0.0),
            orientation=types['geometry_msgs/msg/Quaternion'](x=0.0, y=0.0, z=0.0, w=1.0),
        )
        nothing = types['geometry_msgs/msg/Vector3'](x=0.0, y=0.0, z=0.0)
        twist = types['geometry_msgs/msg/Twist'](linear=nothing, angular=nothing)
        odometry = types['nav_msgs/msg/Odometry'](
            header=bags.header(stamp, 'odom'), child_frame_id='optical',
            pose=types['geometry_msgs/msg/PoseWithCovariance'](
                pose=pose, covariance=np.zeros(36)
            ),
            twist=types['geometry_msgs/msg/TwistWithCovariance'](
                twist=twist, covariance=np.zeros(36)
            ),
        )  # fmt: skip
        depth = bags.image(np.full((96, 128), 2000, np.uint16), '16UC1', stamp)
        messages += [
            ('/odom', stamp, odometry),
            ('/camera/color/image_raw/compressed', stamp, bags.compressed(jpeg, stamp)),
            ('/camera/color/camera_info', stamp, bags.camera_info(CAMERA, stamp)),
            ('/camera/aligned_depth_to_color/image_raw', stamp, depth),
        ]
    return bags.write(path, messages)


def test_two_bags_become_one_page_with_their_maps(
    bags: Any, small_bundle: Path, tmp_path: Path
) -> None:
    paths = [write_bag(bags, tmp_path / name) for name in ('one', 'two')]
    out = tmp_path / 'out'
    command = ['replay', *map(str, paths), '--out', str(out), '--model', str(small_bundle)]
    assert cli.main([*command, '--threads', '1', '--map']) == 0
    text = (out / 'report.html').read_text(encoding='utf-8')
    data = re.search(r'id="frames-data">(.*?)</script>', text, re.DOTALL)
    assert data is not None
    shown = json.loads(data[1])['bags']
    assert [entry['bag'] for entry in shown] == [str(path) for path in paths]
    row = re.search(r'<th scope="row">depth.rmse_m</th>(.*?)</tr>', text)
    assert row is not None
    cells = re.findall(r'<td>([\d.]+)', row[1])
    for name, entry, cell in zip(('one', 'two'), shown, cells):
        document = json.loads((out / name / 'metrics.json').read_text())
        assert float(cell) == pytest.approx(document['scores']['depth']['rmse_m'], rel=6e-3)
        (run,) = entry['runs']
        assert [strip['index'] for strip in run['strips']] == [0, 1, 2, 3]
        titles = [picture[0] for picture in run['strips'][0]['pictures']]
        assert titles[:2] == ['camera', 'semantic']
        assert 'depth, from the bag' in titles
        # The wall, where odometry and depth say that it is.
        wall = trimesh.load(out / name / 'map_sensor_mesh.ply', process=False)
        assert np.abs(wall.vertices[:, 2] - 2.0).max() < 2e-3
        (left, right) = wall.vertices[:, 0].min(), wall.vertices[:, 0].max()
        assert left == pytest.approx(-63.5 / 120 * 2 + 0.02, abs=0.05)
        assert right == pytest.approx(64.5 / 120 * 2 + 0.04, abs=0.05)
        assert json.loads((out / name / 'map.json').read_text())['frames_with_pose'] == 4
    assert text.count('alt="one: measured depth') == 4
    assert 'skipped' not in text
