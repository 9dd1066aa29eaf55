# SPDX-License-Identifier: Apache-2.0
"""A scene as named arrays, to be stored, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtl_perception.camera import CameraModel
from mtl_perception.evaluation.checks import Scene
import numpy as np
import numpy.typing as npt


def scene_arrays(scene: Scene) -> dict[str, npt.NDArray[Any]]:
    """Return the parts of a scene with camera and pose."""
    camera = scene.camera
    assert camera is not None
    assert scene.pose is not None
    return {
        **{f'predicted/{kind}': array for kind, array in scene.predicted.items()},
        **{f'truth/{kind}': array for kind, array in scene.truth.items()},
        'size': np.array([camera.width, camera.height], np.int64),
        'pinhole': np.array([camera.fx, camera.fy, camera.cx, camera.cy]),
        'stamp_ns': np.array([scene.stamp_ns], np.int64),
        'pose': scene.pose,
    }


def scene_from_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> Scene:
    """Return the scene that `scene_arrays` took apart."""
    width, height = (int(value) for value in arrays['size'])
    fx, fy, cx, cy = (float(value) for value in arrays['pinhole'])

    def part(prefix: str) -> dict[str, npt.NDArray[Any]]:
        return {
            name.removeprefix(prefix): array
            for name, array in arrays.items()
            if name.startswith(prefix)
        }

    return Scene(
        predicted=part('predicted/'),
        truth=part('truth/'),
        camera=CameraModel(width, height, fx, fy, cx, cy),
        stamp_ns=int(arrays['stamp_ns'][0]),
        pose=arrays['pose'],
    )
