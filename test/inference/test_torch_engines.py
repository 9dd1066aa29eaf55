# SPDX-License-Identifier: Apache-2.0
"""PyTorch's engines: half precision, compiled ahead of time, and what a GPU would be given."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mtl_perception.inference import InferenceError, open_engine
from mtl_perception.inference.cache import EngineCache
from mtl_perception.inference.device import nvidia_gpu_present
from mtl_perception.inference.verification import measure_engine
import numpy as np
import pytest

torch = pytest.importorskip('torch')

from mtl_perception.inference.device_frames import DeviceFrames  # noqa: E402
from mtl_perception.inference.torch_compiled_engine import TorchCompiledEngine  # noqa: E402
from mtl_perception.inference.torch_engine import TorchEngine, TorchGraphEngine  # noqa: E402

without_gpu = pytest.mark.skipif(nvidia_gpu_present(), reason='says what happens without a GPU')
CPU = torch.device('cpu')


def arithmetic(image: Any, depth_scale: Any) -> tuple[Any, ...]:
    """Compute maps of three types and shapes that numpy can check."""
    values = image.float()
    return (
        255 - image[..., 0],
        values.sum(-1) * depth_scale.view(-1, 1, 1),
        values.permute(0, 3, 1, 2) / depth_scale.view(-1, 1, 1, 1),
    )


def images(batch: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    # Odd sizes: what lies in one block must still be aligned for its type.
    image = generator.integers(0, 256, (batch, 5, 7, 3), dtype=np.uint8)
    return image, generator.uniform(0.5, 2.0, batch).astype(np.float32)


def test_a_frame_goes_through_blocks_of_memory_unharmed() -> None:
    frames = DeviceFrames(arithmetic, ('labels', 'sum', 'planes'), CPU)
    kept = []
    for number, batch in enumerate((1, 3, 1, 3, 3)):
        image, scale = images(batch, number)
        maps = frames.run(image, scale)
        kept.append((image, scale, maps))
    # All at the end: a later frame, of this size or another, must not reach into earlier maps.
    for image, scale, maps in kept:
        assert list(maps) == ['labels', 'sum', 'planes']
        assert maps['labels'].dtype == np.uint8
        np.testing.assert_array_equal(maps['labels'], 255 - image[..., 0])
        total = image.astype(np.float32).sum(-1) * scale[:, None, None]
        np.testing.assert_allclose(maps['sum'], total, rtol=1e-6)
        planes = np.moveaxis(image.astype(np.float32), -1, 1) / scale[:, None, None, None]
        np.testing.assert_allclose(maps['planes'], planes, rtol=1e-6)


def test_what_the_device_cannot_do_is_an_error_of_ours() -> None:
    def exhausted(image: Any, depth_scale: Any) -> tuple[Any, ...]:
        raise torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB')

    frames = DeviceFrames(exhausted, ('depth',), CPU)
    with pytest.raises(InferenceError, match=r'cpu failed: CUDA out of memory\. Tried'):
        frames.run(*images(1, 0))


@pytest.mark.parametrize('precision', ['fp16', 'bf16'])
def test_half_precision_is_half_and_no_worse_than_that(
    small_bundle: Path, precision: str
) -> None:
    with TorchEngine(small_bundle, threads=1, precision=precision) as engine:
        errors = measure_engine(engine, small_bundle)
        maps = engine.run(np.zeros((1, 96, 128, 3), np.uint8), np.ones(1, np.float32))
    # Eleven and eight bits of mantissa: the error of one rounding, grown by forty layers.
    rounding = {'fp16': 2.0**-11, 'bf16': 2.0**-8}[precision]
    assert rounding / 10 < errors['depth'] < 100 * rounding
    # Decoding is not in half precision: unit length is exact to float32.
    length = np.linalg.norm(maps['normals'].astype(np.float64), axis=-1)
    np.testing.assert_allclose(length, 1.0, atol=1e-6)
    assert maps['depth'].dtype == np.float32


def test_half_precision_is_checked_before_it_serves(small_bundle: Path) -> None:
    said: list[str] = []
    # Random weights on noise: bf16 turns the normals by more than it may.
    with pytest.raises(InferenceError, match=r'torch in bf16 differs .*normals is'):
        open_engine(small_bundle, 'torch', precision='bf16', threads=1, say=said.append)
    assert 'torch in bf16 against the fp32 reference: semantic' in said[0]


def test_threads_left_open_are_the_cores_of_this_process(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr('os.sched_getaffinity', lambda process: {0, 3, 5})
    try:
        TorchEngine(small_bundle).close()
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_neither_engine_computes_in_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def run(image: Any, depth_scale: Any) -> dict[str, Any]:
        seen.append(torch.backends.cudnn.allow_tf32)
        return {}

    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', True)
    for kind in (TorchEngine, TorchCompiledEngine):
        engine: Any = kind.__new__(kind)
        engine.manifest = SimpleNamespace(network_size=(5, 7))
        engine._graph, engine._precision, engine._device = object(), 'fp32', CPU
        engine._run, engine._frames = run, SimpleNamespace(run=run)
        engine.run(*images(1, 0))
    assert seen == [False, False]
    assert torch.backends.cudnn.allow_tf32


@without_gpu
def test_cuda_graphs_need_a_gpu(small_bundle: Path) -> None:
    with pytest.raises(InferenceError, match='torch-graph needs an NVIDIA GPU'):
        open_engine(small_bundle, 'torch-graph')
    assert TorchGraphEngine.unavailable() == 'no NVIDIA GPU'


def test_without_a_compiler_the_remedy_is_named(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.delenv('CXX', raising=False)
    assert TorchCompiledEngine.unavailable() == 'there is no C++ compiler'
    with pytest.raises(InferenceError, match=r'sudo apt install g\+\+'):
        open_engine(small_bundle, 'torch-compiled', cache=EngineCache(tmp_path / 'cache'))


@pytest.fixture(scope='module')
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle that is compiled in seconds."""
    from mtl_perception.evaluation.sample_bundle import sample_bundle

    directory = tmp_path_factory.mktemp('tiny')
    return sample_bundle('multi_task', 'mobilenetv4_conv_small', (64, 64), directory)


