# SPDX-License-Identifier: Apache-2.0
"""TensorRT-RTX: engines built ahead of time from ONNX, for RTX GPUs; not run on a GPU yet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mtl_perception.closing import Closing
from mtl_perception.inference.cache import Built
from mtl_perception.inference.device import Device, nvidia_gpu_present
from mtl_perception.inference.engine import check_inputs, frame_by_frame, InferenceError
from mtl_perception.inference.half_precision import load_graph
from mtl_perception.inference.tensorrt_rtx_builder import (
    build_tensorrt_rtx,
    known_targets,
    tensorrt_rtx,
)
from mtl_perception.inference.tensorrt_runtime import gpu, missing_for_gpu, TensorRtRuntime
from mtl_perception.manifest import load_manifest
import numpy as np
import numpy.typing as npt


class TensorRtRtxEngine(Closing):
    """
    Runs what `build` made of `graph.onnx`, one image at a time.

    :param directory: the bundle
    :param content: the serialised engine
    :param precision: the one it was built for
    :param threads: has no meaning on a GPU

    Raises
    ------
    InferenceError
        If the library or a GPU is missing, or the library refuses the engine.

    """

    name = 'tensorrt-rtx'
    precisions = ('fp16', 'bf16', 'fp32')

    @staticmethod
    def unavailable() -> str:
        """Return why this engine cannot run here, or an empty string."""
        if not nvidia_gpu_present():
            return 'no NVIDIA GPU'
        if reason := missing_for_gpu('tensorrt_rtx'):
            return reason
        try:
            device = TensorRtRtxEngine.device()
        except InferenceError as error:
            return str(error)
        known = known_targets()
        if device.capability not in known:
            return f'TensorRT-RTX knows {", ".join(known)}, this GPU is {device.capability}'
        return ''

    @staticmethod
    def libraries() -> dict[str, str]:
        """Return the versions that the serialised engine depends on."""
        return {'tensorrt_rtx': str(tensorrt_rtx().__version__)}

    @staticmethod
    def device() -> Device:
        """Return the GPU in use; raises InferenceError if there is none."""
        return gpu('tensorrt-rtx')

    @staticmethod
    def build(
        directory: Path,
        precision: str,
        batch: tuple[int, int],
        device: Device,
        progress: Callable[[str, float], None] = lambda phase, share: None,
    ) -> Built:
        """Build for the compute capabilities of `device`; no GPU is needed for it."""
        progress('convert', 0.0)
        model = load_graph(directory, precision).SerializeToString()
        return build_tensorrt_rtx(
            model, device.capability.split(','), batch=batch, progress=progress
        )

    def __init__(
        self, directory: Path, content: bytes, precision: str, threads: int | None = None
    ) -> None:
        self.manifest = load_manifest(directory)
        self.device()
        shapes = {'image': (1, *self.manifest.network_size, 3), 'depth_scale': (1,)}
        self._runtime: Any = TensorRtRuntime(tensorrt_rtx(), content, shapes)

    def run(
        self, image: npt.NDArray[np.uint8], depth_scale: npt.NDArray[np.float32]
    ) -> dict[str, npt.NDArray[Any]]:
        """Return the maps by output name (see `Engine.run`); a batch image by image."""
        check_inputs(self.manifest, image, depth_scale)
        return frame_by_frame(self._frame, image, depth_scale)

    def _frame(
        self, image: npt.NDArray[np.uint8], depth_scale: npt.NDArray[np.float32]
    ) -> dict[str, npt.NDArray[Any]]:
        maps = self._runtime.run({'image': image, 'depth_scale': depth_scale})
        return {name: maps[name] for name in self.manifest.output_names}

    def close(self) -> None:
        """Free the GPU's memory."""
        self._runtime.close()
