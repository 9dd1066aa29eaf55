# SPDX-License-Identifier: Apache-2.0
"""OpenVINO on an x86 processor: fp32, and bf16 for those who accept what it costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
import os
from pathlib import Path
from typing import Any

from mtl_perception.closing import Closing
from mtl_perception.inference.cache import Built
from mtl_perception.inference.device import Device, processor
from mtl_perception.inference.engine import check_inputs, frame_by_frame, InferenceError
from mtl_perception.manifest import GRAPH_FILE, load_manifest
import numpy as np
import numpy.typing as npt

_HINTS = {'fp32': 'f32', 'bf16': 'bf16'}


def _library() -> Any:
    try:
        import openvino
    except ImportError as error:
        msg = f'the engine openvino cannot be imported ({error}); pip install openvino'
        raise InferenceError(msg) from error
    return openvino


def _options(precision: str, threads: int | None) -> dict[str, Any]:
    return {
        'INFERENCE_PRECISION_HINT': _HINTS[precision],
        'INFERENCE_NUM_THREADS': threads or len(os.sched_getaffinity(0)),
        'NUM_STREAMS': '1',
        'PERFORMANCE_HINT': 'LATENCY',
        # A robot's cores are shared: threads tied to one wait for whoever runs there.
        'ENABLE_CPU_PINNING': False,
    }


class OpenVinoEngine(Closing):
    """
    Runs what `build` made of `graph.onnx`.

    :param directory: the bundle
    :param content: the serialised engine
    :param precision: the one it was built for
    :param threads: threads for one frame; None takes every core this process may use

    Raises
    ------
    InferenceError
        If openvino is not installed, refuses the engine, or the engine was closed.

    """

    name = 'openvino'
    precisions = ('fp32', 'bf16')

    @staticmethod
    def unavailable() -> str:
        """Return why this engine cannot run here, or an empty string."""
        if find_spec('openvino') is None:
            return 'openvino is not installed'
        # On ARM it runs, and ONNX Runtime has no more overhead there.
        return '' if processor().capability == 'x86_64' else 'meant for x86 processors'

    @staticmethod
    def libraries() -> dict[str, str]:
        """Return the versions that the serialised engine depends on."""
        return {'openvino': str(_library().get_version())}

    @staticmethod
    def device() -> Device:
        """Return the processor."""
        return processor()

    @staticmethod
    def build(
        directory: Path,
        precision: str,
        batch: tuple[int, int],
        device: Device,
        progress: Callable[[str, float], None] = lambda phase, share: None,
    ) -> Built:
        """
        Compile the graph for this processor, for one image at a time.

        Raises
        ------
        InferenceError
            If the engine is meant for another device, or OpenVINO refuses the graph.

        """
        if device != processor():
            msg = f'openvino builds for this processor only, not for {device}; run it there'
            raise InferenceError(msg)
        openvino = _library()
        path = directory / GRAPH_FILE
        progress('compile', 0.0)
        core = openvino.Core()
        try:
            model = core.read_model(str(path))
            # With an open batch the plugin works out every layer's shape anew in each frame.
            height, width = load_manifest(directory).network_size
            model.reshape({'image': [1, height, width, 3], 'depth_scale': [1]})
            compiled = core.compile_model(model, 'CPU', _options(precision, None))
        except RuntimeError as error:
            msg = f'{path}: OpenVINO {openvino.get_version()} refuses the graph: {error}'
            raise InferenceError(msg) from error
        # What runs, not what was asked for: the plugin may keep layers in another precision.
        kinds = Counter(
            operation.get_rt_info()['runtimePrecision'].astype(str)
            for operation in compiled.get_runtime_model().get_ops()
            if 'runtimePrecision' in operation.get_rt_info()
        )
        progress('compile', 1.0)
        return Built(
            compiled.export_model().getvalue(),
            {'layers': sum(kinds.values()), 'layers_by_precision': dict(kinds.most_common())},
        )

    def __init__(
        self, directory: Path, content: bytes, precision: str, threads: int | None = None
    ) -> None:
        self.manifest = load_manifest(directory)
        openvino = _library()
        options = _options(precision, threads)
        try:
            compiled = openvino.Core().import_model(content, 'CPU', options)
        except RuntimeError as error:
            msg = (
                f'OpenVINO {openvino.get_version()} refuses the engine built for '
                f'{self.manifest.name}: {error}; python3 -m mtl_perception compile --purge'
            )
            raise InferenceError(msg) from error
        self._names = list(self.manifest.output_names)
        self._request: Any = compiled.create_infer_request()

    def run(
        self, image: npt.NDArray[np.uint8], depth_scale: npt.NDArray[np.float32]
    ) -> dict[str, npt.NDArray[Any]]:
        """Return the maps by output name (see `Engine.run`); a batch image by image."""
        if self._request is None:
            msg = 'the engine is closed; open it again'
            raise InferenceError(msg)
        check_inputs(self.manifest, image, depth_scale)
        return frame_by_frame(self._frame, image, depth_scale)

    def _frame(
        self, image: npt.NDArray[np.uint8], depth_scale: npt.NDArray[np.float32]
    ) -> dict[str, npt.NDArray[Any]]:
        # The request reuses its output memory; the maps belong to the caller.
        maps = self._request.infer(
            {'image': image, 'depth_scale': depth_scale}, share_inputs=True, share_outputs=False
        )
        return {name: maps[name] for name in self._names}

    def close(self) -> None:
        """Free the compiled graph."""
        self._request = None
