# SPDX-License-Identifier: Apache-2.0
"""The fused scene against surfaces that are known: a plane, and rendered rooms."""

from __future__ import annotations

from dataclasses import dataclass
import sys

from mtl_perception.camera import CameraModel
from mtl_perception.geometry.errors import GeometryError
from mtl_perception.geometry.scene import LabelledCloud
from mtl_perception.geometry.semantic_map import SemanticMap
import numpy as np
import pytest

CAMERA = CameraModel(64, 48, 60.0, 55.0, 30.0, 25.5)
CLASSES = 18


@pytest.fixture(scope='module')
def open3d() -> object:
    return pytest.importorskip(
        'open3d', reason='Open3D (and apt libusb-1.0-0) is needed for the fused map',
        exc_type=ImportError,
    )


def turned(yaw: float, shift: tuple[float, float, float]) -> np.ndarray:
    """Return a pose: an optical frame turned about its y axis and moved."""
    pose = np.eye(4)
    pose[:3, :3] = [
        [np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]
    ]  # fmt: skip
    pose[:3, 3] = shift
    return pose


def plane_depth(pose: np.ndarray, distance: float) -> np.ndarray:
    """Depth of the world plane z = distance: the ray's length at which its world z is there."""
    u, v = np.meshgrid(np.arange(CAMERA.width), np.arange(CAMERA.height))
    rays = np.stack(
        ((u - CAMERA.cx) / CAMERA.fx, (v - CAMERA.cy) / CAMERA.fy, np.ones(u.shape)), -1
    )
    return ((distance - pose[2, 3]) / (rays @ pose[2, :3])).astype(np.float32)


def test_a_plane_seen_from_three_sides_lies_where_it_is(open3d: object) -> None:
    colour = np.full((48, 64, 3), (200, 100, 50), np.uint8)
    with SemanticMap(voxel_m=0.02) as scene:
        for yaw, x in ((0.0, 0.0), (0.3, -0.4), (-0.25, 0.35)):
            pose = turned(yaw, (x, 0.1, 0.0))
            labels = np.full((48, 64), 7, np.uint8)
            normals = np.broadcast_to(pose[:3, :3].T @ (0, 0, -1), (48, 64, 3))
            scene.integrate(
                plane_depth(pose, 1.53), colour, CAMERA, pose, labels=labels, normals=normals
            )
        mesh = scene.mesh()
        assert scene.state.frames == 3
    cloud = mesh.vertices
    assert len(cloud) > 2000
    error = np.abs(cloud.points[:, 2] - 1.53)
    assert np.median(error) < 0.001
    assert error.max() < 0.02
    assert (cloud.colours == (200, 100, 50)).all()
    labelled = cloud.labels != 255
    assert labelled.mean() > 0.95
    assert (cloud.labels[labelled] == 7).all()
    np.testing.assert_allclose(cloud.confidence[labelled], 1.0)
    assert np.percentile(cloud.normals @ (0, 0, -1), 1) > 0.99
    # A triangle's own normal, by its winding, faces the cameras too.
    a, b, c = (cloud.points[mesh.triangles[:, index]] for index in range(3))
    assert (np.cross(b - a, c - a)[:, 2] < 0).mean() > 0.99


def test_confident_votes_outweigh_many_unsure_ones(open3d: object) -> None:
    depth = plane_depth(np.eye(4), 1.5)
    colour = np.zeros((48, 64, 3), np.uint8)
    with SemanticMap(voxel_m=0.03) as scene:
        for label, confidence in ((3, 0.3), (3, 0.3), (9, 0.9), (255, 1.0), (4, 0.0)):
            scene.integrate(
                depth, colour, CAMERA, np.eye(4),
                labels=np.full((48, 64), label, np.uint8),
                confidence=np.full((48, 64), confidence, np.float32),
            )  # fmt: skip
        cloud = scene.point_cloud()
    labelled = cloud.labels != 255
    assert labelled.mean() > 0.9
    assert set(cloud.labels[labelled]) == {9}
    np.testing.assert_allclose(cloud.confidence[labelled], 0.9 / 1.5, rtol=1e-5)


def test_a_full_map_refines_what_it_has_and_counts_the_rest(open3d: object) -> None:
    colour = np.zeros((48, 64, 3), np.uint8)
    with SemanticMap(voxel_m=0.02, memory_mb=5.0) as scene:
        room = scene.state.max_blocks
        assert room == 221 - 221 // 8  # 5 MB of blocks of 512 voxels, 44 bytes each
        scene.integrate(plane_depth(np.eye(4), 1.2), colour, CAMERA, np.eye(4))
        before = scene.state
        assert before.blocks <= room
        far = turned(0.0, (0.0, 3.0, 0.0))
        for _ in range(3):
            scene.integrate(plane_depth(far, 2.5), colour, CAMERA, far)
            scene.integrate(plane_depth(np.eye(4), 1.2), colour, CAMERA, np.eye(4))
        after = scene.state
        assert after.blocks == room == after.max_blocks
        assert after.refused_blocks > 0
        assert after.memory_mb <= 5.0
        seen_often = scene.point_cloud(min_observations=4)
        assert len(seen_often) > 500
        assert np.abs(seen_often.points[:, 2] - 1.2).max() < 0.03


