# SPDX-License-Identifier: Apache-2.0
"""
Run a serialised TensorRT engine through the library's own runtime, without torch.

Per frame there is one copy to the GPU and one back, both from pinned memory: all inputs lie in
one block, all outputs in another, allocated once. Not run on a GPU yet: what needs no device is
tested against the real libraries.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from mtl_perception.inference.device import Device, nvidia_driver
from mtl_perception.inference.engine import InferenceError
import numpy as np
import numpy.typing as npt

_ALIGNMENT = 256  # of each tensor within its block, as cudaMalloc itself aligns


def cuda() -> Any:
    """
    Return the CUDA runtime's Python module.

    Raises
    ------
    InferenceError
        If it is not installed.

    """
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        msg = f'the CUDA runtime cannot be imported ({error}); pip install cuda-bindings'
        raise InferenceError(msg) from error
    return runtime


def call(function: Any, *arguments: Any) -> Any:
    """
    Call a function of the CUDA runtime and return what it gives beside its status.

    Raises
    ------
    InferenceError
        If the status is an error, by its name.

    """
    status, *values = function(*arguments)
    if int(status) != 0:
        msg = f'CUDA: {function.__name__} failed with {status.name}'
        raise InferenceError(msg)
    return values[0] if len(values) == 1 else tuple(values)


def gpu(engine: str) -> Device:
    """
    Return the GPU in use.

    Raises
    ------
    InferenceError
        If there is none, or its driver is too old for the CUDA runtime.

    """
    runtime = cuda()
    try:
        if call(runtime.cudaGetDeviceCount) == 0:
            raise InferenceError('CUDA finds no device')
        properties = call(runtime.cudaGetDeviceProperties, call(runtime.cudaGetDevice))
        version = call(runtime.cudaDriverGetVersion)
    except InferenceError as error:
        msg = f'the engine {engine} needs an NVIDIA GPU with a driver: {error}'
        raise InferenceError(msg) from error
    name = properties.name
    return Device(
        name.decode().rstrip('\0') if isinstance(name, bytes) else str(name),
        f'sm{properties.major}{properties.minor}',
        f'CUDA {version} {nvidia_driver()}'.strip(),
    )


def missing_for_gpu(library: str) -> str:
    """Return why `library` cannot be used here as far as that shows without loading it."""
    if find_spec(library) is None:
        return f'{library} is not installed'
    try:
        found = find_spec('cuda.bindings')
    except ModuleNotFoundError:
        found = None
    return '' if found else 'cuda-bindings is not installed'


class TensorRtRuntime:
    """
    One engine, one context, one stream, and the memory of one frame's inputs and outputs.

    From the second frame on a whole frame is replayed as one CUDA graph, where that is possible.

    :param library: the module tensorrt or tensorrt_rtx
    :param content: the serialised engine
    :param shapes: by input name the shape of every frame's tensor

    Raises
    ------
    InferenceError
        If there is no device, the library refuses the engine, or memory runs out.

    """

    def __init__(
        self, library: Any, content: bytes, shapes: Mapping[str, tuple[int, ...]]
    ) -> None:
        self._library = library
        self._cuda = cuda()
        self._device: list[Any] = []
        self._pinned: list[Any] = []
        self._context: Any = None
        self._stream: Any = None
        self._graph: Any = None
        # TensorRT-RTX captures and replays the frame as one CUDA graph by itself.
        self._replays_itself = hasattr(library, 'CudaGraphStrategy')
        self._to_capture = not self._replays_itself
        logger = library.Logger(library.Logger.ERROR)
        self._runtime = library.Runtime(logger)
        self._engine = self._runtime.deserialize_cuda_engine(content)
        if self._engine is None:
            msg = f'{library.__name__} {library.__version__} refuses the engine on this device'
            raise InferenceError(msg)
        try:
            self._context = self._make_context()
            self._stream = call(self._cuda.cudaStreamCreate)
            for name, shape in shapes.items():
                self._context.set_input_shape(name, shape)
            inputs, outputs = self._tensors(library.TensorIOMode.INPUT), self._tensors(
                library.TensorIOMode.OUTPUT
            )
            self._inputs, self._input_block = self._allocate(inputs)
            self._outputs, self._output_block = self._allocate(outputs)
        except BaseException:
            self.close()
            raise

    def _make_context(self) -> Any:
        if not self._replays_itself:
            return self._engine.create_execution_context()
        config = self._engine.create_runtime_config()
        config.cuda_graph_strategy = self._library.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        return self._engine.create_execution_context(config)

    def _tensors(self, mode: Any) -> dict[str, tuple[tuple[int, ...], npt.DTypeLike]]:
        names = [
            self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)
        ]
        return {
            name: (
                tuple(self._context.get_tensor_shape(name)),
                self._library.nptype(self._engine.get_tensor_dtype(name)),
            )
            for name in names
            if self._engine.get_tensor_mode(name) == mode
        }

    def _allocate(
        self, tensors: Mapping[str, tuple[tuple[int, ...], npt.DTypeLike]]
    ) -> tuple[dict[str, npt.NDArray[Any]], tuple[int, int, int]]:
        """Lay tensors into one pinned and one device block; bind them and return the views."""
        places, total = lay_out(tensors)
        device = call(self._cuda.cudaMalloc, total)
        self._device.append(device)
        pinned = call(self._cuda.cudaMallocHost, total)
        self._pinned.append(pinned)
        import ctypes

        block = np.ctypeslib.as_array((ctypes.c_uint8 * total).from_address(int(pinned)))
        views = {}
        for name, (shape, kind) in tensors.items():
            length = int(np.prod(shape)) * np.dtype(kind).itemsize
            part = block[places[name] : places[name] + length]
            views[name] = part.view(kind).reshape(shape)
            self._context.set_tensor_address(name, int(device) + places[name])
        return views, (int(device), int(pinned), total)

    def run(self, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """
        Return the engine's outputs by name, as the caller's own arrays.

        Raises
        ------
        InferenceError
            If CUDA or the engine fails.

        """
        if self._context is None:
            msg = 'the engine is closed; open it again'
            raise InferenceError(msg)
        for name, values in inputs.items():
            self._inputs[name][...] = values
        if self._graph is not None:
            call(self._cuda.cudaGraphLaunch, self._graph, self._stream)
        else:
            self._enqueue()
        call(self._cuda.cudaStreamSynchronize, self._stream)
        maps = {name: values.copy() for name, values in self._outputs.items()}
        if self._to_capture:
            # Not before: in its first frame a context allocates, which no capture may meet.
            self._to_capture = False
            self._graph = self._capture()
        return maps

    def _enqueue(self) -> None:
        kinds = self._cuda.cudaMemcpyKind
        copy, stream = self._cuda.cudaMemcpyAsync, self._stream
        device, pinned, length = self._input_block
        call(copy, device, pinned, length, kinds.cudaMemcpyHostToDevice, stream)
        if not self._context.execute_async_v3(int(stream)):
            msg = f'{self._library.__name__} could not run the frame'
            raise InferenceError(msg)
        device, pinned, length = self._output_block
        call(copy, pinned, device, length, kinds.cudaMemcpyDeviceToHost, stream)

    def _capture(self) -> Any:
        """Return a frame, both copies included, as a CUDA graph; None if it cannot be one."""
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        call(self._cuda.cudaStreamBeginCapture, self._stream, mode)
        try:
            self._enqueue()
            captured = True
        except InferenceError:
            captured = False  # an engine may do what no capture allows; it runs without
        # Also then: a stream that captures can do nothing else.
        status, graph = self._cuda.cudaStreamEndCapture(self._stream)
        if int(status) != 0:
            return None
        try:
            return call(self._cuda.cudaGraphInstantiate, graph, 0) if captured else None
        finally:
            self._cuda.cudaGraphDestroy(graph)

    def close(self) -> None:
        """Free engine, context, stream and memory; closing twice is fine."""
        # In this order: what was made from the other goes first.
        if self._graph is not None:
            self._cuda.cudaGraphExecDestroy(self._graph)
            self._graph = None
        self._context, self._engine, self._runtime = None, None, None
        if self._stream is not None:
            self._cuda.cudaStreamDestroy(self._stream)
            self._stream = None
        self._inputs, self._outputs = {}, {}
        for pointer in self._device:
            self._cuda.cudaFree(pointer)
        for pointer in self._pinned:
            self._cuda.cudaFreeHost(pointer)
        self._device, self._pinned = [], []


def lay_out(
    tensors: Mapping[str, tuple[tuple[int, ...], npt.DTypeLike]],
) -> tuple[dict[str, int], int]:
    """Return where each tensor begins in one block, aligned, and the block's size in bytes."""
    places, total = {}, 0
    for name, (shape, kind) in tensors.items():
        places[name] = total
        length = int(np.prod(shape)) * np.dtype(kind).itemsize
        total += -(-length // _ALIGNMENT) * _ALIGNMENT
    return places, total
