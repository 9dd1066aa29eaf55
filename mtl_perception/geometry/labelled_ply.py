# SPDX-License-Identifier: Apache-2.0
"""Write labelled clouds and meshes: binary PLY, the label set as JSON beside it."""

from __future__ import annotations

from pathlib import Path

from mtl_perception.files import atomic_write, write_json
from mtl_perception.geometry.scene import LabelledCloud, LabelledMesh
from mtl_perception.tasks import LabelSet
import numpy as np

# Names that MeshLab, CloudCompare, Open3D and PCL know; `label` and `confidence` are ours.
_VERTEX = np.dtype([
    ('x', '<f4'), ('y', '<f4'), ('z', '<f4'), ('nx', '<f4'), ('ny', '<f4'), ('nz', '<f4'),
    ('red', 'u1'), ('green', 'u1'), ('blue', 'u1'), ('label', 'u1'), ('confidence', '<f4'),
])  # fmt: skip
_FACE = np.dtype([('count', 'u1'), ('indices', '<i4', (3,))])
_PLY_TYPES = {'<f4': 'float', '|u1': 'uchar'}


def write_ply(
    path: Path, scene: LabelledCloud | LabelledMesh, label_set: LabelSet | None = None
) -> None:
    """
    Write a cloud or mesh as PLY and, with `label_set`, `<name>.labels.json` beside it.

    Each vertex has position (metres, world), normal, colour, `label` (uchar, 255 = unlabelled)
    and `confidence` (float). The JSON holds the name of the set, the names and the colours, by
    position. Both are written atomically.
    """
    cloud = scene.vertices if isinstance(scene, LabelledMesh) else scene
    vertices = np.empty(len(cloud), _VERTEX)
    for names, values in (
        (('x', 'y', 'z'), cloud.points),
        (('nx', 'ny', 'nz'), cloud.normals),
        (('red', 'green', 'blue'), cloud.colours),
    ):
        for axis, name in enumerate(names):
            vertices[name] = values[:, axis]
    vertices['label'], vertices['confidence'] = cloud.labels, cloud.confidence
    header = ['ply', 'format binary_little_endian 1.0', f'element vertex {len(cloud)}']
    header += [
        f'property {_PLY_TYPES[_VERTEX[name].str]} {name}' for name in _VERTEX.names or ()
    ]
    body = vertices.tobytes()
    if isinstance(scene, LabelledMesh):
        faces = np.empty(len(scene.triangles), _FACE)
        faces['count'], faces['indices'] = 3, scene.triangles
        header += [f'element face {len(faces)}', 'property list uchar int vertex_indices']
        body += faces.tobytes()
    text = '\n'.join([*header, 'end_header\n'])
    atomic_write(path, text.encode('ascii') + body)
    if label_set is not None:
        document = {
            'name': label_set.name,
            'names': list(label_set.names),
            'colours': [list(map(int, colour)) for colour in label_set.colours],
            'unlabelled': 255,
        }
        write_json(labels_path(path), document)


def labels_path(path: Path) -> Path:
    """Return where the label set of a PLY file lies."""
    return path.with_suffix('.labels.json')