@pytest.mark.slow
def test_compiled_is_eager_and_needs_no_compiler_to_run(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if TorchCompiledEngine.unavailable():
        pytest.skip(TorchCompiledEngine.unavailable())
    cache, said = EngineCache(tmp_path / 'engines'), []
    open_engine(
        tiny_bundle, 'torch-compiled', threads=1, cache=cache, say=said.append
    ).close()
    assert any('torch-compiled in fp32 against the fp32 reference' in line for line in said)
    (entry,) = cache.entries()
    report = entry.document['report']
    assert set(report['layers_by_precision']) >= {'float32', 'uint8'}
    assert not {'float16', 'bfloat16'} & set(report['layers_by_precision'])
    monkeypatch.setenv('PATH', str(tmp_path))
    generator = np.random.default_rng(5)
    pictures = generator.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    scale = np.array([0.5, 2.0], np.float32)
    with (
        open_engine(tiny_bundle, 'torch-compiled', threads=1, cache=cache, build=False) as ours,
        open_engine(tiny_bundle, 'torch', threads=1) as reference,
    ):
        maps, wanted = ours.run(pictures, scale), reference.run(pictures, scale)
        kept = {name: values.copy() for name, values in maps.items()}
        ours.run(255 - pictures, scale)
    assert list(maps) == list(wanted)
    for name, values in maps.items():
        assert values.dtype == wanted[name].dtype
        np.testing.assert_array_equal(values, kept[name])
        if values.dtype == np.uint8:
            different = np.abs(values.astype(int) - wanted[name].astype(int))
            # One level of an edge; labels differ only where two classes are nearly equal.
            assert np.mean(different > (name == 'edges')) < 1e-3
        else:
            np.testing.assert_allclose(values, wanted[name], rtol=1e-3, atol=1e-3)
    with pytest.raises(InferenceError, match='closed'):
        ours.run(pictures, scale)


def test_a_package_that_torch_cannot_load_is_named(small_bundle: Path) -> None:
    with pytest.raises(InferenceError, match=r'refuses the engine built for small.*--purge'):
        TorchCompiledEngine(small_bundle, b'not a package', 'fp32')


@pytest.mark.gpu
@pytest.mark.parametrize('precision', ['fp32', 'fp16'])
@pytest.mark.parametrize('engine', ['torch', 'torch-graph', 'torch-compiled'])
def test_on_a_gpu_each_is_the_reference_within_its_precision(
    small_bundle: Path, engine: str, precision: str
) -> None:
    # Opening compares with the stored maps of the fp32 reference.
    if (engine, precision) == ('torch-compiled', 'fp16'):
        pytest.skip('torch-compiled computes in fp32')
    with open_engine(small_bundle, engine, precision=precision) as opened:
        first = opened.run(np.zeros((1, 96, 128, 3), np.uint8), np.ones(1, np.float32))
        opened.run(np.full((1, 96, 128, 3), 200, np.uint8), np.ones(1, np.float32))
        again = opened.run(np.zeros((1, 96, 128, 3), np.uint8), np.ones(1, np.float32))
    for name, values in first.items():
        np.testing.assert_array_equal(values, again[name])
