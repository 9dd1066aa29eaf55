# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime on the CPU: exact, small, on x86 and ARM, without torch."""

from __future__ import annotations

from importlib.util import find_spec
import os
from pathlib import Path
from typing import Any

from mtl_perception.closing import Closing
from mtl_perception.inference.engine import check_inputs, InferenceError
from mtl_perception.manifest import (
    BundleError,
    GRAPH_FILE,
    load_manifest,
    verify_files,
    WEIGHTS_FILE,
)
import numpy as np
import numpy.typing as npt


class OnnxRuntimeEngine(Closing):
    """
    Runs `graph.onnx`; the weights are mapped from the safetensors file beside it.

    :param directory: the bundle
    :param threads: threads for one frame; None takes every core this process may use
    :param precision: the graph's own, fp32

    Raises
    ------
    InferenceError
        If onnxruntime is not installed or the engine was closed.
    BundleError
        If the bundle is damaged or ONNX Runtime refuses its graph.

    """

    name = 'onnxruntime'
    precisions = ('fp32',)

    @staticmethod
    def unavailable() -> str:
        """Return why this engine cannot run here, or an empty string."""
        return '' if find_spec('onnxruntime') else 'onnxruntime is not installed'

    def __init__(
        self, directory: Path, threads: int | None = None, precision: str = 'fp32'
    ) -> None:
        self.manifest = load_manifest(directory)
        verify_files(self.manifest, directory, (GRAPH_FILE, WEIGHTS_FILE))
        try:
            import onnxruntime
        except ImportError as error:
            msg = f'the engine onnxruntime cannot be imported ({error}); pip install onnxruntime'
            raise InferenceError(msg) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        # A robot's cores are shared: threads that spin while they wait take them from others,
        # and make the frame itself slower as soon as there are more threads than free cores.
        options.add_session_config_entry('session.intra_op.allow_spinning', '0')
        # One block planned for all activations at once is larger than what the arena reuses: it
        # took 28 MB more for a network of 4 M parameters, and not a millisecond less.
        options.enable_mem_pattern = False
        options.log_severity_level = 3
        path = directory / GRAPH_FILE
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(path), options, providers=['CPUExecutionProvider']
            )
        # ONNX Runtime's exceptions share no base below Exception.
        except Exception as error:
            msg = f'{path}: ONNX Runtime {onnxruntime.__version__} refuses the graph: {error}'
            raise BundleError(msg) from error
        self._names = list(self.manifest.output_names)

    def run(
        self, image: npt.NDArray[np.uint8], depth_scale: npt.NDArray[np.float32]
    ) -> dict[str, npt.NDArray[Any]]:
        """Return the maps by output name (see `Engine.run`)."""
        if self._session is None:
            msg = 'the engine is closed; open it again'
            raise InferenceError(msg)
        check_inputs(self.manifest, image, depth_scale)
        maps = self._session.run(self._names, {'image': image, 'depth_scale': depth_scale})
        return dict(zip(self._names, maps))

    def close(self) -> None:
        """Free the session."""
        self._session = None
