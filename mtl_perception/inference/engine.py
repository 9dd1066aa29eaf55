# SPDX-License-Identifier: Apache-2.0
"""What an engine is, and the one door to open one by name."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from mtl_perception.errors import MtlPerceptionError
from mtl_perception.manifest import Manifest
import numpy as np
import numpy.typing as npt

# Imported only when asked for: each stands on a library that a robot may lack.
ENGINES = {
    'onnxruntime': 'mtl_perception.inference.onnxruntime_engine:OnnxRuntimeEngine',
    'torch': 'mtl_perception.inference.torch_engine:TorchEngine',
}


class InferenceError(MtlPerceptionError):
    """An engine that cannot be opened or an input it cannot take; the message says the remedy."""


class Engine(Protocol):
    """Runs the graph of one bundle; used by one thread at a time, closed by whoever opened it."""

    name: str
    manifest: Manifest

    def run(
        self, image: npt.NDArray[np.uint8], depth_scale: npt.NDArray[np.float32]
    ) -> dict[str, npt.NDArray[Any]]:
        """
        Return the maps by output name (`Manifest.output_names`), each with a batch axis.

        :param image: uint8 (B, H, W, 3) RGB at network size
        :param depth_scale: float32 (B,), f / f_ref of each image

        The arrays belong to the caller: a later run does not change them.
        """

    def close(self) -> None:
        """Free what the engine holds; it cannot run after that."""

    def __enter__(self) -> Engine:
        """Return the engine itself."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the engine."""


def open_engine(
    directory: Path | str, engine: str = 'onnxruntime', *, threads: int | None = None
) -> Engine:
    """
    Open the bundle `directory` with the engine of that name.

    :param threads: threads for one frame; None takes every core this process may use

    Raises
    ------
    InferenceError
        If the engine is unknown, its library is missing, or `threads` is not positive.
    BundleError
        If the bundle is missing, damaged or of a newer format.

    """
    if engine not in ENGINES:
        msg = f'engine {engine!r} is unknown; use one of {", ".join(ENGINES)}'
        raise InferenceError(msg)
    if threads is not None and threads < 1:
        msg = f'threads is {threads}; it must be at least 1, or left out for every core'
        raise InferenceError(msg)
    module, name = ENGINES[engine].split(':')
    opened: Engine = getattr(import_module(module), name)(Path(directory), threads=threads)
    return opened


def check_inputs(
    manifest: Manifest, image: npt.NDArray[np.uint8], depth_scale: npt.NDArray[np.float32]
) -> None:
    """
    Raise unless the inputs are what the graph of `manifest` takes.

    Raises
    ------
    InferenceError
        With the shape and type that came and those that were due.

    """
    expected = (*manifest.network_size, 3)
    if image.dtype != np.uint8 or image.ndim != 4 or image.shape[1:] != expected:
        msg = f'image is {image.dtype} {image.shape}; the graph takes uint8 (B, *{expected})'
        raise InferenceError(msg)
    if depth_scale.dtype != np.float32 or depth_scale.shape != image.shape[:1]:
        msg = (
            f'depth_scale is {depth_scale.dtype} {depth_scale.shape}; '
            f'the graph takes float32 {image.shape[:1]}, one per image'
        )
        raise InferenceError(msg)
