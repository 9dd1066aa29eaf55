# SPDX-License-Identifier: Apache-2.0
"""Reads the calibration files that camera_calibration writes and camera drivers load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mtl_perception.camera import CameraError, CameraModel
from mtl_perception.ros.errors import RosError
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

    Raises
    ------
    RosError
        If the file cannot be read, lacks a field, or holds values that no camera has.

    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        msg = f'calibration {path} cannot be read: {error.strerror}'
        raise RosError(msg) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        msg = f'calibration {path} is not YAML: {" ".join(str(error).split())}'
        raise RosError(msg) from error
    if not isinstance(content, dict):
        msg = f'calibration {path} holds no fields: expected image_width, camera_matrix, ...'
        raise RosError(msg)
    try:
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
        raise RosError(msg) from error
    except (TypeError, ValueError, CameraError) as error:
        msg = f'calibration {path} cannot be used: {error}'
        raise RosError(msg) from error
