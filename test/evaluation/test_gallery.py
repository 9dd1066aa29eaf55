# SPDX-License-Identifier: Apache-2.0
"""Which frames end on the sheets, read off the sheets themselves."""

from __future__ import annotations

from pathlib import Path

import cv2
from mtl_perception.bags.topics import BagTopics
from mtl_perception.camera import CameraModel
from mtl_perception.evaluation.gallery import error_picture, Gallery
from mtl_perception.evaluation.replay import ReplayReport
from mtl_perception.evaluation.replay_observer import FrameResult, ReplayContext
from mtl_perception.tasks import Task
from mtl_perception.values import PerceptionMaps
import numpy as np

CAMERA = CameraModel(32, 24, 30.0, 30.0, 15.5, 11.5)
DEPTH = Task('depth', 'depth')


def fill(directory: Path, errors: list[float], rows: int, known: bool = True) -> None:
    """Add one frame per error; the grey of its image is twice its index."""
    gallery = Gallery(rows=rows)
    count = len(errors) if known else None
    gallery.begin(ReplayContext('run', Path('bag'), BagTopics(), (DEPTH,), directory, count))
    target = np.full((24, 32), 2.0, np.float32)
    for index, error in enumerate(errors):
        image = np.full((24, 32, 3), 2 * index, np.uint8)
        maps = PerceptionMaps({'depth': target * np.float32(1 + error)}, {}, image, CAMERA)
        scores = {'depth': {'abs_rel': error}}
        gallery.frame(
            FrameResult(
                index, 0, maps=maps, targets={'depth': target}, scores=scores,
                ranking=('depth', 'abs_rel', False),
            )
        )
    gallery.finish(ReplayReport('bag', {}))


def shown(path: Path) -> list[int]:
    """Return the frames on a sheet: the grey in the middle of the first tile of each row."""
    sheet = cv2.imread(str(path))
    row = 24 + 240 + 4
    return [int(sheet[top + 130, 100, 0]) // 2 for top in range(0, len(sheet) // row * row, row)]


def test_the_extremes_come_first_and_neighbours_are_left_out(tmp_path: Path) -> None:
    errors = [0.2] * 100
    errors[40], errors[41], errors[42] = 0.5, 0.9, 0.7
    errors[80] = 0.6
    errors[10], errors[60] = 0.01, 0.02
    fill(tmp_path, errors, rows=2)
    assert {path.name for path in tmp_path.iterdir()} == {'samples.png', 'worst.png', 'best.png'}
    assert shown(tmp_path / 'worst.png') == [41, 80]
    assert shown(tmp_path / 'best.png') == [10, 60]
    assert shown(tmp_path / 'samples.png') == [0, 50]


def test_each_stretch_of_a_worsening_recording_gives_one_frame(tmp_path: Path) -> None:
    fill(tmp_path, [index / 100 for index in range(100)], rows=4)
    assert shown(tmp_path / 'worst.png') == [99, 94, 89, 84]
    assert shown(tmp_path / 'best.png') == [0, 5, 10, 15]


def test_a_bag_of_unknown_length_has_pictures_too(tmp_path: Path) -> None:
    fill(tmp_path, [0.1, 0.3, 0.2], rows=4, known=False)
    assert shown(tmp_path / 'worst.png') == [1]
    assert shown(tmp_path / 'samples.png') == [0]


def test_the_error_picture_is_a_scale_of_relative_error() -> None:
    target = np.array([[2.0, 2.0, 2.0, 2.0, np.nan]], np.float32)
    depth = np.array([[2.0, 2.5, 3.0, 9.0, 1.0]], np.float32)
    picture = error_picture(depth, target)
    ramp = cv2.applyColorMap(np.array([[0, 127, 255]], np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    none, half, most = ramp[0].tolist()
    assert picture[0].tolist() == [none, half, most, most, [128, 128, 128]]
    # A prediction that is missing where there is truth is as wrong as can be.
    missing = error_picture(np.full((1, 1), np.nan, np.float32), np.ones((1, 1), np.float32))
    assert missing[0, 0].tolist() == most
