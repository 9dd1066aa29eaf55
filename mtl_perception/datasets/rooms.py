# SPDX-License-Identifier: Apache-2.0
"""
Rendered rooms on disk: a folder that `rooms` writes and `RoomsDataset` reads.

Layout, format version 1::

    rooms.json                   seed, frames per world, size, format version
    tasks.yaml                   the tasks of the targets
    worlds/00000/frames.jsonl    a line per frame: name, camera, pose (row by row)
    worlds/00000/0000_image.jpg  JPEG, quality 95, 4:4:4
    worlds/00000/0000_depth.png  uint16, 0.25 mm a step (up to 16.38 m), 0 = invalid
    worlds/00000/0000_normals.png  uint16 x, y, z as 32768 + 32767 n; 0, 0, 0 = invalid
    worlds/00000/0000_semantic.png  uint8 class, 255 = unlabelled
    worlds/00000/0000_edges.png  uint8 0 or 1, 255 = not annotated

A world's directory appears whole or not at all, so a run that was stopped can be resumed and
a folder that still grows can be read. Depth is exact within 0.125 mm, normals within 0.003
degrees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
import json
import os
from pathlib import Path
from typing import Any

import cv2
from mtl_perception.camera import CameraError, CameraModel
from mtl_perception.datasets.errors import DatasetError
from mtl_perception.datasets.images import read_rgb, read_stored
from mtl_perception.tasks import Task
from mtl_perception.values import Sample
import numpy as np
import numpy.typing as npt
import yaml

FORMAT_VERSION = 1
DEPTH_STEP_M = 0.00025
_NORMAL_SCALE = 32767.0
_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 3]
_REMEDY = 'delete the folder of its world and resume rendering, or copy it again'


def _encode_depth(depth: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    steps = np.rint(np.nan_to_num(depth.astype(np.float64), nan=0.0) / DEPTH_STEP_M)
    # Beyond the last step there is no number: such a pixel is invalid, not wrong.
    return np.where(steps > 65535, 0, steps).astype(np.uint16)


def _decode_depth(stored: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    depth = stored.astype(np.float32) * np.float32(DEPTH_STEP_M)
    depth[stored == 0] = np.nan
    return depth


def _encode_normals(normals: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    stored = np.rint(np.nan_to_num(normals, nan=0.0) * _NORMAL_SCALE) + 32768
    stored[np.isnan(normals).any(axis=-1)] = 0
    # OpenCV writes the last channel first; x, y, z is the order in the file.
    return np.ascontiguousarray(stored.astype(np.uint16)[..., ::-1])


def _decode_normals(stored: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    normals = (stored.astype(np.float32) - 32768) / np.float32(_NORMAL_SCALE)
    invalid = (stored == 0).all(axis=-1)
    length = np.sqrt(np.einsum('ijk,ijk->ij', normals, normals))
    normals /= np.maximum(length, np.float32(1e-6))[..., None]
    normals[invalid] = np.nan
    return normals


_ENCODE = {'depth': _encode_depth, 'normals': _encode_normals}
_DECODE = {'depth': _decode_depth, 'normals': _decode_normals}


def write_frame(sample: Sample, directory: Path, number: int) -> dict[str, Any]:
    """
    Write a frame's files into `directory`; return its line of frames.jsonl.

    Raises
    ------
    DatasetError
        If a file cannot be written or the sample lacks camera or pose.

    """
    if sample.camera is None or sample.pose is None:
        raise DatasetError(f'{sample.name}: a rooms frame needs a camera and a pose')
    image = cv2.cvtColor(sample.image, cv2.COLOR_RGB2BGR)
    _write(directory / f'{number:04d}_image.jpg', image, _JPEG)
    for task, target in sample.targets.items():
        stored = _ENCODE[task](target) if task in _ENCODE else target
        _write(directory / f'{number:04d}_{task}.png', stored, _PNG)
    return {
        'name': sample.name,
        'number': number,
        'camera': {
            key: value for key, value in asdict(sample.camera).items()
            if key in ('width', 'height', 'fx', 'fy', 'cx', 'cy')
        },
        'pose': [[float(value) for value in row] for row in sample.pose],
    }


def _write(path: Path, image: npt.NDArray[Any], options: list[int]) -> None:
    if not cv2.imwrite(str(path), image, options):
        raise DatasetError(f'{path} cannot be written; is the disk full?')


def settings_of(
    seed: int, frames_per_world: int, size: tuple[int, int],
    field_of_view_deg: tuple[float, float],
) -> dict[str, Any]:
    """Return what rooms.json holds."""
    return {
        'format_version': FORMAT_VERSION,
        'seed': seed,
        'frames_per_world': frames_per_world,
        'size': list(size),
        'field_of_view_deg': list(field_of_view_deg),
        'depth_step_m': DEPTH_STEP_M,
    }


@dataclass(frozen=True)
class _Entry:
    stem: Path  # of its files, up to `_image.jpg` and the like
    name: str
    camera: CameraModel
    pose: npt.NDArray[np.float64]


class RoomsDataset:
    """
    A folder of rendered rooms, one `Sample` per frame, in the order of worlds and frames.

    Raises
    ------
    DatasetError
        When opened: if the folder is absent, empty, of a newer format, or lacks a file of a frame
        that it lists. When indexed: if a file is cut short or otherwise damaged.

    """

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)
        settings_path = self.directory / 'rooms.json'
        if not settings_path.is_file():
            raise DatasetError(
                f'{self.directory} holds no rooms dataset (no rooms.json); write one with '
                f'`python3 -m mtl_perception rooms --frames 200 --out {self.directory}`'
            )
        settings = _read_json(settings_path, settings_path.read_text())
        version = settings.get('format_version')
        if version != FORMAT_VERSION:
            raise DatasetError(
                f'{settings_path}: format_version is {version!r} but this version reads '
                f'{FORMAT_VERSION}; update mtl_perception or write the folder again'
            )
        self.settings: Mapping[str, Any] = settings
        self.tasks = _read_tasks(self.directory / 'tasks.yaml')
        self._entries: list[_Entry] = []
        # A world that is being rendered has a name with a dot and is not there yet.
        for world in sorted(self.directory.glob('worlds/[!.]*')):
            if world.is_dir():
                self._entries.extend(_entries(world, self.tasks))
        if not self._entries:
            raise DatasetError(f'{self.directory} holds no finished world; resume the rendering')
        self.names = tuple(entry.name for entry in self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f'frame {index} of {len(self)}')
        entry = self._entries[index]
        camera = entry.camera
        image = _read(read_rgb, _image_file(entry.stem))
        shape = (camera.height, camera.width)
        targets = {}
        for task in self.tasks:
            path = _target_file(entry.stem, task)
            stored = _read(read_stored, path)
            if stored.shape[:2] != shape or image.shape[:2] != shape:
                raise DatasetError(
                    f'{path} or its image has not the size of its camera, '
                    f'{camera.width}x{camera.height}; render the world again'
                )
            decode = _DECODE.get(task.name)
            targets[task.name] = stored if decode is None else decode(stored)
        return Sample(image, targets, camera, entry.name, entry.pose)


def _image_file(stem: Path) -> Path:
    return stem.with_name(f'{stem.name}_image.jpg')


def _target_file(stem: Path, task: Task) -> Path:
    return stem.with_name(f'{stem.name}_{task.name}.png')


def _entries(world: Path, tasks: tuple[Task, ...]) -> list[_Entry]:
    """Return the frames of a world, whose files are all there."""
    lines = world / 'frames.jsonl'
    there = frozenset(os.listdir(world))
    if lines.name not in there:
        raise DatasetError(f'{lines} is missing; {_REMEDY}')
    entries = []
    for text in lines.read_text().splitlines():
        line = _read_json(lines, text)
        try:
            stem, name = world / f'{int(line["number"]):04d}', str(line['name'])
            camera = CameraModel(**line['camera'])
            pose = np.array(line['pose'], np.float64).reshape(4, 4)
        except (KeyError, TypeError, ValueError, CameraError) as error:
            raise DatasetError(f'{lines}: bad line: {error!r}; {_REMEDY}') from error
        for file in (_image_file(stem), *(_target_file(stem, task) for task in tasks)):
            if file.name not in there:
                raise DatasetError(f'{file} is missing; {_REMEDY}')
        entries.append(_Entry(stem, name, camera, pose))
    return entries


def _read(read: Callable[[Path], npt.NDArray[Any]], path: Path) -> npt.NDArray[Any]:
    try:
        return read(path)
    except DatasetError as error:
        raise DatasetError(f'{error}; {_REMEDY}') from error


def _read_json(path: Path, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise DatasetError(f'{path} is damaged: {error}') from error
    if not isinstance(value, dict):
        raise DatasetError(f'{path} is damaged: a JSON object was expected')
    return value


def _read_tasks(path: Path) -> tuple[Task, ...]:
    try:
        entries = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise DatasetError(f'{path} cannot be read: {error}') from error
    if not isinstance(entries, list):
        raise DatasetError(f'{path} is damaged: a list of tasks was expected')
    return tuple(Task.from_json(entry) for entry in entries)
