# SPDX-License-Identifier: Apache-2.0
"""PyTorch without a compiler, on the CPU or a CUDA device: the reference for the others."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from mtl_perception.inference.engine import check_inputs, InferenceError
import numpy as np
import numpy.typing as npt


class TorchEngine:
    """
    Runs the bundle's network in fp32 through the same graph module that is exported.

    :param directory: the bundle
    :param threads: threads for one frame on the CPU (for the whole process: torch has one
        pool); None leaves torch's own choice

    CUDA is taken where torch finds a device. Raises `InferenceError` if torch is missing or the
    engine was closed, `BundleError` if the bundle is damaged.
    """

    name = 'torch'
    precisions = ('fp32',)

    @staticmethod
    def unavailable() -> str:
        """Return why this engine cannot run here, or an empty string."""
        return '' if find_spec('torch') else 'torch is not installed'

    def __init__(self, directory: Path, threads: int | None = None) -> None:
        try:
            import torch
        except ImportError as error:
            msg = f'the engine torch cannot be imported ({error}); pip install torch'
            raise InferenceError(msg) from error
        from mtl_perception.bundle import load_network
        from mtl_perception.graph import PerceptionGraph

        if threads is not None:
            torch.set_num_threads(threads)
        self.device = 'cuda' if torch.cuda.is_available() else 'cpu'
        network, self.manifest = load_network(directory)
        self._graph: Any = PerceptionGraph(network, self.manifest).eval().to(self.device)

    def run(
        self, image: npt.NDArray[np.uint8], depth_scale: npt.NDArray[np.float32]
    ) -> dict[str, npt.NDArray[Any]]:
        """Return the maps by output name (see `Engine.run`)."""
        import torch

        if self._graph is None:
            msg = 'the engine is closed; open it again'
            raise InferenceError(msg)
        check_inputs(self.manifest, image, depth_scale)
        # TF32 would be 1e-3 off in depth: the reference computes in full fp32.
        precision = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        with torch.inference_mode(), precision:
            maps = self._graph(
                torch.from_numpy(np.ascontiguousarray(image)).to(self.device),
                torch.from_numpy(depth_scale).to(self.device),
            )
        return {
            name: np.ascontiguousarray(values.cpu().numpy())
            for name, values in zip(self._graph.output_names, maps)
        }

    def close(self) -> None:
        """Free the network."""
        self._graph = None

    def __enter__(self) -> TorchEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
