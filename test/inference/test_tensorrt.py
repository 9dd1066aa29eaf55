# SPDX-License-Identifier: Apache-2.0
"""TensorRT as far as it goes without a GPU: real builds, real refusals, and the fallback."""

from __future__ import annotations

import json
from pathlib import Path
import re
import shutil
import subprocess
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

from mtl_perception.inference import choose_engine, InferenceError, open_engine
from mtl_perception.inference.cache import EngineCache, Entry
from mtl_perception.inference.compile_command import main
from mtl_perception.inference.device import Device, nvidia_gpu_present
from mtl_perception.inference.engine import engine_class
from mtl_perception.inference.engine_key import EngineKey
from mtl_perception.inference.half_precision import load_graph
from mtl_perception.inference.tensorrt_runtime import call, lay_out, missing_for_gpu
from mtl_perception.manifest import load_manifest
import numpy as np
import pytest

without_gpu = pytest.mark.skipif(nvidia_gpu_present(), reason='says what happens without a GPU')


@pytest.fixture(scope='module')
def engines(small_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> EngineCache:
    """Build the small bundle for three GPU generations with the real library."""
    pytest.importorskip('tensorrt_rtx')
    directory = tmp_path_factory.mktemp('rtx') / 'engines'
    command = ['--model', str(small_bundle), '--engine', 'tensorrt-rtx', '--out', str(directory)]
    assert main([*command, '--target', 'sm86,sm89,sm120', '--precision', 'fp16']) == 0
    return EngineCache(directory)


@pytest.mark.slow
def test_the_real_builder_compiles_ahead_of_time_and_says_what_runs_in_what(
    engines: EngineCache, small_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (entry,) = engines.entries()
    key, report = entry.key, entry.document['report']
    assert key.device.name == 'any'
    assert key.device.capability == 'sm86,sm89,sm120'
    assert key.weights == load_manifest(small_bundle).files['weights.safetensors']
    assert set(key.libraries) == {'mtl_perception', 'tensorrt_rtx'}
    # The types of the library's own network definition, against those of the graph we gave it.
    model = load_graph(small_bundle, 'fp16')
    convolutions = sum(node.op_type == 'Conv' for node in model.graph.node)
    assert report['kinds_by_precision']['convolution'] == {'half': convolutions}
    assert report['kinds_by_precision']['softmax'] == {'float': 3}
    assert report['seconds'] > 0
    content = engines.content(entry)
    assert content is not None
    assert len(content) > 0.4 * (small_bundle / 'weights.safetensors').stat().st_size
    assert main(['--list', '--out', str(engines.directory)]) == 0
    printed = capsys.readouterr().out
    assert 'checked' in printed
    assert list(entry.directory.glob('verified-*')) == []
    assert '1 engines' in printed


@pytest.mark.slow
@without_gpu
def test_without_a_gpu_the_device_is_named_and_a_fallback_chosen(
    engines: EngineCache, small_bundle: Path
) -> None:
    pytest.importorskip('cuda.bindings')
    with pytest.raises(InferenceError, match=r'tensorrt-rtx needs an NVIDIA GPU.*cudaError'):
        open_engine(small_bundle, 'tensorrt-rtx', cache=engines)
    assert choose_engine().name not in ('tensorrt-rtx', 'tensorrt')
    # The real library, handed a real engine, where there is no device.
    from mtl_perception.inference.tensorrt_runtime import TensorRtRuntime
    import tensorrt_rtx

    (entry,) = engines.entries()
    content = engines.content(entry)
    assert content is not None
    with pytest.raises(InferenceError, match='refuses the engine on this device'):
        TensorRtRuntime(tensorrt_rtx, content, {'image': (1, 96, 128, 3), 'depth_scale': (1,)})


@without_gpu
def test_torch_tensorrt_without_a_gpu_is_an_error_that_names_it(small_bundle: Path) -> None:
    pytest.importorskip('torch')
    code = (
        'import sys\nfrom mtl_perception.inference import InferenceError, open_engine\n'
        'try:\n    open_engine(sys.argv[1], "tensorrt")\n'
        'except InferenceError as error:\n    print(error)'
    )
    # Apart: torch_tensorrt leaves a half import behind when it fails.
    result = subprocess.run(
        [sys.executable, '-c', code, small_bundle], capture_output=True, text=True, timeout=240,
        check=True,
    )  # fmt: skip
    assert 'the engine tensorrt' in result.stdout
    assert 'NVIDIA' in result.stdout or 'pip install torch-tensorrt' in result.stdout


def test_the_runtime_has_every_call_that_is_made_on_it() -> None:
    trt = pytest.importorskip('tensorrt_rtx')
    runtime = pytest.importorskip('cuda.bindings.runtime')
    for owner, names in (
        (trt.Runtime, ('deserialize_cuda_engine',)),
        (
            trt.ICudaEngine,
            (
                'create_execution_context', 'create_runtime_config', 'get_tensor_name',
                'get_tensor_mode', 'get_tensor_dtype', 'num_io_tensors', 'num_layers',
            ),
        ),
        (
            trt.IExecutionContext,
            ('set_input_shape', 'get_tensor_shape', 'set_tensor_address', 'execute_async_v3'),
        ),
        (trt.IRuntimeConfig, ('cuda_graph_strategy',)),
        (trt.CudaGraphStrategy, ('WHOLE_GRAPH_CAPTURE',)),
        (trt, ('nptype', 'TensorIOMode')),
        (
            runtime,
            (
                'cudaGetDeviceCount', 'cudaGetDevice', 'cudaGetDeviceProperties', 'cudaMalloc',
                'cudaMallocHost', 'cudaMemcpyAsync', 'cudaStreamCreate', 'cudaFreeHost',
                'cudaStreamDestroy', 'cudaStreamSynchronize', 'cudaDriverGetVersion',
                'cudaFree', 'cudaMemcpyKind', 'cudaStreamBeginCapture', 'cudaStreamEndCapture',
                'cudaStreamCaptureMode', 'cudaGraphInstantiate', 'cudaGraphLaunch',
                'cudaGraphDestroy', 'cudaGraphExecDestroy',
            ),
        ),
    ):  # fmt: skip
        for name in names:
            assert hasattr(owner, name), f'{owner} has no {name}'
    properties = runtime.cudaDeviceProp()
    assert {'name', 'major', 'minor'} <= set(dir(properties))


@pytest.mark.gpu
@pytest.mark.parametrize(
    ('engine', 'precision'),
    [('tensorrt', 'fp32'), ('tensorrt-rtx', 'fp32'), ('tensorrt-rtx', 'fp16')],
)
def test_on_a_gpu_each_is_the_reference_within_its_precision(
    small_bundle: Path, tmp_path: Path, engine: str, precision: str
) -> None:
    if reason := engine_class(engine).unavailable():
        pytest.skip(reason)
    cache = EngineCache(tmp_path / 'engines')
    black, grey = (np.full((1, 96, 128, 3), value, np.uint8) for value in (0, 200))
    scale = np.ones(1, np.float32)
    # Opening compares with the stored maps of the fp32 reference.
    with open_engine(small_bundle, engine, precision=precision, cache=cache) as opened:
        first = opened.run(black, scale)
        opened.run(grey, scale)
        again = opened.run(black, scale)
    for name, values in first.items():
        np.testing.assert_array_equal(values, again[name])


def test_tensors_of_one_block_do_not_overlap() -> None:
    tensors: dict[str, Any] = {
        'labels': ((1, 7, 9), np.uint8), 'depth': ((1, 7, 9), np.float32), 'one': ((1,), np.int32),
    }  # fmt: skip
    places, total = lay_out(tensors)
    assert places == {'labels': 0, 'depth': 256, 'one': 512}
    assert total == 768


def test_an_error_of_cuda_is_named() -> None:
    import enum

    class Status(enum.IntEnum):
        cudaSuccess = 0
        cudaErrorNoDevice = 100

    def count() -> tuple[Status, int]:
        return Status.cudaErrorNoDevice, 0

    with pytest.raises(InferenceError, match='CUDA: count failed with cudaErrorNoDevice'):
        call(count)
    assert call(lambda: (Status.cudaSuccess, 3)) == 3
    assert call(lambda: (Status.cudaSuccess, 3, 4)) == (3, 4)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing_for_gpu('no_such_library') == 'no_such_library is not installed'


def test_without_torch_the_engine_tensorrt_names_it(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, 'torch', None)
    with pytest.raises(InferenceError, match='pip install torch'):
        open_engine(small_bundle, 'tensorrt', cache=EngineCache(tmp_path / 'engines'))


@pytest.mark.parametrize(('rtx', 'capability', 'able'), [
    (True, 'sm90', False), (True, 'sm89', True), (False, 'sm90', True),
])  # fmt: skip
def test_torch_tensorrt_on_rtx_refuses_the_gpus_that_rtx_refuses(
    monkeypatch: pytest.MonkeyPatch, rtx: bool, capability: str, able: bool
) -> None:
    pytest.importorskip('tensorrt_rtx')
    from mtl_perception.inference import tensorrt_engine, tensorrt_rtx_engine

    for module in (tensorrt_engine, tensorrt_rtx_engine):
        monkeypatch.setattr(module, 'nvidia_gpu_present', lambda: True)
        monkeypatch.setattr(module, 'missing_for_gpu', lambda library: '')
        monkeypatch.setattr(module, 'gpu', lambda engine: Device('GPU', capability, '1.0'))
    monkeypatch.setattr(tensorrt_engine, '_builds_with_rtx', lambda: rtx)
    reason = tensorrt_engine.TensorRtEngine.unavailable()
    assert ('this GPU is sm90' in reason) is not able
    assert bool(reason) is not able


@pytest.mark.parametrize(('engine', 'report'), [
    (SimpleNamespace(num_layers=17), {'layers': 17}), (None, {}),
])  # fmt: skip
def test_layers_are_counted_in_the_engine_itself(
    monkeypatch: pytest.MonkeyPatch, engine: Any, report: dict[str, int]
) -> None:
    from mtl_perception.inference import tensorrt_engine

    class Logger:
        ERROR = 2

        def __init__(self, severity: int) -> None:
            assert severity == 2

    def deserialise(content: bytes) -> Any:
        assert content == b'engine'
        return engine

    library = SimpleNamespace(
        Logger=Logger,
        Runtime=lambda logger: SimpleNamespace(deserialize_cuda_engine=deserialise),
    )
    monkeypatch.setattr(tensorrt_engine, '_runtime_library', lambda: library)
    assert tensorrt_engine._layers(b'engine') == report


@pytest.mark.parametrize(('rtx', 'name'), [(True, 'tensorrt_rtx'), (False, 'tensorrt')])
def test_an_engine_is_run_by_the_tensorrt_that_built_it(
    monkeypatch: pytest.MonkeyPatch, rtx: bool, name: str
) -> None:
    from mtl_perception.inference import tensorrt_engine

    # Both are installed here.
    for module in ('tensorrt', 'tensorrt_rtx'):
        monkeypatch.setitem(sys.modules, module, ModuleType(module))
    monkeypatch.setattr(tensorrt_engine, '_library', lambda: None)
    monkeypatch.setattr(tensorrt_engine, '_builds_with_rtx', lambda: rtx)
    assert tensorrt_engine._runtime_library().__name__ == name


def test_the_torch_path_gives_integers_where_the_graph_gives_bytes(small_bundle: Path) -> None:
    torch = pytest.importorskip('torch')
    from mtl_perception.bundle import load_network
    from mtl_perception.graph import PerceptionGraph
    from mtl_perception.inference.tensorrt_engine import export_with_integers
    from safetensors.torch import load_file

    network, manifest = load_network(small_bundle)
    check = load_file(small_bundle / 'check.safetensors')
    inputs = (check['input.image'], check['input.depth_scale'])
    program = export_with_integers(PerceptionGraph(network, manifest).eval(), inputs)
    with torch.no_grad():
        maps = dict(zip(manifest.output_names, program.module()(*inputs)))
    for name, values in maps.items():
        wanted = check[f'output.{name}']
        assert values.dtype == (torch.int32 if wanted.dtype == torch.uint8 else wanted.dtype)
        difference = (values.double() - wanted.double()).abs()
        assert (difference > 1e-3 * wanted.double().abs().max() + 1e-9).double().mean() < 1e-3


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--engine', 'openvino', '--target', 'sm89'], '--target goes with --engine tensorrt-rtx'),
        (['--engine', 'openvino', '--batch', '1:4'], '--batch goes with --engine tensorrt-rtx'),
        (['--engine', 'tensorrt-rtx', '--target', 'ampere'], "'ampere' is not a compute capab"),
        (['--size', '480'], "'480' is not a size such as 640x480"),
        (['--engine', 'tensorrt-rtx', '--batch', '4:1'], "'4:1' is not a range of batches"),
        (['--engine', 'tensorrt-rtx', '--batch', '2:4'], "'2:4' leaves out single frames"),
        (['--engine', 'tensorrt-rtx', '--batch', '4'], "'4' leaves out single frames"),
        (['--engine', 'onnxruntime'], 'invalid choice'),
    ],
)
def test_wrong_usage_is_explained(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_code:
        main(arguments)
    assert exit_code.value.code == 2
    assert message in capsys.readouterr().err


def test_a_target_that_the_library_does_not_know_is_refused(
    small_bundle: Path, tmp_path: Path
) -> None:
    pytest.importorskip('tensorrt_rtx')
    with pytest.raises(InferenceError, match=r'target sm90 is unknown.*sm86'):
        main([
            '--model', str(small_bundle), '--engine', 'tensorrt-rtx', '--target', 'sm90',
            '--out', str(tmp_path / 'engines'),
        ])  # fmt: skip


def test_another_size_makes_a_bundle_of_that_size_with_the_same_weights(
    small_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip('openvino')
    pytest.importorskip('torch')
    out = tmp_path / 'made' / 'engines'
    command = ['--model', str(small_bundle), '--engine', 'openvino', '--out', str(out)]
    assert main([*command, '--size', '64x96']) == 0
    resized = load_manifest(out.parent / 'bundles' / 'small_64x96')
    original = load_manifest(small_bundle)
    assert resized.network_size == (64, 96)
    assert resized.files['weights.safetensors'] == original.files['weights.safetensors']
    assert resized.files['graph.onnx'] != original.files['graph.onnx']
    (entry,) = EngineCache(out).entries()
    assert entry.key.network_size == (64, 96)
    printed = capsys.readouterr().out
    assert 'against the fp32 reference' in printed
    assert 'checked on' in printed
    assert main(['--purge', '--out', str(out)]) == 0
    assert '1 engines deleted' in capsys.readouterr().out


def test_an_engine_copied_to_another_cache_is_found_there(
    engines: EngineCache, tmp_path: Path
) -> None:
    copied = shutil.copytree(engines.directory, tmp_path / 'robot')
    (entry,) = EngineCache(copied).entries()
    assert json.dumps(dict(entry.key.libraries))
    assert EngineCache(copied).content(entry) == engines.content(engines.entries()[0])


@pytest.mark.slow
@without_gpu
def test_on_a_device_compile_checks_and_times(
    small_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip('tensorrt_rtx')
    onnxruntime = pytest.importorskip('onnxruntime')
    from mtl_perception.inference import tensorrt_rtx_engine

    command = [
        '--model', str(small_bundle), '--engine', 'tensorrt-rtx', '--precision', 'fp32',
        '--out', str(tmp_path / 'engines'),
    ]  # fmt: skip
    with pytest.raises(InferenceError, match='tensorrt-rtx needs an NVIDIA GPU'):
        main(command)
    frames = []

    class Runtime:
        """Stands in for the device: runs the same graph on the processor."""

        def __init__(self, library: Any, content: bytes, shapes: Any) -> None:
            assert len(content) > 10**6
            path = str(small_bundle / 'graph.onnx')
            self._session = onnxruntime.InferenceSession(path)

        def run(self, inputs: dict[str, Any]) -> dict[str, Any]:
            frames.append(inputs)
            names = [one.name for one in self._session.get_outputs()]
            return dict(zip(names, self._session.run(names, inputs)))

        def close(self) -> None:
            frames.append('closed')

    monkeypatch.setattr(tensorrt_rtx_engine, 'gpu', lambda engine: Device('RTX', 'sm89', '1.0'))
    monkeypatch.setattr(tensorrt_rtx_engine, 'TensorRtRuntime', Runtime)
    assert main(command) == 0
    said = ' '.join(capsys.readouterr().out.split())
    assert 'tensorrt-rtx in fp32 against the fp32 reference: semantic 0.00% other labels' in said
    assert re.search(r'checked on RTX, sm89, 1\.0: \d+\.\d ms a frame', said)
    # One frame to check, three to warm up, twenty to time, and the device is given back.
    assert len(frames) == 25
    assert frames[-1] == 'closed'
    assert frames[0]['image'].shape == (1, 96, 128, 3)
    # With that one in the cache, another range of batches is built, checked and timed itself.
    ran: list[EngineKey] = []
    content = EngineCache.content

    def note(cache: EngineCache, entry: Entry) -> bytes | None:
        ran.append(entry.key)
        return content(cache, entry)

    monkeypatch.setattr(EngineCache, 'content', note)
    assert main([*command, '--batch', '1:4']) == 0
    assert [key.batch for key in ran] == [(1, 4)]
    assert len(EngineCache(tmp_path / 'engines').entries()) == 2
