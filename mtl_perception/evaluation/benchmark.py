# SPDX-License-Identifier: Apache-2.0
"""Time every stage of a frame, for several engines in turn, and say on which machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
import os
from pathlib import Path
import platform
import time
from typing import Any

import cv2
from mtl_perception.camera import CameraModel
from mtl_perception.evaluation.errors import EvaluationError
from mtl_perception.evaluation.timing import Timings
from mtl_perception.geometry.cloud import cloud_shape, fused_cloud
from mtl_perception.image_codec import decode_compressed, decode_image, to_rgb
from mtl_perception.inference.device import nvidia_gpu_present, processor
from mtl_perception.inference.engine import Engine, InferenceError
from mtl_perception.inference.perceiver import Memory, new_memory, Perceiver
from mtl_perception.manifest import CHECK_FILE
from mtl_perception.tasks import Task
from mtl_perception.values import Frame, PerceptionMaps
import numpy as np
import numpy.typing as npt

# What happens to finished maps: returns milliseconds by stage.
LaterStages = Callable[[PerceptionMaps], Mapping[str, float]]

# All that a raw image costs beside the engine; the JPEG is decoded for comparison only.
OUTSIDE_ENGINE = ('decode', 'fit', 'finish', 'cloud', 'publish')
_WARM_UP_FRAMES = 3
_PACKAGES = (
    'numpy', 'opencv-python-headless', 'onnxruntime', 'openvino', 'torch', 'tensorrt_rtx',
    'ros-rclpy',
)  # fmt: skip


@dataclass(frozen=True)
class CameraImages:
    """The images of a benchmark, as a camera would send them, and their camera."""

    camera: CameraModel
    raw: tuple[bytes, ...]  # bgr8
    jpeg: tuple[bytes, ...]


@dataclass
class Variant:
    """One engine under test with what it took so far."""

    name: str
    engine: Engine
    later: LaterStages
    memory: Memory = new_memory
    timings: Timings = field(default_factory=Timings)

    def __post_init__(self) -> None:
        self._perceiver = Perceiver(self.engine)

    def time_frame(self, images: CameraImages, index: int) -> dict[str, float]:
        """Take one frame through every stage; return milliseconds by stage."""
        camera = images.camera
        raw, jpeg = (kind[index % len(kind)] for kind in (images.raw, images.jpeg))
        started = time.perf_counter()
        pixels = decode_image('bgr8', camera.height, camera.width, 3 * camera.width, raw)
        image = to_rgb(pixels, 'bgr8')
        decoded = time.perf_counter()
        decode_compressed(jpeg)
        unpacked = time.perf_counter()
        maps = self._perceiver.perceive(
            Frame(image, index, 'benchmark', camera), memory=self.memory
        )
        return {
            'decode': (decoded - started) * 1e3,
            'decode_jpeg': (unpacked - decoded) * 1e3,
            **maps.timings_ms,
            **self.later(maps),
        }


def cloud_stage(
    tasks: Sequence[Task], buffer: Callable[[tuple[int, int, int]], npt.NDArray[np.float32]]
) -> LaterStages:
    """Return the stage that fuses the cloud into `buffer(shape)`; none without depth."""
    first = {task.kind: task.name for task in reversed(tasks)}
    names = {kind: first[kind] for kind in ('depth', 'normals', 'semantic') if kind in first}

    def run(maps: PerceptionMaps) -> dict[str, float]:
        if 'depth' not in names or maps.camera is None:
            return {}
        started = time.perf_counter()
        fused_cloud(
            {kind: maps.maps[name] for kind, name in names.items()},
            maps.image,
            maps.camera,
            out=buffer(cloud_shape(maps.camera, 1)),
        )
        return {'cloud': (time.perf_counter() - started) * 1e3}

    return run


def benchmark_images(bundle: Path, width: int, height: int, count: int = 8) -> CameraImages:
    """
    Return `count` images at this size, made from the bundle's own check frame.

    Raises
    ------
    EvaluationError
        If the bundle has no readable check frame.

    """
    from safetensors import safe_open, SafetensorError

    try:
        with safe_open(bundle / CHECK_FILE, framework='numpy') as tensors:
            frame = tensors.get_tensor('input.image')[0]
    except (OSError, SafetensorError) as error:
        msg = f'{bundle / CHECK_FILE} has no check frame to measure with: {error}'
        raise EvaluationError(msg) from error
    image = cv2.cvtColor(cv2.resize(frame, (width, height)), cv2.COLOR_RGB2BGR)
    shifted = [np.roll(image, width * index // count, axis=1) for index in range(count)]
    focal = 0.9 * width  # a field of view of about 58 degrees
    return CameraImages(
        camera=CameraModel(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2),
        raw=tuple(entry.tobytes() for entry in shifted),
        jpeg=tuple(cv2.imencode('.jpg', entry)[1].tobytes() for entry in shifted),
    )


def benchmark(
    variants: Sequence[Variant],
    images: CameraImages,
    frames: int,
    progress: Callable[[], object] = lambda: None,
) -> None:
    """
    Time `frames` frames of each variant, in turn frame by frame, after a few to warm up.

    In turn, because a shared machine is fast at one moment and slow at the next; then the
    ratios hold even where the milliseconds do not.
    """
    for index in range(-_WARM_UP_FRAMES, frames):
        for variant in variants:
            stages = variant.time_frame(images, index)
            if index >= 0:
                variant.timings.add(stages)
                progress()


def variant_report(variant: Variant) -> dict[str, Any]:
    """Return what a variant took as plain JSON values."""
    return {
        'name': variant.name,
        'latency_ms': variant.timings.summary(),
        'outside_engine_ms': {'median': variant.timings.median_sum(OUTSIDE_ENGINE)},
    }


def gpu_name() -> str:
    """Return the GPU in words, an empty string without one."""
    if not nvidia_gpu_present():
        return ''
    from mtl_perception.inference.tensorrt_runtime import gpu

    try:
        return str(gpu('benchmark'))
    except InferenceError as error:
        return f'one that cannot be asked for its name ({error})'


def machine() -> dict[str, Any]:
    """Return what the numbers depend on: processor, cores, system and library versions."""
    versions: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        'processor': processor().name,
        'cores': os.cpu_count(),
        'cores_available': len(os.sched_getaffinity(0)),
        'load_average_1min': round(os.getloadavg()[0], 2),
        'system': platform.platform(),
        'python': platform.python_version(),
        'versions': versions,
    }