@dataclass(frozen=True)
class Rooms:
    """A world, the frames of a walk through it and its own surface for comparison."""

    world: object
    camera: CameraModel
    poses: np.ndarray
    frames: list

    def compare(self, cloud: LabelledCloud) -> tuple[np.ndarray, np.ndarray]:
        """Return each point's distance to the world's mesh and the label of the face there."""
        import open3d

        triangles = np.ascontiguousarray(self.world.mesh.vertices.reshape(-1, 3))
        corners = np.arange(len(triangles), dtype=np.uint32).reshape(-1, 3)
        scene = open3d.t.geometry.RaycastingScene()
        scene.add_triangles(open3d.core.Tensor(triangles), open3d.core.Tensor(corners))
        closest = scene.compute_closest_points(open3d.core.Tensor(cloud.points))
        distance = np.linalg.norm(closest['points'].numpy() - cloud.points, axis=1)
        faces = closest['primitive_ids'].numpy().astype(np.int64)
        return distance, self.world.mesh.object_labels[self.world.mesh.objects[faces]]


@pytest.fixture(scope='module')
def rooms(open3d: object) -> Rooms:
    pytest.importorskip('embreex', reason='embreex is not installed: no rooms to walk through')
    from mtl_perception.simulation.render import trace
    from mtl_perception.simulation.walk import walk
    from mtl_perception.simulation.world import RoomsWorld

    world = RoomsWorld.from_seed(12)
    camera = CameraModel(160, 120, 120.0, 120.0, 79.5, 59.5)
    poses = walk(world, 12, 24, rate_hz=2.0)
    return Rooms(world, camera, poses, [trace(world, camera, pose) for pose in poses])


def fused(rooms: Rooms, labels: list[np.ndarray]) -> LabelledCloud:
    colour = np.zeros((120, 160, 3), np.uint8)
    with SemanticMap(voxel_m=0.02) as scene:
        for frame, pose, seen in zip(rooms.frames, rooms.poses, labels):
            scene.integrate(
                frame.depth, colour, rooms.camera, pose, labels=seen, normals=frame.normals
            )
        return scene.point_cloud(min_observations=1)


def test_true_depth_and_labels_give_the_world(rooms: Rooms) -> None:
    cloud = fused(rooms, [frame.labels for frame in rooms.frames])
    distance, labels = rooms.compare(cloud)
    labelled = cloud.labels != 255
    assert len(cloud) > 100_000
    assert labelled.mean() > 0.85
    assert np.median(distance) < 0.003  # asked for: 0.01 m
    assert np.percentile(distance, 90) < 0.01
    assert (cloud.labels == labels)[labelled].mean() > 0.98


def test_fused_labels_beat_every_corrupted_frame(rooms: Rooms) -> None:
    random = np.random.default_rng(0)
    corrupted, accuracies = [], []
    for frame in rooms.frames:
        labels = frame.labels.copy()
        chosen = random.random(labels.shape) < 0.3
        labels[chosen] = random.integers(0, CLASSES, np.count_nonzero(chosen))
        corrupted.append(labels)
        accuracies.append((labels == frame.labels).mean())
    cloud = fused(rooms, corrupted)
    _, labels = rooms.compare(cloud)
    labelled = cloud.labels != 255
    accuracy = (cloud.labels == labels)[labelled].mean()
    assert max(accuracies) < 0.74
    assert accuracy > max(accuracies) + 0.15


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'depth': np.ones((5, 4), np.float32)}, r'depth has shape \(5, 4\).*\(48, 64\)'),
        ({'labels': np.zeros((5, 4), np.uint8)}, 'labels has shape'),
        ({'pose': np.diag([2.0, 1, 1, 1])}, 'no rigid motion'),
        ({'pose': np.full((4, 4), np.nan)}, 'not finite'),
        ({'camera': CameraModel(64, 48, 60, 60, 32, 24, distortion=(0.1, 0, 0, 0))}, 'rectif'),
    ],
)
def test_bad_frames_are_refused(open3d: object, changes: dict, message: str) -> None:
    frame = {
        'depth': np.ones((48, 64), np.float32), 'colour': np.zeros((48, 64, 3), np.uint8),
        'camera': CAMERA, 'pose': np.eye(4),
    }  # fmt: skip
    with SemanticMap() as scene:
        with pytest.raises(GeometryError, match=message):
            scene.integrate(**{**frame, **changes})
        assert scene.state.frames == 0
    with pytest.raises(GeometryError, match='closed'):
        scene.point_cloud()


def test_an_empty_map_has_no_points(open3d: object) -> None:
    with SemanticMap() as scene:
        nothing = np.full((48, 64), np.nan, np.float32)
        scene.integrate(nothing, np.zeros((48, 64, 3), np.uint8), CAMERA, np.eye(4))
        assert len(scene.point_cloud()) == 0
        assert scene.mesh().triangles.shape == (0, 3)


def test_without_open3d_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'open3d', None)
    with pytest.raises(GeometryError, match=r'pip install.*libusb-1\.0-0'):
        SemanticMap()
