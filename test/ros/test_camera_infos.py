# SPDX-License-Identifier: Apache-2.0
"""Which camera model an image gets, and in which words it gets none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from mtl_perception.ros.camera_infos import CameraInfos
import pytest


def stamp(second: int) -> Any:
    return SimpleNamespace(sec=second, nanosec=5)


def info(second: int, focal: float = 100.0, **changes: Any) -> Any:
    fields = {
        'header': SimpleNamespace(stamp=stamp(second)),
        'width': 64, 'height': 48, 'distortion_model': 'plumb_bob', 'd': [0.0] * 5,
        'k': [focal, 0, 32, 0, focal, 24, 0, 0, 1],
        'r': [1, 0, 0, 0, 1, 0, 0, 0, 1],
        'p': [focal, 0, 32, 0, 0, focal, 24, 0, 0, 0, 1, 0],
        'binning_x': 0, 'binning_y': 0,
        'roi': SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0),
    }  # fmt: skip
    return SimpleNamespace(**{**fields, **changes})


def test_the_info_of_the_same_stamp_wins_over_the_newest() -> None:
    infos = CameraInfos('/camera_info')
    for second in range(20):
        infos.add(info(second, focal=100.0 + second))
    # A zooming camera: the frame of second 15 was taken with the lens of second 15.
    camera, problem = infos.camera_for(stamp(15), 64, 48)
    assert camera is not None
    assert (camera.fx, problem) == (115.0, '')
    for unknown in (0, 99):  # long gone, not yet come
        camera, _ = infos.camera_for(stamp(unknown), 64, 48)
        assert camera is not None
        assert camera.fx == 119.0


def test_equal_infos_give_one_model_with_its_tables() -> None:
    infos = CameraInfos('/camera_info')
    infos.add(info(1))
    first, _ = infos.camera_for(stamp(1), 64, 48)
    infos.add(info(2))
    second, _ = infos.camera_for(stamp(2), 64, 48)
    assert second is first
    infos.add(info(3, d=[0.1, 0, 0, 0, 0]))
    third, _ = infos.camera_for(stamp(3), 64, 48)
    assert third is not None
    assert third.distortion == (0.1, 0, 0, 0, 0)


def test_binning_and_region_describe_the_image_at_hand() -> None:
    infos = CameraInfos('/camera_info')
    region = SimpleNamespace(x_offset=8, y_offset=4, width=32, height=40)
    infos.add(info(1, roi=region, binning_x=2, binning_y=4))
    camera, problem = infos.camera_for(stamp(1), 16, 10)
    assert problem == ''
    assert camera is not None
    # (32 - 8 + 0.5) / 2 - 0.5 and (24 - 4 + 0.5) / 4 - 0.5
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (50.0, 25.0, 11.75, 4.625)


@pytest.mark.parametrize(
    ('changes', 'size', 'words'),
    [
        ({}, (32, 24), 'the image is 32x24 but camera_info on /cam/camera_info describes 64x48'),
        ({'k': [0.0] * 9}, (64, 48), 'not calibrated'),
        ({'k': [float('nan'), 0, 32, 0, 100, 24, 0, 0, 1]}, (64, 48), 'finite'),
        ({'k': [100, 0, float('inf'), 0, 100, 24, 0, 0, 1]}, (64, 48), 'finite'),
        ({'k': [100, 0, 32, 0, -100, 24, 0, 0, 1]}, (64, 48), 'positive'),
        ({'d': [float('nan')] * 5}, (64, 48), 'finite'),
        ({'d': [0.1] * 3}, (64, 48), 'not 3'),
        ({'d': [0.1] * 5, 'distortion_model': 'fish'}, (64, 48), "'fish' is unknown"),
        ({'width': 0, 'height': 0}, (64, 48), '0x0'),
    ],
)
def test_an_unusable_info_is_named(
    changes: dict[str, Any], size: tuple[int, int], words: str
) -> None:
    infos = CameraInfos('/cam/camera_info')
    infos.add(info(1, **changes))
    for _ in range(2):  # the second time from what is remembered
        camera, problem = infos.camera_for(stamp(1), *size)
        assert camera is None
        assert words in problem
        assert '/cam/camera_info' in problem


def test_nothing_yet_is_named_with_the_topic_and_the_remedy() -> None:
    infos = CameraInfos('/cam/camera_info')
    infos.add(info(1))
    infos.clear()
    camera, problem = infos.camera_for(stamp(1), 64, 48)
    assert camera is None
    assert 'no camera_info on /cam/camera_info yet' in problem
    assert 'assume_focal_px' in problem
