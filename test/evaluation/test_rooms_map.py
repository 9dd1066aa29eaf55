# SPDX-License-Identifier: Apache-2.0
"""The map of a recorded walk, from the bag to the PLY, against the world's own mesh."""

from __future__ import annotations

import json
from pathlib import Path

from mtl_perception.bags.frames import BagReader
from mtl_perception.tasks import standard_tasks
from mtl_perception.values import Frame, PerceptionMaps, UNLABELLED
import numpy as np
import pytest

pytest.importorskip('torch')
pytest.importorskip('open3d', reason='Open3D is not installed', exc_type=ImportError)
pytest.importorskip('embreex', reason='embreex is not installed: no rooms to walk through')
trimesh = pytest.importorskip('trimesh')

from mtl_perception.evaluation.replay import Replay  # noqa: E402
from mtl_perception.evaluation.scene_map import SceneMap  # noqa: E402

SEED, FRAMES, SIZE, STEP_NS = 5, 20, (320, 240), 250_000_000


def nearest(world: object, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how far each point is from the world's mesh and the label of the face there."""
    import open3d

    corners = np.ascontiguousarray(world.mesh.vertices.reshape(-1, 3))
    faces = np.arange(len(corners), dtype=np.uint32).reshape(-1, 3)
    scene = open3d.t.geometry.RaycastingScene()
    scene.add_triangles(open3d.core.Tensor(corners), open3d.core.Tensor(faces))
    found = scene.compute_closest_points(open3d.core.Tensor(points.astype(np.float32)))
    distance = np.linalg.norm(found['points'].numpy() - points, axis=1)
    hit = found['primitive_ids'].numpy().astype(np.int64)
    return distance, world.mesh.object_labels[world.mesh.objects[hit]]


@pytest.mark.slow
def test_a_walk_with_its_own_truth_becomes_the_world(tmp_path: Path) -> None:
    from mtl_perception.datasets.bag_writer import BagWriter
    from mtl_perception.simulation.rooms import rooms_frames, world_seed
    from mtl_perception.simulation.world import RoomsWorld

    samples = list(rooms_frames(SEED, FRAMES, size=SIZE, frames_per_world=FRAMES))
    with BagWriter(tmp_path / 'bag') as writer:
        for index, sample in enumerate(samples):
            writer.sample(10**9 + index * STEP_NS, sample)

    def truth(frame: Frame) -> PerceptionMaps:
        targets = dict(samples[(frame.stamp_ns - 10**9) // STEP_NS].targets)
        targets['edges'] = targets['edges'] * np.uint8(255)
        return PerceptionMaps(targets, {}, frame.image, frame.camera)

    out = tmp_path / 'out'
    out.mkdir()
    tasks = standard_tasks('rooms')
    with BagReader(tmp_path / 'bag') as reader, SceneMap() as scene:
        Replay(reader, truth, tasks, out, [scene]).run()
    document = json.loads((out / 'map.json').read_text())
    assert document['frames_with_pose'] == FRAMES
    assert document['surface_distance_m']['predicted_to_sensor']['p99'] == pytest.approx(
        0, abs=1e-4
    )
    cloud = trimesh.load(out / 'map_predicted.ply', process=False)
    labels = np.ravel(cloud.metadata['_ply_raw']['vertex']['data']['label'])
    assert len(labels) > 50_000
    distance, expected = nearest(
        RoomsWorld.from_seed(world_seed(SEED, 0)), np.asarray(cloud.vertices)
    )
    assert np.median(distance) < 0.002  # asked for: 0.01 m
    named, labelled = expected != UNLABELLED, labels != UNLABELLED
    assert (labels == expected)[named & labelled].mean() > 0.98
    assert labelled[named].mean() > 0.93
    # Those without a label are mostly no part of the world's surface.
    assert np.median(distance[~labelled]) > 0.01
