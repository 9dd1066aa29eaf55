# SPDX-License-Identifier: Apache-2.0
"""Virtual KITTI 2 in its official layout, split by scene."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from mtl_perception.camera import CameraModel
from mtl_perception.datasets.errors import DatasetError
from mtl_perception.datasets.file_dataset import check_split, DepthFileDataset, select_tasks
from mtl_perception.datasets.images import read_stored
from mtl_perception.datasets.label_map import load_label_map
from mtl_perception.datasets.origin import Origin
from mtl_perception.datasets.targets import decode_depth
from mtl_perception.tasks import Task
from mtl_perception.values import Array
import numpy as np
import numpy.typing as npt

VARIATIONS = (
    '15-deg-left', '15-deg-right', '30-deg-left', '30-deg-right', 'clone', 'fog', 'morning',
    'overcast', 'rain', 'sunset',
)  # fmt: skip
# Scene -> frames in each variation. Neighbouring frames, and one frame in several variations,
# are almost the same picture, so whole scenes are held out: Scene01 is nearest to a fifth of the
# frames, and all classes occur in it.
SCENES = {'Scene01': 447, 'Scene02': 233, 'Scene06': 270, 'Scene18': 339, 'Scene20': 837}
_SPLITS = {
    'train': ('Scene02', 'Scene06', 'Scene18', 'Scene20'),
    'val': ('Scene01',),
    'all': tuple(SCENES),
}
# intrinsic.txt is the same for all frames, scenes and both cameras.
_CAMERA = CameraModel(1242, 375, 725.0087, 725.0087, 620.5, 187.0)
# The far plane of the renderer, 655.35 m: sky.
_FAR = 65535


class Vkitti2Dataset(DepthFileDataset):
    """
    Virtual KITTI 2: 5 scenes x 10 variations, 2126 frames each, 1242x375.

    Depth is exact, along Z; sky has none. Normals are derived from it. Poses come with the
    text ground truth (vkitti_2.0.3_textgt), which is optional.

    :param split: train (Scene02, 06, 18, 20), val (Scene01) or all
    :param tasks: of semantic, depth and normals; default semantic and depth
    :param labels: vkitti14 or streets8
    :param variations: of `VARIATIONS`; None is all ten
    :param cameras: 0 (left), 1 (right) or both
    :param normals_window: window for normals from depth, pixels
    :raises DatasetError: if the folder is wrong or incomplete
    """

    origin = Origin(
        title='Virtual KITTI 2',
        layout='Scene<nn>/<variation>/frames/{rgb,depth,classSegmentation}/Camera_<n>/'
        '{rgb_<nnnnn>.jpg,depth_<nnnnn>.png,classgt_<nnnnn>.png}, all unpacked into one folder',
        source='vkitti_2.0.3_{rgb,depth,classSegmentation,textgt}.tar from '
        'https://europe.naverlabs.com/research/computer-vision/proxy-virtual-worlds-vkitti-2/',
    )

    def __init__(
        self,
        path: Path,
        split: str,
        *,
        tasks: tuple[str, ...] = ('semantic', 'depth'),
        labels: str = 'vkitti14',
        variations: tuple[str, ...] | None = None,
        cameras: tuple[int, ...] = (0,),
        normals_window: int = 5,
    ) -> None:
        scenes = _SPLITS[check_split(split, tuple(_SPLITS))]
        self._labels = load_label_map('vkitti2', labels)
        available = (
            Task('semantic', 'semantic', label_set=self._labels.label_set),
            Task('depth', 'depth'),
            Task('normals', 'normals'),
        )
        for variation in variations or ():
            if variation not in VARIATIONS:
                msg = f'variations: {variation!r} is none of {", ".join(VARIATIONS)}'
                raise DatasetError(msg)
        for camera in cameras:
            if camera not in (0, 1):
                msg = f'cameras: {camera} is neither 0 (left) nor 1 (right)'
                raise DatasetError(msg)
        names = [
            f'{scene}/{variation}/Camera_{camera}/{frame:05d}'
            for scene in scenes
            for variation in VARIATIONS
            if variations is None or variation in variations
            for camera in cameras
            for frame in range(SCENES[scene])
        ]
        super().__init__(path, names, select_tasks(available, tasks), normals_window)

    def _file(self, name: str, folder: str, stem: str, suffix: str) -> str:
        scene, variation, camera, frame = name.split('/')
        return f'{scene}/{variation}/frames/{folder}/{camera}/{stem}_{frame}{suffix}'

    def _image_file(self, name: str) -> str:
        return self._file(name, 'rgb', 'rgb', '.jpg')

    def _target_files(self, name: str) -> Mapping[str, str]:
        files = {}
        if 'semantic' in self._kept:
            files['semantic'] = self._file(name, 'classSegmentation', 'classgt', '.png')
        if self._needs_depth:
            files['depth'] = self._file(name, 'depth', 'depth', '.png')
        return files

    def _read_target(
        self, task: str, name: str, path: Path, camera: CameraModel | None
    ) -> Array | None:
        stored = read_stored(path)
        if task == 'semantic':
            if stored.dtype != np.uint8 or stored.shape[2:] != (3,):
                msg = f'{path}: classes are {stored.dtype} {stored.shape}; expected 8 bit colours'
                raise DatasetError(msg)
            return self._labels.apply(stored, str(path))
        if stored.dtype != np.uint16 or stored.ndim != 2:
            msg = f'{path}: depth is {stored.dtype} {stored.shape}; expected 16 bit, one channel'
            raise DatasetError(msg)
        return decode_depth(stored, 0.01, (_FAR,))

    def _camera(self, name: str, width: int, height: int) -> CameraModel | None:
        return _CAMERA if (width, height) == (_CAMERA.width, _CAMERA.height) else None

    def _pose(self, name: str) -> npt.NDArray[np.float64] | None:
        scene, variation, camera, frame = name.split('/')
        poses = _read_poses(self.root / scene / variation / 'extrinsic.txt')
        return None if poses is None else poses[int(frame), int(camera[-1])]


@lru_cache(maxsize=64)
def _read_poses(path: Path) -> dict[tuple[int, int], npt.NDArray[np.float64]] | None:
    """
    Return camera-to-world poses by (frame, camera) from an extrinsic.txt; None without one.

    Each row holds the frame, the camera and the 16 values of the world-to-camera matrix.
    """
    if not path.is_file():
        return None
    try:
        rows = np.loadtxt(path, skiprows=1, ndmin=2)
        return {
            (int(row[0]), int(row[1])): np.linalg.inv(row[2:].reshape(4, 4)) for row in rows
        }
    except (OSError, ValueError, np.linalg.LinAlgError) as error:
        msg = f'{path} is no extrinsic.txt of Virtual KITTI 2: {error}'
        raise DatasetError(msg) from error
