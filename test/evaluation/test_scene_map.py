# SPDX-License-Identifier: Apache-2.0
"""The fused scene of a replay: two planes whose distance is known."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import cv2
from mtl_perception.bags.topics import BagTopics
from mtl_perception.camera import CameraModel
from mtl_perception.tasks import standard_tasks
from mtl_perception.values import Frame, PerceptionMaps
import numpy as np
import pytest

pytest.importorskip('torch')
pytest.importorskip('open3d', reason='Open3D is not installed', exc_type=ImportError)
trimesh = pytest.importorskip('trimesh')

from mtl_perception.evaluation.replay import ReplayReport  # noqa: E402
from mtl_perception.evaluation.replay_observer import FrameResult, ReplayContext  # noqa: E402
from mtl_perception.evaluation.scene_map import SceneMap, without_jumps  # noqa: E402

CAMERA = CameraModel(64, 48, 60.0, 60.0, 31.5, 23.5)


def result(
    index: int, depth: float, measured: float | None, pose: np.ndarray | None
) -> FrameResult:
    """Return a frame that looks squarely at a table top, half of it labelled 8, half 17."""
    flat = np.full((48, 64), depth, np.float32)
    labels = np.full((48, 64), 8, np.uint8)
    labels[:, 32:] = 17
    normals = np.zeros((48, 64, 3), np.float32)
    normals[..., 2] = -1
    image = np.full((48, 64, 3), 90, np.uint8)
    maps = PerceptionMaps(
        {'semantic': labels, 'depth': flat, 'normals': normals},
        {'semantic': np.full((48, 64), 0.8, np.float32)}, image, CAMERA,
    )  # fmt: skip
    targets = {} if measured is None else {'depth': np.full((48, 64), measured, np.float32)}
    return FrameResult(
        index, index * 10**8, frame=Frame(image, 0, 'camera', CAMERA), maps=maps, targets=targets,
        pose=pose,
    )


def test_the_two_surfaces_lie_as_far_apart_as_their_depths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the disk was full when they were written first."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, 'No space left on device')

    context = ReplayContext(
        'run', Path('bag'), BagTopics(), standard_tasks('rooms'), tmp_path, frame_count=5
    )
    with SceneMap() as scene:
        scene.begin(context)
        for index in range(3):
            scene.frame(result(index, 1.56, 1.5, np.eye(4)))
        scene.frame(result(3, 1.56, 1.5, None))
        scene.frame(FrameResult(4, 0, 'no image'))
        with monkeypatch.context() as patch, pytest.raises(OSError, match='No space'):
            patch.setattr('mtl_perception.evaluation.scene_map.write_ply', full)
            scene.finish(ReplayReport('bag', {}))
        scene.finish(ReplayReport('bag', {}))
    document = json.loads((tmp_path / 'map.json').read_text())
    assert document == scene.document
    assert document['frames_with_pose'] == 3
    assert sum(document['skipped_frames'].values()) == 1
    for direction in ('predicted_to_sensor', 'sensor_to_predicted'):
        assert document['surface_distance_m'][direction]['median'] == pytest.approx(0.06, abs=2e-3)
    for name, depth in (('predicted', 1.56), ('sensor', 1.5)):
        mesh = trimesh.load(tmp_path / f'map_{name}_mesh.ply', process=False)
        assert np.abs(mesh.vertices[:, 2] - depth).max() < 2e-3
        assert len(mesh.faces) == document['maps'][name]['triangles'] > 1000
        cloud = trimesh.load(tmp_path / f'map_{name}.ply')
        labels = np.ravel(cloud.metadata['_ply_raw']['vertex']['data']['label'])
        clear = np.abs(cloud.vertices[:, 0]) > 0.05
        expected = np.where(cloud.vertices[:, 0] < 0, 8, 17)
        voted = clear & (labels != 255)
        assert voted.sum() > 0.85 * clear.sum()
        np.testing.assert_array_equal(labels[voted], expected[voted])
        assert (tmp_path / f'map_{name}.labels.json').is_file()
    assert len(scene.pictures) == 8
    for entry in scene.pictures:
        picture = cv2.imread(str(tmp_path / f'{entry.name}.png'))
        np.testing.assert_array_equal(picture[..., ::-1], entry.picture)


def test_without_poses_nothing_is_fused_and_it_says_why(tmp_path: Path) -> None:
    context = ReplayContext(
        'run', Path('bag'), BagTopics(), standard_tasks('rooms'), tmp_path, frame_count=2
    )
    with SceneMap() as scene:
        scene.begin(context)
        scene.frame(result(0, 1.5, None, None))
        scene.finish(ReplayReport('bag', {}))
    document = json.loads((tmp_path / 'map.json').read_text())
    assert document['maps'] == {}
    assert 'odometry' in next(iter(document['skipped_frames']))
    assert scene.pictures == ()
    assert not list(tmp_path.glob('*.ply'))


def test_pixels_beside_jumps_are_left_out_and_slopes_are_not() -> None:
    depth = np.full((48, 64), 2.0, np.float32)
    depth[:, 40:] = 4.0
    depth[:10] = np.nan
    clean = without_jumps(depth, CAMERA)
    expected = np.ones((48, 64), np.bool_)
    expected[:10] = False
    expected[:, 39:41] = False
    np.testing.assert_array_equal(np.isfinite(clean), expected)
    # A floor 1.2 m below the camera, seen to 4 m.
    rows = np.arange(48)[:, None] - CAMERA.cy
    floor = np.where(rows > 18, 1.2 * CAMERA.fy / np.maximum(rows, 1), np.nan)
    floor = np.repeat(floor, 64, axis=1).astype(np.float32)
    np.testing.assert_array_equal(
        np.isfinite(without_jumps(floor, CAMERA)), np.isfinite(floor)
    )
