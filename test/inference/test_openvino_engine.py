# SPDX-License-Identifier: Apache-2.0
"""OpenVINO gives the maps of PyTorch, and `auto` says what it takes and why."""

from __future__ import annotations

from pathlib import Path
import shutil
import sys
from typing import Any

from mtl_perception.inference import choose_engine, InferenceError, open_engine
from mtl_perception.inference import engine as engine_module
from mtl_perception.inference.cache import EngineCache
from mtl_perception.inference.device import processor
from mtl_perception.inference.openvino_engine import OpenVinoEngine
import numpy as np
import pytest


@pytest.fixture(scope='module')
def cache(tmp_path_factory: pytest.TempPathFactory) -> EngineCache:
    """Return a cache that the tests of this module share."""
    return EngineCache(tmp_path_factory.mktemp('openvino_cache'))


@pytest.fixture(scope='module')
def images() -> np.ndarray:
    """Return pictures with soft structure, as a camera sees it."""
    import cv2

    generator = np.random.default_rng(3)
    return np.stack([
        cv2.resize(generator.integers(0, 256, (9, 12, 3), dtype=np.uint8), (128, 96))
        for _ in range(3)
    ])


def test_openvino_is_pytorch_within_the_tolerance_of_fp32(
    small_bundle: Path, cache: EngineCache, images: np.ndarray
) -> None:
    pytest.importorskip('openvino')
    scale = np.array([0.5, 1.0, 1.5], np.float32)
    with (
        open_engine(small_bundle, 'openvino', threads=1, cache=cache) as ours,
        open_engine(small_bundle, 'torch', threads=1) as reference,
    ):
        assert ours.name == 'openvino'
        for batch in (1, 3):
            maps = ours.run(images[:batch], scale[:batch])
            wanted = reference.run(images[:batch], scale[:batch])
            assert list(maps) == list(wanted)
            for name in maps:
                assert maps[name].shape == wanted[name].shape
                assert maps[name].dtype == wanted[name].dtype
            assert np.mean(maps['semantic'] != wanted['semantic']) <= 1e-4
            np.testing.assert_allclose(maps['depth'], wanted['depth'], rtol=1e-3)
            np.testing.assert_allclose(maps['normals'], wanted['normals'], atol=2e-3)
            edges = [one['edges'].astype(int) for one in (maps, wanted)]
            assert np.abs(edges[0] - edges[1]).max() <= 1
        kept = {name: values.copy() for name, values in maps.items()}
        ours.run(255 - images, scale)
        for name, values in kept.items():
            np.testing.assert_array_equal(maps[name], values)
    with pytest.raises(InferenceError, match='closed'):
        ours.run(images[:1], scale[:1])


def test_the_sidecar_says_what_really_ran_in_which_precision(
    small_bundle: Path, cache: EngineCache, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip('openvino')
    open_engine(small_bundle, 'openvino', cache=cache).close()
    (entry,) = (e for e in cache.entries() if e.key.precision == 'fp32')
    layers = entry.document['report']['layers_by_precision']
    assert layers['f32'] > 50
    assert 'bf16' not in layers
    assert 'f16' not in layers
    assert sum(layers.values()) == entry.document['report']['layers']


def test_a_graph_that_it_refuses_leaves_the_bundle_blameless(
    small_bundle: Path, tmp_path: Path
) -> None:
    pytest.importorskip('openvino')
    copied = shutil.copytree(small_bundle, tmp_path / 'copied')
    (copied / 'graph.onnx').write_bytes(b'not a graph')
    # Not a BundleError: ONNX Runtime may know an operator that OpenVINO does not, and serves.
    with pytest.raises(InferenceError, match=r'OpenVINO .* refuses the graph'):
        OpenVinoEngine.build(copied, 'fp32', (1, 1), processor())


def test_every_name_says_which_package_it_lacks(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, 'openvino', None)
    with pytest.raises(InferenceError, match='pip install openvino'):
        open_engine(small_bundle, 'openvino')


@pytest.mark.parametrize(
    ('engine', 'precision', 'message'),
    [
        ('onnxruntime', 'bf16', "onnxruntime does not compute in 'bf16'; it has fp32"),
        ('openvino', 'fp16', "openvino does not compute in 'fp16'; it has fp32, bf16"),
    ],
)
def test_a_precision_it_lacks_is_refused(
    small_bundle: Path, engine: str, precision: str, message: str
) -> None:
    with pytest.raises(InferenceError, match=message):
        open_engine(small_bundle, engine, precision=precision)


@pytest.mark.parametrize(
    ('gpu', 'absent', 'precision', 'name'),
    [
        (False, (), None, 'openvino'),
        (False, ('openvino',), None, 'onnxruntime'),
        (False, ('openvino', 'onnxruntime'), None, 'torch'),
        (False, (), 'bf16', 'openvino'),
        (False, (), 'fp16', 'torch'),  # OpenVINO and ONNX Runtime have none here
        (True, (), None, 'tensorrt-rtx'),
        (True, ('tensorrt-rtx',), None, 'tensorrt'),
        (True, ('tensorrt-rtx',), 'fp16', 'torch-graph'),
        (True, ('tensorrt-rtx', 'tensorrt'), None, 'torch-graph'),
        (True, ('tensorrt-rtx', 'tensorrt', 'torch-graph'), None, 'torch'),
        (True, ('tensorrt-rtx', 'tensorrt', 'torch-graph', 'torch'), None, 'openvino'),
    ],
)
def test_auto_takes_the_best_present_and_says_why(
    monkeypatch: pytest.MonkeyPatch,
    gpu: bool,
    absent: tuple[str, ...],
    precision: str | None,
    name: str,
) -> None:
    class Kind:
        def __init__(self, engine: str) -> None:
            self.engine = engine

            self.precisions = engine_class(engine).precisions

        def unavailable(self) -> str:
            return f'{self.engine} is lost' if self.engine in absent else ''

    engine_class = engine_module.engine_class
    monkeypatch.setattr(engine_module, 'engine_class', Kind)
    monkeypatch.setattr(engine_module, 'nvidia_gpu_present', lambda: gpu)
    choice = choose_engine(precision)
    assert choice.name == name
    assert choice.why.startswith(f'{name} is the first choice')
    for one in absent:
        assert f'{one} is lost' in choice.why
    assert ('no NVIDIA GPU' in choice.why) is not gpu
    if precision is not None:
        assert precision in engine_class(name).precisions


def test_auto_with_nothing_installed_names_what_it_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine_module, 'nvidia_gpu_present', lambda: False)
    for module in ('openvino', 'onnxruntime', 'torch'):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InferenceError, match=r'no engine can run.*openvino.*onnxruntime.*torch'):
        choose_engine()


def test_auto_opens_what_it_chose(
    small_bundle: Path, cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setitem(sys.modules, 'openvino', None)
    monkeypatch.setattr(engine_module, 'nvidia_gpu_present', lambda: False)
    engine: Any = open_engine(small_bundle, 'auto', cache=cache, say=said.append)
    engine.close()
    assert engine.name == 'onnxruntime'
    assert 'openvino is not installed' in said[0]
