# SPDX-License-Identifier: Apache-2.0
"""
The values that travel between the rooms of this package.

Conventions, the same for targets and predictions (REP-103, REP-117, REP-118):

* semantic: uint8 (H, W), the class id, 255 = unlabelled;
* depth: float32 (H, W), metres along the optical axis Z, NaN = invalid;
* normals: float32 (H, W, 3), unit vectors in the optical frame (x right, y down, z forward)
  that face the camera, NaN = invalid;
* edges: uint8 (H, W); as a target 0 or 1, 255 = not annotated; as a prediction the
  probability times 255;
* parts as semantic, saliency as edges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mtl_perception.camera import CameraModel
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
UNLABELLED = 255


@dataclass(frozen=True)
class Sample:
    """One labelled frame of a dataset or of the simulation; a task not annotated is absent."""

    image: npt.NDArray[np.uint8]  # (H, W, 3) RGB
    targets: Mapping[str, Array]  # by task name, (H, W) or (H, W, 3)
    camera: CameraModel | None
    name: str
    pose: npt.NDArray[np.float64] | None = None  # (4, 4), optical frame -> world


@dataclass(frozen=True)
class Frame:
    """One camera frame on its way to the network; `image` may be a view on a message."""

    image: npt.NDArray[np.uint8]  # (H, W, 3) RGB
    stamp_ns: int
    frame_id: str
    camera: CameraModel | None  # None = no usable intrinsics, hence no metric depth


@dataclass(frozen=True)
class PerceptionMaps:
    """
    The finished maps of one frame, at the resolution of `image`.

    `image` and `camera` are what the maps belong to: the rectified image and its pinhole
    where the input was distorted, else the input's own.
    """

    maps: Mapping[str, Array]  # by task name
    confidence: Mapping[str, npt.NDArray[np.float32]]  # by semantic task name, (H, W) in [0, 1]
    image: npt.NDArray[np.uint8]  # (H, W, 3) RGB
    camera: CameraModel | None
    timings_ms: Mapping[str, float] = field(default_factory=dict)
