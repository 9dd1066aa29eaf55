# SPDX-License-Identifier: Apache-2.0
"""TensorRT through torch_tensorrt: Jetson, data-centre and desktop GPUs; not run on a GPU yet."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from mtl_perception.closing import Closing
from mtl_perception.inference.cache import Built
from mtl_perception.inference.device import Device, nvidia_gpu_present
from mtl_perception.inference.engine import check_inputs, frame_by_frame, InferenceError
from mtl_perception.inference.tensorrt_rtx_engine import TensorRtRtxEngine
from mtl_perception.inference.tensorrt_runtime import gpu, missing_for_gpu, TensorRtRuntime
from mtl_perception.inference.torch_engine import torch_library
from mtl_perception.manifest import load_manifest
import numpy as np
import numpy.typing as npt


def _library() -> Any:
    """Return torch_tensorrt; it queries the GPU while it is imported."""
    try:
        import torch_tensorrt
    except ImportError as error:
        msg = f'the engine tensorrt cannot be imported ({error}); pip install torch-tensorrt'
        raise InferenceError(msg) from error
    # Without a driver torch raises RuntimeError or AssertionError in the middle of the import.
    except Exception as error:
        reason = str(error).splitlines()[0]
        msg = f'the engine tensorrt needs an NVIDIA GPU with a driver: {reason}'
        raise InferenceError(msg) from error
    return torch_tensorrt


def _builds_with_rtx() -> bool:
    """Whether the torch_tensorrt installed here is the wheel that stands on TensorRT-RTX."""
    try:
        metadata.distribution('torch-tensorrt-rtx')
    except metadata.PackageNotFoundError:
        return False
    return True


def _runtime_library() -> Any:
    """Return the TensorRT that torch_tensorrt builds with; both may be installed."""
    _library()
    name, wheel = 'tensorrt', 'torch-tensorrt'
    if _builds_with_rtx():
        name, wheel = 'tensorrt_rtx', 'torch-tensorrt-rtx'
    try:
        return import_module(name)
    except (ImportError, OSError) as error:
        msg = f'the engine tensorrt lacks {name} ({error}); pip install {wheel}'
        raise InferenceError(msg) from error


class TensorRtEngine(Closing):
    """
    Runs what torch_tensorrt made of the bundle's network, through TensorRT's own runtime.

    TensorRT has no casts to uint8 in this path: labels and edges come out as int32 and are cast
    here. Parameters and errors are those of `TensorRtRtxEngine`.
    """

    name = 'tensorrt'
    precisions = ('fp32',)

    @staticmethod
    def unavailable() -> str:
        """Return why this engine cannot run here, or an empty string."""
        if not nvidia_gpu_present():
            return 'no NVIDIA GPU'
        # RTX refuses GPUs that plain TensorRT knows.
        limits = TensorRtRtxEngine.unavailable() if _builds_with_rtx() else ''
        return missing_for_gpu('torch_tensorrt') or limits

    @staticmethod
    def libraries() -> dict[str, str]:
        """Return the versions that the serialised engine depends on."""
        torch = torch_library()
        library, runtime = _library(), _runtime_library()
        return {
            'torch': torch.__version__,
            'torch_tensorrt': str(library.__version__),
            runtime.__name__: str(runtime.__version__),
        }

    @staticmethod
    def device() -> Device:
        """Return the GPU in use; raises InferenceError if there is none."""
        return gpu('tensorrt')

    @staticmethod
    def build(
        directory: Path,
        precision: str,
        batch: tuple[int, int],
        device: Device,
        progress: Callable[[str, float], None] = lambda phase, share: None,
    ) -> Built:
        """
        Lower the network with torch_tensorrt and build it for the GPU in this machine.

        Raises
        ------
        InferenceError
            If torch_tensorrt cannot build it.

        """
        torch = torch_library()
        library = _library()
        from mtl_perception.bundle import load_network
        from mtl_perception.graph import PerceptionGraph

        network, manifest = load_network(directory)
        graph = PerceptionGraph(network, manifest).eval().cuda()
        height, width = manifest.network_size
        inputs = (
            torch.zeros((1, height, width, 3), dtype=torch.uint8, device='cuda'),
            torch.ones((1,), device='cuda'),
        )
        progress('build', 0.0)
        try:
            program = export_with_integers(graph, inputs)
            content = library.dynamo.convert_exported_program_to_serialized_trt_engine(
                program,
                arg_inputs=inputs,
                require_full_compilation=True,
                # TF32 would be 1e-3 off in depth: the reference computes in full fp32.
                disable_tf32=True,
            )
        except Exception as error:  # torch_tensorrt's errors share no base
            msg = f'torch_tensorrt {library.__version__} builds no engine: {error}'
            raise InferenceError(msg) from error
        progress('build', 1.0)
        return Built(bytes(content), _layers(bytes(content)))

    def __init__(
        self, directory: Path, content: bytes, precision: str, threads: int | None = None
    ) -> None:
        self.manifest = load_manifest(directory)
        self.device()
        shapes = {'image': (1, *self.manifest.network_size, 3), 'depth_scale': (1,)}
        self._runtime: Any = TensorRtRuntime(_runtime_library(), content, shapes)

    def run(
        self, image: npt.NDArray[np.uint8], depth_scale: npt.NDArray[np.float32]
    ) -> dict[str, npt.NDArray[Any]]:
        """Return the maps by output name (see `Engine.run`); one image at a time."""
        check_inputs(self.manifest, image, depth_scale)
        return frame_by_frame(self._frame, image, depth_scale)

    def _frame(
        self, image: npt.NDArray[np.uint8], depth_scale: npt.NDArray[np.float32]
    ) -> dict[str, npt.NDArray[Any]]:
        maps = self._runtime.run({'image': image, 'depth_scale': depth_scale})
        # torch_tensorrt names outputs output0, output1 ... in the order of the graph.
        return {
            name: values.astype(np.uint8) if values.dtype == np.int32 else values
            for name, values in zip(self.manifest.output_names, maps.values())
        }

    def close(self) -> None:
        """Free the GPU's memory."""
        self._runtime.close()


def _layers(content: bytes) -> dict[str, Any]:
    """Return how many layers an engine has after fusion; nothing where it cannot be loaded."""
    library = _runtime_library()
    runtime = library.Runtime(library.Logger(library.Logger.ERROR))
    engine = runtime.deserialize_cuda_engine(content)
    return {} if engine is None else {'layers': int(engine.num_layers)}


def export_with_integers(graph: Any, inputs: tuple[Any, ...]) -> Any:
    """Export the graph with int32 outputs where it has uint8, which TensorRT cannot cast to."""
    import torch

    program = torch.export.export(graph, inputs)
    module = program.module()
    for node in list(module.graph.nodes):
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            module.graph.erase_node(node)  # it would insist on the types as they were
            continue
        node.args = tuple(torch.int32 if one is torch.uint8 else one for one in node.args)
        if node.kwargs.get('dtype') is torch.uint8:
            node.kwargs = {**node.kwargs, 'dtype': torch.int32}
    module.recompile()
    return torch.export.export(module, inputs)
