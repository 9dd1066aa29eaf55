# SPDX-License-Identifier: Apache-2.0
"""SYNTHIA-RAND-CITYSCAPES in its official layout."""

from __future__ import annotations

from collections.abc import Mapping
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

FRAMES = 9400
# The publishers give no split. The last fifth by number is held out: the numbers below never
# change, and neighbours in the numbering, if they are alike, stay together.
_SPLITS = {'train': range(7520), 'val': range(7520, FRAMES), 'all': range(FRAMES)}
# This subset is published without intrinsics; these are of the SYNTHIA video sequences.
_CAMERA = CameraModel(1280, 760, 532.740352, 532.740352, 640.0, 380.0)
# What a sky pixel holds.
_FAR = 65535


class SynthiaDataset(DepthFileDataset):
    """
    SYNTHIA-RAND-CITYSCAPES: 9400 rendered street frames, 1280x760.

    Normals are derived from depth.

    :param split: train (0000000 to 0007519), val (0007520 to 0009399) or all
    :param tasks: of semantic, depth and normals; default semantic and depth
    :param labels: cityscapes16
    :param normals_window: window for normals from depth, pixels
    :raises DatasetError: if the folder is wrong or incomplete
    """

    origin = Origin(
        title='SYNTHIA-RAND-CITYSCAPES',
        layout='RGB/<nnnnnnn>.png, GT/LABELS/<nnnnnnn>.png, Depth/Depth/<nnnnnnn>.png '
        '(or Depth/<nnnnnnn>.png)',
        source='SYNTHIA-RAND-CITYSCAPES (CVPR16) from https://synthia-dataset.net/downloads/',
    )

    def __init__(
        self,
        path: Path,
        split: str,
        *,
        tasks: tuple[str, ...] = ('semantic', 'depth'),
        labels: str = 'cityscapes16',
        normals_window: int = 5,
    ) -> None:
        numbers = _SPLITS[check_split(split, tuple(_SPLITS))]
        self._labels = load_label_map('synthia', labels)
        self._depth = 'Depth/Depth' if (path / 'Depth' / 'Depth').is_dir() else 'Depth'
        available = (
            Task('semantic', 'semantic', label_set=self._labels.label_set),
            Task('depth', 'depth'),
            Task('normals', 'normals'),
        )
        names = [f'{number:07d}' for number in numbers]
        super().__init__(path, names, select_tasks(available, tasks), normals_window)

    def _image_file(self, name: str) -> str:
        return f'RGB/{name}.png'

    def _target_files(self, name: str) -> Mapping[str, str]:
        files = {}
        if 'semantic' in self._kept:
            files['semantic'] = f'GT/LABELS/{name}.png'
        if self._needs_depth:
            files['depth'] = f'{self._depth}/{name}.png'
        return files

    def _read_target(
        self, task: str, name: str, path: Path, camera: CameraModel | None
    ) -> Array | None:
        stored = read_stored(path)
        # Both files may have three channels. The class is in the first, red, and the instance
        # in the second; depth is the same in all.
        stored = stored[..., 0] if stored.ndim == 3 else stored
        if task == 'semantic':
            return self._labels.apply(stored, str(path))
        if stored.dtype != np.uint16:
            msg = f'{path}: depth is {stored.dtype}; expected 16 bit'
            raise DatasetError(msg)
        return decode_depth(stored, 0.01, (_FAR,))

    def _camera(self, name: str, width: int, height: int) -> CameraModel | None:
        return _CAMERA if (width, height) == (_CAMERA.width, _CAMERA.height) else None
