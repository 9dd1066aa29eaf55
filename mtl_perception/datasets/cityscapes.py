# SPDX-License-Identifier: Apache-2.0
"""Cityscapes in its official layout: labels, and depth from the published disparity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import json
from pathlib import Path
from typing import Any

from mtl_perception.camera import CameraError, CameraModel
from mtl_perception.datasets.errors import DatasetError
from mtl_perception.datasets.file_dataset import (
    check_split,
    compare_count,
    DepthFileDataset,
    select_tasks,
)
from mtl_perception.datasets.images import read_labels, read_stored
from mtl_perception.datasets.label_map import load_label_map
from mtl_perception.datasets.origin import Origin
from mtl_perception.tasks import Task
from mtl_perception.values import Array
import numpy as np
import numpy.typing as npt

# Package -> what a file's name has after the frame's.
_ENDINGS = {
    'leftImg8bit': 'leftImg8bit.png',
    'gtFine': 'gtFine_labelIds.png',
    'disparity': 'disparity.png',
    'camera': 'camera.json',
}
_FRAMES = {'train': 2975, 'val': 500, 'test': 1525}
_NATIVE_SIZE = (2048, 1024)


class CityscapesDataset(DepthFileDataset):
    """
    Cityscapes fine annotations: 2975 training, 500 validation frames, 2048x1024.

    Depth is baseline * fx / disparity with each frame's own calibration; normals are derived
    from it. Frames of the test split have no labels. A frame is whatever a package has a file of:
    labels without their image are an incomplete folder, not a smaller dataset.

    :param split: train, val or test
    :param tasks: of semantic, depth and normals; default semantic and depth
    :param labels: cityscapes19, cityscapes16 or streets8
    :param normals_window: window for normals from depth, pixels
    :raises DatasetError: if the folder is wrong or incomplete
    """

    origin = Origin(
        title='Cityscapes',
        layout='leftImg8bit/<split>/<city>/<frame>_leftImg8bit.png, gtFine/<split>/<city>/'
        '<frame>_gtFine_labelIds.png, disparity/<split>/<city>/<frame>_disparity.png, '
        'camera/<split>/<city>/<frame>_camera.json',
        source='leftImg8bit, gtFine, disparity and camera (trainvaltest) from '
        'https://www.cityscapes-dataset.com/downloads/',
    )

    def __init__(
        self,
        path: Path,
        split: str,
        *,
        tasks: tuple[str, ...] = ('semantic', 'depth'),
        labels: str = 'cityscapes19',
        normals_window: int = 21,
    ) -> None:
        self._split = check_split(split, tuple(_FRAMES))
        self._labels = load_label_map('cityscapes', labels)
        available = (
            Task('semantic', 'semantic', label_set=self._labels.label_set),
            Task('depth', 'depth'),
            Task('normals', 'normals'),
        )
        chosen = select_tasks(available, tasks)
        with_depth = any(task.name in ('depth', 'normals') for task in chosen)
        packages = tuple(_ENDINGS) if with_depth else ('leftImg8bit', 'gtFine')
        names = {
            file.name.removesuffix(f'_{_ENDINGS[package]}')
            for package in packages
            for file in (path / package / split).glob(f'*/*_{_ENDINGS[package]}')
        }
        if not names:
            folder = f'leftImg8bit/{split}/<city>/<frame>_{_ENDINGS["leftImg8bit"]}'
            raise self.origin.incomplete(path, [folder])
        super().__init__(path, sorted(names), chosen, normals_window)
        compare_count(self.origin, path, split, len(names), _FRAMES[split])

    def _file(self, package: str, name: str) -> str:
        city = name.partition('_')[0]
        return f'{package}/{self._split}/{city}/{name}_{_ENDINGS[package]}'

    def _image_file(self, name: str) -> str:
        return self._file('leftImg8bit', name)

    def _target_files(self, name: str) -> Mapping[str, str]:
        files = {}
        # The labels of the test split are kept back: its files hold no classes.
        if 'semantic' in self._kept and self._split != 'test':
            files['semantic'] = self._file('gtFine', name)
        if self._needs_depth:
            files['depth'] = self._file('disparity', name)
        return files

    def _other_files(self, name: str) -> Sequence[str]:
        return [self._file('camera', name)] if self._needs_depth else []

    def _read_target(
        self, task: str, name: str, path: Path, camera: CameraModel | None
    ) -> Array | None:
        if task == 'semantic':
            return self._labels.apply(read_labels(path), str(path))
        calibration = self._calibration(name)
        assert calibration is not None, 'the file is required where depth is read'
        camera, baseline_m = calibration
        return depth_from_disparity(read_stored(path), baseline_m * camera.fx, str(path))

    def _camera(self, name: str, width: int, height: int) -> CameraModel | None:
        calibration = self._calibration(name)
        if calibration is None or (width, height) != _NATIVE_SIZE:
            return None
        return calibration[0]

    def _calibration(self, name: str) -> tuple[CameraModel, float] | None:
        """Return intrinsics and stereo baseline in metres; None without the camera package."""
        path = self.root / self._file('camera', name)
        try:
            values: Any = json.loads(path.read_text(encoding='utf-8'))
            fx, fy, u0, v0 = (float(values['intrinsic'][key]) for key in ('fx', 'fy', 'u0', 'v0'))
            camera = CameraModel(*_NATIVE_SIZE, fx, fy, u0, v0)
            return camera, float(values['extrinsic']['baseline'])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, CameraError) as error:
            msg = f'{path} is no Cityscapes camera file: {type(error).__name__}: {error}'
            raise DatasetError(msg) from error


def depth_from_disparity(
    stored: Array, baseline_times_focal: float, where: str
) -> npt.NDArray[np.float32]:
    """
    Return depth (H, W) in metres from stored disparity p: d = (p - 1) / 256 px for p > 0.

    p = 0 is no measurement and p = 1 infinitely far: both NaN. Source: the README of
    cityscapesScripts.

    Raises
    ------
    DatasetError
        If the file is not 16 bit: some tools cut it to 8.

    """
    if stored.dtype != np.uint16 or stored.ndim != 2:
        msg = f'{where}: disparity is {stored.dtype} {stored.shape}; expected 16 bit, one channel'
        raise DatasetError(msg)
    disparity = (stored.astype(np.float32) - 1.0) / 256.0
    valid = stored > 1
    depth = np.full(stored.shape, np.nan, np.float32)
    depth[valid] = np.float32(baseline_times_focal) / disparity[valid]
    return depth
