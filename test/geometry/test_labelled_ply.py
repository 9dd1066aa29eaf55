# SPDX-License-Identifier: Apache-2.0
"""PLY files as other libraries read them."""

from __future__ import annotations

import json
from pathlib import Path

from mtl_perception.geometry.labelled_ply import write_ply
from mtl_perception.geometry.scene import LabelledCloud, LabelledMesh
from mtl_perception.tasks import load_label_set
import numpy as np
import pytest


@pytest.fixture
def cloud() -> LabelledCloud:
    random = np.random.default_rng(0)
    normals = random.normal(size=(50, 3)).astype(np.float32)
    return LabelledCloud(
        random.normal(size=(50, 3)).astype(np.float32),
        random.integers(0, 256, (50, 3), dtype=np.uint8),
        normals / np.linalg.norm(normals, axis=1, keepdims=True),
        random.integers(0, 256, 50, dtype=np.uint8),
        random.random(50, dtype=np.float32),
    )


def test_trimesh_reads_all_properties(cloud: LabelledCloud, tmp_path: Path) -> None:
    trimesh = pytest.importorskip('trimesh')
    triangles = np.random.default_rng(1).permutation(48).reshape(16, 3).astype(np.int32)
    label_set = load_label_set('rooms')
    write_ply(tmp_path / 'map.ply', LabelledMesh(cloud, triangles), label_set)
    mesh = trimesh.load(tmp_path / 'map.ply', process=False, maintain_order=True)
    np.testing.assert_array_equal(mesh.vertices.astype(np.float32), cloud.points)
    np.testing.assert_array_equal(mesh.faces, triangles)
    np.testing.assert_array_equal(mesh.visual.vertex_colors[:, :3], cloud.colours)
    data = mesh.metadata['_ply_raw']['vertex']['data']
    np.testing.assert_array_equal(np.ravel(data['label']), cloud.labels)
    np.testing.assert_array_equal(np.ravel(data['confidence']), cloud.confidence)
    for axis, name in enumerate(('nx', 'ny', 'nz')):
        np.testing.assert_array_equal(np.ravel(data[name]), cloud.normals[:, axis])
    document = json.loads((tmp_path / 'map.labels.json').read_text())
    assert document['names'] == list(label_set.names)
    assert document['colours'] == [list(colour) for colour in label_set.colours]


def test_open3d_reads_the_label_of_a_cloud(cloud: LabelledCloud, tmp_path: Path) -> None:
    open3d = pytest.importorskip('open3d', reason='Open3D is not installed', exc_type=ImportError)
    write_ply(tmp_path / 'map.ply', cloud)
    read = open3d.t.io.read_point_cloud(str(tmp_path / 'map.ply'))
    np.testing.assert_array_equal(read.point.positions.numpy(), cloud.points)
    np.testing.assert_array_equal(read.point.normals.numpy(), cloud.normals)
    np.testing.assert_array_equal(read.point.colors.numpy(), cloud.colours)
    np.testing.assert_array_equal(read.point.label.numpy()[:, 0], cloud.labels)
    assert not (tmp_path / 'map.labels.json').exists()
