# SPDX-License-Identifier: Apache-2.0
"""From a camera frame to finished maps at the camera's size."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
import math
import time
from typing import Any

from mtl_perception.camera import CameraModel
from mtl_perception.inference.engine import Engine, InferenceError
from mtl_perception.inference.finishing import MapFinisher
from mtl_perception.inference.fitting import FittedGeometry
from mtl_perception.manifest import confidence_name, padding_colour
from mtl_perception.tasks import LABELLED_KINDS, Task
from mtl_perception.values import Frame, PerceptionMaps
import numpy as np
import numpy.typing as npt

# Gives the array for an output, by its name, shape and type.
Memory = Callable[[str, tuple[int, ...], npt.DTypeLike], npt.NDArray[Any]]


def new_memory(name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return a new array for the output `name`."""
    return np.empty(shape, dtype)


@dataclass(frozen=True)
class Inferred:
    """A frame that went through the network; its maps are still at network size."""

    image: npt.NDArray[np.uint8]  # rectified
    camera: CameraModel | None  # the image's pinhole
    maps: Mapping[str, npt.NDArray[Any]]  # as `Engine.run` gave them; empty if none is wanted
    finisher: MapFinisher
    timings_ms: Mapping[str, float]


@dataclass(frozen=True)
class PerceiverConfig:
    """
    What the Perceiver may assume.

    Raises
    ------
    InferenceError
        If the assumed focal length is not positive.

    """

    # Focal length in pixels of the camera's image for frames without intrinsics; None: without
    # intrinsics there is no depth.
    assume_focal_px: float | None = None

    def __post_init__(self) -> None:
        focal = self.assume_focal_px
        if focal is not None and not (math.isfinite(focal) and focal > 0):
            msg = f'assume_focal_px is {focal}; it must be a positive number of pixels'
            raise InferenceError(msg)


