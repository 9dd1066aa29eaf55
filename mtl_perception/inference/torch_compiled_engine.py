# SPDX-License-Identifier: Apache-2.0
"""PyTorch's own compiler (Inductor), ahead of time, for the processor or a CUDA device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
import os
from pathlib import Path
import shutil
import tempfile
from typing import Any

from mtl_perception.closing import Closing
from mtl_perception.inference.cache import Built
from mtl_perception.inference.device import Device, nvidia_driver, processor
from mtl_perception.inference.engine import check_inputs, frame_by_frame, InferenceError
from mtl_perception.inference.torch_engine import (
    load_graph_module,
    set_threads,
    torch_device,
    torch_library,
    TorchEngine,
    without_tf32,
)
from mtl_perception.manifest import CHECK_FILE, load_manifest
import numpy as np
import numpy.typing as npt

# Threads are chosen when it runs, not when it is built.
_OPTIONS = {'cpp.dynamic_threads': True}


def _compiler() -> str:
    """Return the C++ compiler that Inductor will use, or an empty string."""
    wanted = (os.environ.get('CXX', ''), 'g++', 'c++', 'clang++')
    return next((path for name in wanted if name and (path := shutil.which(name))), '')


class TorchCompiledEngine(Closing):
    """
    Runs what `build` made of the bundle's network; a compiler is needed to build, not to run.

    :param directory: the bundle
    :param content: the package that `build` made
    :param precision: the one it was built for
    :param threads: threads for one frame on the CPU (for the whole process: torch has one pool)

    On CUDA a frame is replayed as one CUDA graph; that has not been run on a GPU. Raises
    `InferenceError` if torch is missing, refuses the package, or the engine was closed.
    """

    name = 'torch-compiled'
    precisions = ('fp32',)

    @staticmethod
    def unavailable() -> str:
        """Return why this engine cannot run here, or an empty string."""
        return TorchEngine.unavailable() or ('' if _compiler() else 'there is no C++ compiler')

    @staticmethod
    def libraries() -> dict[str, str]:
        """Return the versions that the package depends on."""
        return {'torch': str(torch_library().__version__)}

    @staticmethod
    def device() -> Device:
        """Return the GPU if torch finds one, else the processor."""
        if torch_device().type != 'cuda':
            return processor()
        torch = torch_library()
        major, minor = torch.cuda.get_device_capability()
        driver = f'CUDA {torch.version.cuda} {nvidia_driver()}'.strip()
        return Device(torch.cuda.get_device_name(), f'sm{major}{minor}', driver)

    @staticmethod
    def build(
        directory: Path,
        precision: str,
        batch: tuple[int, int],
        device: Device,
        progress: Callable[[str, float], None] = lambda phase, share: None,
    ) -> Built:
        """
        Compile the network for this device, one image at a time.

        Raises
        ------
        InferenceError
            If there is no C++ compiler, or the engine is meant for another device.
        BundleError
            If the bundle is damaged.

        """
        torch = torch_library()
        if device != TorchCompiledEngine.device():
            msg = f'torch-compiled builds for this machine only, not for {device}; run it there'
            raise InferenceError(msg)
        if not _compiler():
            msg = (
                'torch-compiled is built with a C++ compiler, and there is none; '
                'sudo apt install g++, or name one in CXX'
            )
            raise InferenceError(msg)
        from safetensors.torch import load_file

        place = torch_device()
        graph, _ = load_graph_module(directory)
        graph = graph.to(place)
        check = load_file(directory / CHECK_FILE)
        inputs = (check['input.image'].to(place), check['input.depth_scale'].to(place))
        progress('export', 0.0)
        with torch.no_grad():
            program = torch.export.export(graph, inputs)
        progress('compile', 0.0)
        with tempfile.TemporaryDirectory(prefix='mtl_perception_') as scratch:
            path = Path(scratch) / 'engine.pt2'
            try:
                torch._inductor.aoti_compile_and_package(
                    program, package_path=str(path), inductor_configs=_OPTIONS
                )
            except Exception as error:  # Inductor's errors share no base
                reason = str(error).strip().splitlines()[0]
                msg = f'torch {torch.__version__} compiles no engine: {reason}'
                raise InferenceError(msg) from error
            content = path.read_bytes()
        progress('compile', 1.0)
        return Built(content, _layers(program))

    def __init__(
        self, directory: Path, content: bytes, precision: str, threads: int | None = None
    ) -> None:
        torch = torch_library()
        set_threads(threads)
        self.manifest = load_manifest(directory)
        place = torch_device()
        with tempfile.TemporaryDirectory(prefix='mtl_perception_') as scratch:
            path = Path(scratch) / 'engine.pt2'
            path.write_bytes(content)
            try:
                # Its locks would stop the capture of a CUDA graph; one thread at a time runs it.
                package: Any = torch._inductor.aoti_load_package(
                    str(path), run_single_threaded=True
                )
            except Exception as error:  # the loader's errors share no base
                msg = (
                    f'torch {torch.__version__} refuses the engine built for '
                    f'{self.manifest.name}: {error}; python3 -m mtl_perception compile --purge'
                )
                raise InferenceError(msg) from error
        from mtl_perception.inference.device_frames import DeviceFrames

        self._frames: DeviceFrames | None = DeviceFrames(
            package, self.manifest.output_names, place, replay=place.type == 'cuda'
        )

    def run(
        self, image: npt.NDArray[np.uint8], depth_scale: npt.NDArray[np.float32]
    ) -> dict[str, npt.NDArray[Any]]:
        """Return the maps by output name (see `Engine.run`); a batch image by image."""
        if self._frames is None:
            msg = 'the engine is closed; open it again'
            raise InferenceError(msg)
        check_inputs(self.manifest, image, depth_scale)
        import torch

        with torch.inference_mode(), without_tf32():
            return frame_by_frame(self._frames.run, image, depth_scale)

    def close(self) -> None:
        """Free the compiled network."""
        self._frames = None


def _layers(program: Any) -> dict[str, Any]:
    """Count the operations of an exported program by the type of what they compute."""
    kinds: Counter[str] = Counter()
    for node in program.graph.nodes:
        value = node.meta.get('val')
        if node.op == 'call_function' and hasattr(value, 'dtype'):
            kinds[str(value.dtype).removeprefix('torch.')] += 1
    return {'layers': sum(kinds.values()), 'layers_by_precision': dict(kinds.most_common())}
