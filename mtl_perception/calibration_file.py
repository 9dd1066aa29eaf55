# SPDX-License-Identifier: Apache-2.0
"""Reads the calibration files that camera_calibration writes and camera drivers load."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mtl_perception.camera import CameraError, CameraModel
import yaml


def _matrix(content: dict[str, Any], key: str, size: int) -> list[float]:
    values = content[key]['data']
    if len(values) != size:
        msg = f'{key}.data has {len(values)} values; it takes {size}'
        raise ValueError(msg)
    return [float(value) for value in values]


def load_calibration(path: Path | str) -> CameraModel:
    """
    Read a calibration YAML file (the format of camera_calibration_parsers).

    A camera_info message as `ros2 topic echo --once` prints it is understood as well.

    Raises
    ------
    CameraError
        If the file cannot be read, lacks a field, or holds values that no camera has.

    """
    path = Path(path)
    try:
        content = next(iter(yaml.safe_load_all(path.read_text())), None)
    except OSError as error:
        msg = f'calibration {path} cannot be read: {error.strerror}'
        raise CameraError(msg) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        msg = f'calibration {path} is not YAML: {" ".join(str(error).split())}'
        raise CameraError(msg) from error
    if not isinstance(content, dict):
        msg = f'calibration {path} holds no fields: expected image_width, camera_matrix, ...'
        raise CameraError(msg)
    try:
        if 'k' in content:
            return _from_message(content)
        k = _matrix(content, 'camera_matrix', 9)
        r = _matrix(content, 'rectification_matrix', 9)
        p = _matrix(content, 'projection_matrix', 12)
        distortion = [float(value) for value in content['distortion_coefficients']['data']]
        identity = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
        return CameraModel(
            width=int(content['image_width']),
            height=int(content['image_height']),
            fx=k[0],
            fy=k[4],
            cx=k[2],
            cy=k[5],
            distortion=tuple(distortion) if any(distortion) else (),
            distortion_model=str(content['distortion_model']),
            rectification=None if r == identity else tuple(r),
            projection=(p[0], p[5], p[2], p[6]),
        )
    except KeyError as error:
        msg = f'calibration {path} lacks the field {error}'
        raise CameraError(msg) from error
    except (TypeError, ValueError, CameraError) as error:
        msg = f'calibration {path} cannot be used: {error}'
        raise CameraError(msg) from error


def _from_message(content: dict[str, Any]) -> CameraModel:
    """Return the camera of a CameraInfo that was printed as YAML."""
    region = {'x_offset': 0, 'y_offset': 0, 'width': 0, 'height': 0, **content.get('roi', {})}
    fields = {'binning_x': 0, 'binning_y': 0, **content, 'roi': SimpleNamespace(**region)}
    if missing := [name for name in ('width', 'height', 'distortion_model') if name not in fields]:
        raise KeyError(missing[0])
    return CameraModel.from_camera_info(SimpleNamespace(**fields))
