# SPDX-License-Identifier: Apache-2.0
"""The fused scene of a replay: from predicted and from measured depth, side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
import json
from typing import Any, TYPE_CHECKING

from mtl_perception.camera import CameraModel
from mtl_perception.closing import Closing
from mtl_perception.evaluation.replay_observer import FrameResult, ReplayContext
from mtl_perception.files import atomic_write
from mtl_perception.geometry.labelled_ply import write_ply
from mtl_perception.geometry.open3d_import import import_open3d
from mtl_perception.geometry.scene import LabelledMesh, MapState
from mtl_perception.geometry.scene_views import (
    MeshRenderer,
    up_direction,
    view_from_above,
    view_towards,
)
from mtl_perception.geometry.semantic_map import SemanticMap
from mtl_perception.geometry.surface_distance import surface_distance
from mtl_perception.pictures import Picture, write_png
from mtl_perception.tasks import Task
from mtl_perception.values import PerceptionMaps
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from mtl_perception.evaluation.replay import ReplayReport

MAP_FILE = 'map.json'
_CEILING_ABOVE_CAMERA_M = 0.3
_BEHIND_CAMERA_M = 1.2  # of the first pose: where the perspective picture is taken from
# Of the depth, or so many pixels' worth of angle: beside such a jump a pixel may belong to either
# surface. Floors seen at a grazing angle change as much where pixels are wide.
_JUMP_SHARE, _JUMP_PIXELS = 0.05, 25.0
_MIN_OBSERVATIONS = 2


@dataclass(frozen=True)
class MapPicture:
    """One picture of a fused scene and what it shows, to be said beneath it."""

    name: str  # the file's name without its ending
    words: str
    picture: Picture


class SceneMap(Closing):
    """
    A replay observer that fuses every frame whose pose is known; a context manager.

    `predicted` is fused from the predicted depth, `sensor` from the measured one where the
    recording has it, both with the predicted labels (the recorded ones where the model has
    none). At the end `map_<source>.ply` (points), `map_<source>_mesh.ply`, pictures and
    map.json with the surface distance between the two are written.

    Raises
    ------
    GeometryError
        If Open3D cannot be imported.

    """

    needs_every_frame = True

    def __init__(
        self, *, voxel_m: float = 0.02, memory_mb: float = 512.0, reach_m: float = 4.0
    ) -> None:
        import_open3d()  # now, not after the first hour
        self._options: dict[str, Any] = {
            'voxel_m': voxel_m, 'memory_mb': memory_mb, 'range_m': (0.2, reach_m),
        }  # fmt: skip
        self._maps: dict[str, SemanticMap] = {}
        self._fused: tuple[dict[str, LabelledMesh], dict[str, MapState]] | None = None
        self._poses: list[npt.NDArray[np.float64]] = []
        self._skipped: Counter[str] = Counter()
        self.pictures: tuple[MapPicture, ...] = ()
        self.document: dict[str, Any] = {}

    def begin(self, context: ReplayContext) -> None:
        """Start with empty maps."""
        self.close()
        self._fused = None
        self._poses.clear()
        self._skipped.clear()
        self.pictures, self.document = (), {}
        self._directory = context.directory
        self._task = {task.kind: task for task in reversed(context.tasks)}

    def frame(self, result: FrameResult) -> None:
        """Fuse one frame."""
        maps = result.maps
        if maps is None:
            return
        if result.pose is None:
            self._skipped['the camera pose is not known: no odometry or TF at its time'] += 1
            return
        if maps.camera is None:
            self._skipped['the camera is not calibrated'] += 1
            return
        self._poses.append(result.pose)
        depth = self._named(maps.maps, 'depth')
        labels, confidence = self._labels(maps, result.targets)
        if depth is not None:
            normals = self._named(maps.maps, 'normals')
            self._integrate('predicted', depth, maps, maps.camera, result.pose, labels,
                            confidence, normals)  # fmt: skip
        measured = result.targets.get('depth')
        if measured is not None:
            self._integrate('sensor', measured, maps, maps.camera, result.pose, labels,
                            confidence, result.targets.get('normals'))  # fmt: skip

    def finish(self, report: ReplayReport) -> None:
        """Write points, meshes, pictures and map.json."""
        if self._fused is None:
            meshes = {
                name: scene.mesh(min_observations=_MIN_OBSERVATIONS)
                for name, scene in self._maps.items()
            }
            # Kept until all is written: a full disk may ask for it again.
            self._fused = meshes, {name: scene.state for name, scene in self._maps.items()}
            self.close()
        meshes, states = self._fused
        label_set = self._task['semantic'].label_set if 'semantic' in self._task else None
        for name, mesh in meshes.items():
            write_ply(self._directory / f'map_{name}.ply', mesh.vertices, label_set)
            write_ply(self._directory / f'map_{name}_mesh.ply', mesh, label_set)
        self.pictures = tuple(
            views(meshes, np.array(self._poses), self._task.get('semantic'))
        )
        for entry in self.pictures:
            write_png(self._directory / f'{entry.name}.png', entry.picture)
        self.document = self._describe(meshes, states)
        text = json.dumps(self.document, indent=2, allow_nan=False)
        atomic_write(self._directory / MAP_FILE, text + '\n')
        self._fused = None

    def _describe(
        self, meshes: Mapping[str, LabelledMesh], states: Mapping[str, MapState]
    ) -> dict[str, Any]:
        document: dict[str, Any] = {
            'voxel_m': self._options['voxel_m'],
            'range_m': list(self._options['range_m']),
            'frames_with_pose': len(self._poses),
            'skipped_frames': dict(self._skipped),
            'maps': {
                name: {
                    **asdict(states[name]),
                    'points': len(mesh.vertices),
                    'triangles': len(mesh.triangles),
                }
                for name, mesh in meshes.items()
            },
        }
        if len(meshes) == 2 and all(len(mesh.triangles) for mesh in meshes.values()):
            predicted, sensor = meshes['predicted'], meshes['sensor']
            document['surface_distance_m'] = {
                'predicted_to_sensor': surface_distance(predicted.vertices.points, sensor),
                'sensor_to_predicted': surface_distance(sensor.vertices.points, predicted),
            }
        return document

    def _named(
        self, maps: Mapping[str, npt.NDArray[Any]], kind: str
    ) -> npt.NDArray[Any] | None:
        task = self._task.get(kind)
        return None if task is None else maps.get(task.name)

    def _labels(
        self, maps: PerceptionMaps, targets: Mapping[str, npt.NDArray[Any]]
    ) -> tuple[npt.NDArray[Any] | None, npt.NDArray[Any] | None]:
        """Return labels and their confidence."""
        labels = self._named(maps.maps, 'semantic')
        if labels is None:
            return targets.get('semantic'), None
        return labels, maps.confidence.get(self._task['semantic'].name)

    def _integrate(
        self,
        name: str,
        depth: npt.NDArray[Any],
        maps: PerceptionMaps,
        camera: CameraModel,
        pose: npt.NDArray[np.float64],
        labels: npt.NDArray[Any] | None,
        confidence: npt.NDArray[Any] | None,
        normals: npt.NDArray[Any] | None,
    ) -> None:
        if name not in self._maps:
            self._maps[name] = SemanticMap(**self._options)
        self._maps[name].integrate(
            without_jumps(depth, camera), maps.image, camera, pose, labels=labels,
            confidence=confidence, normals=normals,
        )  # fmt: skip

    def close(self) -> None:
        """Give the memory of the maps back."""
        for scene in self._maps.values():
            scene.close()
        self._maps.clear()


def without_jumps(depth: npt.NDArray[Any], camera: CameraModel) -> npt.NDArray[np.float32]:
    """Return depth (H, W) with NaN beside jumps: cameras and networks smear surfaces there."""
    import cv2

    near = np.where(np.isfinite(depth), depth, np.float32(np.inf)).astype(np.float32)
    far = np.where(np.isfinite(depth), depth, np.float32(0)).astype(np.float32)
    kernel = np.ones((3, 3), np.uint8)
    # Borders of what was measured are no jumps.
    step = cv2.dilate(far, kernel) - cv2.erode(near, kernel)
    share = np.float32(max(_JUMP_SHARE, _JUMP_PIXELS / camera.focal_px))
    return np.where(step < share * depth, depth, np.float32(np.nan)).astype(np.float32)


def views(
    meshes: Mapping[str, LabelledMesh], poses: npt.NDArray[np.float64], semantic: Task | None
) -> list[MapPicture]:
    """Return pictures of every map from above and in perspective, by camera and by label."""
    meshes = {name: mesh for name, mesh in meshes.items() if len(mesh.triangles)}
    if not meshes:
        return []
    # All maps are shown from the same places; measured depth knows best where those are.
    reference = meshes.get('sensor', next(iter(meshes.values())))
    up = up_direction(reference.vertices.normals, poses)
    middle = poses[len(poses) // 2]
    ceiling = float(np.median(poses[:, :3, 3] @ up)) + _CEILING_ABOVE_CAMERA_M
    above = view_from_above(reference, up, poses[:, :3, 2].mean(axis=0), ceiling)
    centre = np.median(reference.vertices.points, axis=0)
    eye = middle[:3, 3] - _BEHIND_CAMERA_M * middle[:3, 2] + 0.5 * up
    perspective = view_towards(eye, centre, up)
    palette = None if semantic is None or not semantic.label_set else semantic.label_set.palette
    pictures = []
    for name, mesh in meshes.items():
        renderer = MeshRenderer(mesh)
        source = {'predicted': 'predicted depth', 'sensor': 'measured depth'}[name]
        for place, view, words in (
            ('above', above, 'from above'), ('perspective', perspective, 'in perspective'),
        ):  # fmt: skip
            pictures.append(MapPicture(
                f'map_{name}_{place}', f'{source}, {words}', renderer.picture(view)
            ))
            if palette is not None:
                pictures.append(MapPicture(
                    f'map_{name}_{place}_labels', f'{source}, {words}, labels',
                    renderer.picture(view, palette),
                ))
    return pictures