class Perceiver:
    """
    Fits each frame to the network, runs the engine and brings its maps to the camera's size.

    A distorted image is rectified once, and all maps belong to the rectified image. Without
    intrinsics (and without `assume_focal_px`) there is no depth map, and normals are as the
    reference focal length sees them. The engine stays the caller's to close.

    `perceive` is `infer` and `finish` in one. Apart, one thread may infer a frame while another
    finishes the one before; one thread at a time each.
    """

    def __init__(self, engine: Engine, config: PerceiverConfig | None = None) -> None:
        self._engine = engine
        self._config = config or PerceiverConfig()
        self._manifest = engine.manifest
        self._finisher: MapFinisher | None = None
        self._camera: CameraModel | None = None
        self._pinhole: CameraModel | None = None
        self._canvas = np.empty((1, *self._manifest.network_size, 3), np.uint8)

    def perceive(
        self, frame: Frame, wanted: Collection[str] | None = None, memory: Memory = new_memory
    ) -> PerceptionMaps:
        """
        Return the maps of one frame.

        :param wanted: output names to finish (`Manifest.output_names`: tasks, and
            `<task>_confidence`); None means all. Depth is absent where no focal length is known.
        :param memory: gives the array that a finished map is written into, by output name,
            shape and type; C-contiguous. By default a new one.
        :returns: maps with `image` and `camera` they belong to, and `timings_ms` with `fit`
            (rectification included), `engine` unless nothing wanted can come out, and `finish`

        Raises
        ------
        InferenceError
            If the image is not uint8 (H, W, 3), its size is not the camera model's, or an
            output is wanted that the network does not have.

        """
        return self.finish(self.infer(frame, wanted), wanted, memory)

    def infer(self, frame: Frame, wanted: Collection[str] | None = None) -> Inferred:
        """
        Fit a frame to the network and run the engine, unless nothing wanted can come out.

        Parameters and errors are those of `perceive`.
        """
        started = time.perf_counter()
        names = self._manifest.output_names
        unknown = sorted(set(wanted or ()) - set(names))
        if unknown:
            msg = f'output {unknown[0]!r} is unknown; this network gives {", ".join(names)}'
            raise InferenceError(msg)
        image, camera = self._rectify(frame)
        finisher = self._fit(image)
        scale = 1.0
        if camera is not None:
            scale = camera.focal_px * finisher.geometry.scale / self._manifest.reference_focal_px
        fitted = time.perf_counter()
        timings = {'fit': (fitted - started) * 1e3}
        maps: dict[str, npt.NDArray[Any]] = {}
        if self._possible(names if wanted is None else wanted, camera):
            maps = self._engine.run(self._canvas, np.array([scale], np.float32))
            timings['engine'] = (time.perf_counter() - fitted) * 1e3
        return Inferred(image, camera, maps, finisher, timings)

    def _possible(self, wanted: Collection[str], camera: CameraModel | None) -> bool:
        impossible = {
            task.name for task in self._manifest.tasks if task.kind == 'depth' and camera is None
        }
        return bool(set(wanted) - impossible)

    def finish(
        self,
        inferred: Inferred,
        wanted: Collection[str] | None = None,
        memory: Memory = new_memory,
    ) -> PerceptionMaps:
        """Bring what `infer` gave to the camera's size; `wanted` and `memory` as in `perceive`."""
        started = time.perf_counter()
        camera, maps, finisher = inferred.camera, inferred.maps, inferred.finisher
        finished: dict[str, npt.NDArray[Any]] = {}
        confidence: dict[str, npt.NDArray[np.float32]] = {}
        for task in self._manifest.tasks if maps else ():
            if task.kind == 'depth' and camera is None:
                continue
            if wanted is None or task.name in wanted:
                finished[task.name] = self._finish(task, maps[task.name][0], finisher, memory)
            name = confidence_name(task)
            if task.kind in LABELLED_KINDS and (wanted is None or name in wanted):
                step = self._manifest.label_step
                out = memory(name, finisher.geometry.camera_size, np.float32)
                confidence[task.name] = finisher.linear(maps[name][0], step, out)
        milliseconds = (time.perf_counter() - started) * 1e3
        return PerceptionMaps(
            maps=finished,
            confidence=confidence,
            image=inferred.image,
            camera=camera,
            timings_ms={**inferred.timings_ms, 'finish': milliseconds},
        )

    def _rectify(self, frame: Frame) -> tuple[npt.NDArray[np.uint8], CameraModel | None]:
        """Return the image without distortion and its pinhole; None where there is none."""
        image, camera = frame.image, frame.camera
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            msg = f'image is {image.dtype} {image.shape}; it must be uint8 (height, width, 3) RGB'
            raise InferenceError(msg)
        height, width = image.shape[:2]
        if camera is None and self._config.assume_focal_px is not None:
            focal = self._config.assume_focal_px
            camera = CameraModel(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)
        if camera is None:
            return image, None
        if (camera.width, camera.height) != (width, height):
            msg = (
                f'camera_info is for {camera.width}x{camera.height} but the image is '
                f'{width}x{height}; publish the camera_info of this image'
            )
            raise InferenceError(msg)
        # Camera models compute their look-up tables once: an equal model that came with the next
        # message must not start anew.
        if camera != self._camera or self._camera is None or self._pinhole is None:
            self._camera, self._pinhole = camera, camera.rectified()
        if not camera.is_rectified:
            image = self._camera.rectify(image)
        return image, self._pinhole

    def _fit(self, image: npt.NDArray[np.uint8]) -> MapFinisher:
        """Draw the image on the network's canvas; padding has the training images' mean colour."""
        size = image.shape[0], image.shape[1]
        manifest = self._manifest
        if self._finisher is None or self._finisher.geometry.camera_size != size:
            geometry = FittedGeometry.fit(size, manifest.network_size, manifest.label_step)
            self._finisher = MapFinisher(geometry)
            self._canvas[...] = padding_colour(manifest.mean)
        self._finisher.geometry.fit_image(image, self._canvas[0])
        return self._finisher

    def _finish(
        self, task: Task, values: npt.NDArray[Any], finisher: MapFinisher, memory: Memory
    ) -> npt.NDArray[Any]:
        shape = (*finisher.geometry.camera_size, *values.shape[2:])
        out = memory(task.name, shape, values.dtype)
        if task.kind in LABELLED_KINDS:
            return finisher.labels(values, self._manifest.label_step, out)
        if task.kind == 'normals':
            return finisher.normals(values, out)
        return finisher.linear(values, out=out)
