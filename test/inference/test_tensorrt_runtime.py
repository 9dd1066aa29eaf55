# SPDX-License-Identifier: Apache-2.0
"""The TensorRT runtime on a CUDA and a library made of numpy: copies, ownership, freeing."""

from __future__ import annotations

from collections.abc import Callable
import ctypes
import enum
from types import SimpleNamespace
from typing import Any

from mtl_perception.inference import InferenceError, tensorrt_runtime
from mtl_perception.inference.tensorrt_runtime import TensorRtRuntime
import numpy as np
import pytest

SHAPES = {'image': (1, 5, 7, 3), 'depth_scale': (1,)}
# Odd sizes: what lies in one block must still be aligned for its type.
TENSORS: dict[str, tuple[tuple[int, ...], Any]] = {
    'image': (SHAPES['image'], np.uint8),
    'depth_scale': (SHAPES['depth_scale'], np.float32),
    'labels': ((1, 5, 7), np.uint8),
    'depth': ((1, 5, 7), np.float32),
}


class Status(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2


class FakeCuda:
    """
    Keeps two kinds of memory apart and notes every call.

    While a stream captures, copies are noted for the graph and not made; a launch makes them.
    """

    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice='H2D', cudaMemcpyDeviceToHost='D2H')
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal='thread')

    def __init__(self, fail: str = '') -> None:
        self.fail = fail
        self.diary: list[str] = []
        self.memory: dict[int, tuple[str, Any]] = {}
        self.live: set[str] = set()
        self.captured: list[Callable[[], None]] | None = None

    def do(self, work: Callable[[], None]) -> None:
        work() if self.captured is None else self.captured.append(work)

    def _make(self, where: str, size: int, function: str) -> tuple[Status, int]:
        if function == self.fail:
            return Status.cudaErrorMemoryAllocation, 0
        # The device's tensors must be found at the addresses that are bound, and nowhere else.
        block = (ctypes.c_uint8 * size)()
        address = ctypes.addressof(block)
        self.memory[address] = (where, block)
        return Status.cudaSuccess, address

    def cudaMalloc(self, size: int) -> tuple[Status, int]:
        return self._make('device', size, 'cudaMalloc')

    def cudaMallocHost(self, size: int) -> tuple[Status, int]:
        return self._make('pinned', size, 'cudaMallocHost')

    def _free(self, address: int, where: str) -> tuple[Status]:
        assert self.memory.pop(address)[0] == where
        return (Status.cudaSuccess,)

    def cudaFree(self, address: int) -> tuple[Status]:
        return self._free(address, 'device')

    def cudaFreeHost(self, address: int) -> tuple[Status]:
        return self._free(address, 'pinned')

    def cudaMemcpyAsync(
        self, to: int, source: int, size: int, kind: str, stream: int
    ) -> tuple[Status]:
        ends = self.memory[source][0], self.memory[to][0]
        assert ends == (('pinned', 'device') if kind == 'H2D' else ('device', 'pinned'))

        def copy() -> None:
            self.diary.append(kind)
            ctypes.memmove(to, source, size)

        self.do(copy)
        return (Status.cudaSuccess,)

    def cudaStreamCreate(self) -> tuple[Status, int]:
        self.live.add('stream')
        return Status.cudaSuccess, 77

    def cudaStreamDestroy(self, stream: int) -> tuple[Status]:
        self.live.remove('stream')
        return (Status.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Status]:
        assert self.captured is None
        self.diary.append('wait')
        return (Status.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream: int, mode: str) -> tuple[Status]:
        self.captured = []
        return (Status.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Status, Any]:
        graph, self.captured = self.captured, None
        self.live.add('graph')
        return Status.cudaSuccess, graph

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> tuple[Status, Any]:
        self.live.add('executable')
        return Status.cudaSuccess, graph

    def cudaGraphDestroy(self, graph: Any) -> tuple[Status]:
        self.live.remove('graph')
        return (Status.cudaSuccess,)

    def cudaGraphExecDestroy(self, graph: Any) -> tuple[Status]:
        self.live.remove('executable')
        return (Status.cudaSuccess,)

    def cudaGraphLaunch(self, graph: Any, stream: int) -> tuple[Status]:
        self.diary.append('launch')
        for work in graph:
            work()
        return (Status.cudaSuccess,)


class FakeContext:
    """Reads and writes at the addresses that were bound, as a kernel would."""

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda
        self.addresses: dict[str, int] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.broken = False

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> None:
        self.shapes[name] = shape

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shapes.get(name, TENSORS[name][0])

    def set_tensor_address(self, name: str, address: int) -> None:
        assert address % np.dtype(TENSORS[name][1]).itemsize == 0
        self.addresses[name] = address

    def tensor(self, name: str) -> np.ndarray:
        shape, kind = TENSORS[name]
        length = int(np.prod(shape)) * np.dtype(kind).itemsize
        block = (ctypes.c_uint8 * length).from_address(self.addresses[name])
        return np.frombuffer(block, kind).reshape(shape)

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == 77

        def compute() -> None:
            self.cuda.diary.append('run')
            image = self.tensor('image').astype(np.float32)
            self.tensor('labels')[...] = 255 - self.tensor('image')[..., 0]
            self.tensor('depth')[...] = image.sum(-1) * self.tensor('depth_scale')[0]

        self.cuda.do(compute)
        return not self.broken


