# SPDX-License-Identifier: Apache-2.0
"""PyTorch without a compiler, on the CPU or a CUDA device: the reference for the others."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
import os
from pathlib import Path
from typing import Any

from mtl_perception.closing import Closing
from mtl_perception.inference.device import nvidia_gpu_present
from mtl_perception.inference.engine import check_inputs, InferenceError
import numpy as np
import numpy.typing as npt

_HALF = {'fp16': 'float16', 'bf16': 'bfloat16'}


def torch_library() -> Any:
    """
    Return torch.

    Raises
    ------
    InferenceError
        If it is not installed.

    """
    try:
        import torch
    except ImportError as error:
        msg = f'the engine torch cannot be imported ({error}); pip install torch'
        raise InferenceError(msg) from error
    return torch


def set_threads(threads: int | None) -> None:
    """Let torch take that many threads for one frame; None: every core of this process."""
    # torch's own choice is every core of the machine, also those given to others.
    torch_library().set_num_threads(threads or len(os.sched_getaffinity(0)))


def torch_device() -> Any:
    """Return the CUDA device if torch finds one, else the processor."""
    torch = torch_library()
    return torch.device('cuda' if torch.cuda.is_available() else 'cpu')


def in_precision(precision: str, device: Any) -> AbstractContextManager[Any]:
    """
    Return what makes torch compute in that precision.

    Half precision is autocast: convolutions and matrix products in half, softmax and the norms
    in fp32. The networks leave autocast where they sample, and decode their maps in fp32.
    """
    torch = torch_library()
    if precision == 'fp32':
        return nullcontext()
    kind = getattr(torch, _HALF[precision])
    # Kept copies of weights would belong to the first frame of a captured graph only.
    context: AbstractContextManager[Any] = torch.autocast(device.type, kind, cache_enabled=False)
    return context


def without_tf32() -> AbstractContextManager[Any]:
    """Return what makes convolutions on CUDA compute fp32 in full, as the reference does."""
    # TF32 would be 1e-3 off in depth.
    flags: AbstractContextManager[Any] = torch_library().backends.cudnn.flags(
        enabled=True, benchmark=True, allow_tf32=False
    )
    return flags


def load_graph_module(directory: Path) -> tuple[Any, Any]:
    """Return the bundle's `PerceptionGraph` in evaluation mode and its manifest."""
    from mtl_perception.bundle import load_network
    from mtl_perception.graph import PerceptionGraph

    network, manifest = load_network(directory)
    return PerceptionGraph(network, manifest).eval(), manifest


class TorchEngine(Closing):
    """
    Runs the bundle's network through the same graph module that is exported.

    :param directory: the bundle
    :param threads: threads for one frame on the CPU (for the whole process: torch has one
        pool); None takes every core this process may use
    :param precision: fp32, or the half precision of `in_precision`

    CUDA is taken where torch finds a device. Raises `InferenceError` if torch is missing or the
    engine was closed, `BundleError` if the bundle is damaged.
    """

    name = 'torch'
    precisions: tuple[str, ...] = ('fp32', 'fp16', 'bf16')
    _replay = False

    @staticmethod
    def unavailable() -> str:
        """Return why this engine cannot run here, or an empty string."""
        return '' if find_spec('torch') else 'torch is not installed'

    def __init__(
        self, directory: Path, threads: int | None = None, precision: str = 'fp32'
    ) -> None:
        set_threads(threads)
        self._device = torch_device()
        self._precision = precision
        graph, self.manifest = load_graph_module(directory)
        self._graph: Any = graph.to(self._device)
        self._run: Callable[..., dict[str, npt.NDArray[Any]]] = self._run_here
        if self._device.type == 'cuda':
            from mtl_perception.inference.device_frames import DeviceFrames

            names = self.manifest.output_names
            self._run = DeviceFrames(self._graph, names, self._device, replay=self._replay).run

    def run(
        self, image: npt.NDArray[np.uint8], depth_scale: npt.NDArray[np.float32]
    ) -> dict[str, npt.NDArray[Any]]:
        """Return the maps by output name (see `Engine.run`)."""
        import torch

        if self._graph is None:
            msg = 'the engine is closed; open it again'
            raise InferenceError(msg)
        check_inputs(self.manifest, image, depth_scale)
        half = in_precision(self._precision, self._device)
        with torch.inference_mode(), without_tf32(), half:
            return self._run(image, depth_scale)

    def _run_here(
        self, image: npt.NDArray[np.uint8], depth_scale: npt.NDArray[np.float32]
    ) -> dict[str, npt.NDArray[Any]]:
        import torch

        maps = self._graph(
            torch.from_numpy(np.ascontiguousarray(image)), torch.from_numpy(depth_scale)
        )
        return {
            name: np.ascontiguousarray(values.numpy())
            for name, values in zip(self.manifest.output_names, maps)
        }

    def close(self) -> None:
        """Free the network."""
        self._graph = None
        self._run = self._run_here


class TorchGraphEngine(TorchEngine):
    """
    Captures a frame of `TorchEngine` as one CUDA graph and replays it: no launch overhead.

    Parameters and errors are those of `TorchEngine`, and `InferenceError` without a GPU.
    """

    name = 'torch-graph'
    precisions = ('fp16', 'bf16', 'fp32')
    _replay = True

    @staticmethod
    def unavailable() -> str:
        """Return why this engine cannot run here, or an empty string."""
        return TorchEngine.unavailable() if nvidia_gpu_present() else 'no NVIDIA GPU'

    def __init__(
        self, directory: Path, threads: int | None = None, precision: str = 'fp16'
    ) -> None:
        if torch_device().type != 'cuda':
            msg = 'the engine torch-graph needs an NVIDIA GPU that torch finds: it replays CUDA '
            msg += 'graphs; take torch or torch-compiled on a processor'
            raise InferenceError(msg)
        super().__init__(directory, threads, precision)