class FakeLibrary:
    """TensorRT with one engine; with `strategy` it is TensorRT-RTX."""

    __name__ = 'tensorrt'
    __version__ = '10.0'
    TensorIOMode = SimpleNamespace(INPUT='in', OUTPUT='out')

    def __init__(self, cuda: FakeCuda, *, strategy: bool = False) -> None:
        self.context = FakeContext(cuda)
        names = list(TENSORS)
        self.engine = SimpleNamespace(
            create_execution_context=lambda *config: self.context,
            create_runtime_config=SimpleNamespace,
            num_io_tensors=len(names),
            get_tensor_name=lambda index: names[index],
            get_tensor_mode=lambda name: 'in' if name in SHAPES else 'out',
            get_tensor_dtype=lambda name: TENSORS[name][1],
        )
        self.Runtime = lambda logger: SimpleNamespace(
            deserialize_cuda_engine=lambda content: self.engine
        )
        if strategy:
            self.CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE='whole')

    class Logger:
        ERROR = 2

        def __init__(self, severity: int) -> None:
            pass

    @staticmethod
    def nptype(kind: Any) -> Any:
        return kind


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[TensorRtRuntime, Any, Any]]:
    """Return what makes a runtime on a fake CUDA and a fake library."""

    def run(fail: str = '', *, strategy: bool = False) -> tuple[TensorRtRuntime, Any, Any]:
        cuda = FakeCuda(fail)
        made.append(cuda)
        monkeypatch.setattr(tensorrt_runtime, 'cuda', lambda: cuda)
        library = FakeLibrary(cuda, strategy=strategy)
        return TensorRtRuntime(library, b'engine', SHAPES), cuda, library

    made: list[FakeCuda] = []
    run.made = made  # type: ignore[attr-defined]
    return run


def inputs(seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {
        'image': generator.integers(0, 256, SHAPES['image'], dtype=np.uint8),
        'depth_scale': generator.uniform(0.5, 2.0, 1).astype(np.float32),
    }


@pytest.mark.parametrize('strategy', [False, True])
def test_a_frame_takes_one_copy_there_and_one_back_and_is_the_callers(
    make: Callable[..., Any], strategy: bool
) -> None:
    runtime, cuda, _ = make(strategy=strategy)
    frames = []
    for seed in range(4):
        cuda.diary.clear()
        given = inputs(seed)
        frames.append((given, runtime.run(given)))
        kept = [word for word in cuda.diary if word != 'launch']
        assert kept == ['H2D', 'run', 'D2H', 'wait']
        # Plain TensorRT replays a graph from the second frame on; RTX does so by itself.
        assert ('launch' in cuda.diary) == (seed > 0 and not strategy)
    runtime.close()
    # After all of them and after the memory went: later frames do not reach into earlier maps.
    for given, maps in frames:
        assert list(maps) == ['labels', 'depth']
        np.testing.assert_array_equal(maps['labels'], 255 - given['image'][..., 0])
        total = given['image'].astype(np.float32).sum(-1) * given['depth_scale'][0]
        np.testing.assert_allclose(maps['depth'], total, rtol=1e-6)


@pytest.mark.parametrize('frames', [0, 1, 3])
def test_closing_frees_everything_and_twice_is_fine(
    make: Callable[..., Any], frames: int
) -> None:
    runtime, cuda, _ = make()
    assert sorted(where for where, _ in cuda.memory.values()) == ['device'] * 2 + ['pinned'] * 2
    for seed in range(frames):
        runtime.run(inputs(seed))
    for _ in range(2):
        runtime.close()
    assert cuda.memory == {}
    assert cuda.live == set()
    with pytest.raises(InferenceError, match='closed'):
        runtime.run(inputs(0))


@pytest.mark.parametrize('fail', ['cudaMalloc', 'cudaMallocHost'])
def test_what_was_allocated_is_freed_where_memory_runs_out(
    make: Callable[..., Any], fail: str
) -> None:
    with pytest.raises(InferenceError, match=f'{fail} failed with cudaErrorMemoryAllocation'):
        make(fail)
    (cuda,) = make.made  # type: ignore[attr-defined]
    assert cuda.memory == {}
    assert cuda.live == set()


def test_a_frame_that_fails_is_an_error(make: Callable[..., Any]) -> None:
    runtime, _, library = make()
    library.context.broken = True
    with pytest.raises(InferenceError, match='tensorrt could not run the frame'):
        runtime.run(inputs(0))
    library.context.broken = False
    runtime.run(inputs(0))


def test_an_engine_that_cannot_be_captured_runs_without(make: Callable[..., Any]) -> None:
    runtime, cuda, library = make()
    real = library.context.execute_async_v3
    library.context.execute_async_v3 = lambda stream: cuda.captured is None and real(stream)
    for seed in range(3):
        given = inputs(seed)
        maps = runtime.run(given)
        np.testing.assert_array_equal(maps['labels'], 255 - given['image'][..., 0])
    assert 'launch' not in cuda.diary
    runtime.close()
    assert cuda.live == set()
