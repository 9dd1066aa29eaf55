# SPDX-License-Identifier: Apache-2.0
"""The engines agree with one another, and say what is wrong when they cannot run."""

from __future__ import annotations

import gc
from pathlib import Path
import shutil
from typing import Any

import cv2
from mtl_perception.camera import CameraModel
from mtl_perception.inference import Engine, InferenceError, open_engine, Perceiver
from mtl_perception.inference.cache import EngineCache
from mtl_perception.manifest import BundleError, load_manifest, save_manifest
from mtl_perception.values import Frame
import numpy as np
import pytest

pytest.importorskip('onnxruntime')


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Return a picture with soft and hard structure at several scales."""
    generator = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), np.float64)
    for cells in (3, 9, 27):
        coarse = generator.uniform(0, 255, (cells, cells, 3))
        interpolation = cv2.INTER_NEAREST if cells == 9 else cv2.INTER_CUBIC
        image += cv2.resize(coarse, (width, height), interpolation=interpolation) / 3
    return np.clip((image - 127) * 2 + 127, 0, 255).astype(np.uint8)


@pytest.fixture(scope='module')
def engines(small_bundle: Path) -> Any:
    """Yield both engines on one bundle."""
    with (
        open_engine(small_bundle, threads=1) as first,
        open_engine(small_bundle, 'torch', threads=1) as second,
    ):
        yield first, second


@pytest.mark.parametrize(
    'size', [(640, 480), (1280, 720), (480, 640), (333, 217), (128, 96), (90, 70), (600, 150)]
)
def test_engines_agree_on_a_camera_of_any_size(
    engines: tuple[Engine, Engine], size: tuple[int, int]
) -> None:
    width, height = size
    camera = CameraModel(width, height, 0.9 * width, 0.95 * width, width / 2, height / 2)
    frame = Frame(picture(width, height), 0, 'camera', camera)
    ours, reference = (Perceiver(engine).perceive(frame) for engine in engines)
    labels = reference.maps['semantic']
    assert len(np.unique(labels)) > 5  # or agreement would say little
    assert np.mean(ours.maps['semantic'] != labels) <= 1e-4
    np.testing.assert_allclose(
        ours.confidence['semantic'], reference.confidence['semantic'], atol=1e-4
    )
    depth = reference.maps['depth']
    assert depth.std() / depth.mean() > 0.05
    assert np.max(np.abs(ours.maps['depth'] / depth - 1.0)) <= 1e-3
    # In doubles, by the cross product: the arc cosine loses small angles.
    one, two = (maps.maps['normals'].astype(np.float64) for maps in (ours, reference))
    sine = np.linalg.norm(np.cross(one, two), axis=-1)
    angle = np.degrees(np.arctan2(sine, np.sum(one * two, axis=-1)))
    assert np.percentile(angle, 99) <= 0.1
    edges = [maps.maps['edges'].astype(int) for maps in (ours, reference)]
    assert np.abs(edges[0] - edges[1]).max() <= 1
    assert np.ptp(edges[0]) > 100


def test_batch_is_frame_by_frame(engines: tuple[Engine, Engine]) -> None:
    images = np.stack([picture(128, 96, seed) for seed in range(3)])
    scale = np.array([0.5, 1.0, 1.5], np.float32)
    for engine in engines:
        together = engine.run(images, scale)
        assert tuple(together) == engine.manifest.output_names
        for index in range(3):
            alone = engine.run(images[index : index + 1], scale[index : index + 1])
            np.testing.assert_allclose(together['depth'][index], alone['depth'][0], rtol=1e-3)
            assert np.mean(together['semantic'][index] != alone['semantic'][0]) < 1e-3


def test_maps_of_one_frame_survive_the_next(engines: tuple[Engine, Engine]) -> None:
    scale = np.ones(1, np.float32)
    for engine in engines:
        first = engine.run(picture(128, 96, 1)[None], scale)
        kept = {name: values.copy() for name, values in first.items()}
        engine.run(picture(128, 96, 2)[None], scale)
        for name, values in kept.items():
            np.testing.assert_array_equal(first[name], values)


@pytest.mark.parametrize('name', ['onnxruntime', 'torch', 'openvino'])
def test_maps_outlive_their_engine(small_bundle: Path, tmp_path: Path, name: str) -> None:
    """The node exchanges engines while the last frame of the old one is still being finished."""
    pytest.importorskip(name)
    scale = np.ones(1, np.float32)
    cache = EngineCache(tmp_path / 'engines')
    engine = open_engine(small_bundle, name, threads=1, cache=cache)
    maps = engine.run(picture(128, 96, 1)[None], scale)
    kept = {key: values.copy() for key, values in maps.items()}
    engine.close()
    del engine
    gc.collect()
    # Whoever got the memory back hands it out again here.
    filled = [np.full(values.shape, 7, values.dtype) for values in maps.values() for _ in '1234']
    for key, values in kept.items():
        np.testing.assert_array_equal(maps[key], values)
    assert len(filled) == 4 * len(maps)


@pytest.mark.parametrize('name', ['onnxruntime', 'torch'])
@pytest.mark.parametrize(
    ('image', 'scale', 'message'),
    [
        (np.zeros((96, 128, 3), np.uint8), np.ones(1, np.float32), 'image is uint8'),
        (np.zeros((1, 96, 120, 3), np.uint8), np.ones(1, np.float32), r'\(1, 96, 120, 3\)'),
        (np.zeros((1, 96, 128, 3), np.float32), np.ones(1, np.float32), 'image is float32'),
        (np.zeros((2, 96, 128, 3), np.uint8), np.ones(1, np.float32), 'one per image'),
        (np.zeros((1, 96, 128, 3), np.uint8), np.ones(1), 'depth_scale is float64'),
    ],
)
def test_inputs_that_do_not_fit_are_refused(
    engines: tuple[Engine, Engine], name: str, image: Any, scale: Any, message: str
) -> None:
    engine = next(engine for engine in engines if engine.name == name)
    with pytest.raises(InferenceError, match=message):
        engine.run(image, scale)


@pytest.mark.parametrize('name', ['onnxruntime', 'torch'])
def test_closed_engine_says_so(small_bundle: Path, name: str) -> None:
    with open_engine(small_bundle, name) as engine:
        pass
    with pytest.raises(InferenceError, match='closed'):
        engine.run(np.zeros((1, 96, 128, 3), np.uint8), np.ones(1, np.float32))


def test_unknown_engine_and_senseless_threads(small_bundle: Path) -> None:
    with pytest.raises(InferenceError, match=r"'tensorflow' is unknown.*auto, onnxruntime"):
        open_engine(small_bundle, 'tensorflow')
    with pytest.raises(InferenceError, match='threads is 0'):
        open_engine(small_bundle, threads=0)


@pytest.mark.parametrize(
    ('engine', 'module'), [('onnxruntime', 'onnxruntime'), ('torch', 'torch')]
)
def test_missing_library_is_named(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch, engine: str, module: str
) -> None:
    monkeypatch.setitem(__import__('sys').modules, module, None)
    with pytest.raises(InferenceError, match=f'pip install {module}'):
        open_engine(small_bundle, engine)


@pytest.mark.parametrize('name', ['onnxruntime', 'torch'])
@pytest.mark.parametrize('file', ['weights.safetensors', 'graph.onnx', 'bundle.json'])
def test_damaged_bundle_is_refused_by_every_engine_that_reads_it(
    small_bundle: Path, tmp_path: Path, name: str, file: str
) -> None:
    copied = shutil.copytree(small_bundle, tmp_path / 'copied')
    content = (copied / file).read_bytes()
    (copied / file).write_bytes(content[: len(content) // 2])
    if (name, file) == ('torch', 'graph.onnx'):
        open_engine(copied, name).close()  # it has no use for that file
        return
    with pytest.raises(BundleError, match=file.replace('.', r'\.')):
        open_engine(copied, name)
    (copied / file).unlink()
    with pytest.raises(BundleError, match=file.replace('.', r'\.')):
        open_engine(copied, name)


def test_graph_that_onnxruntime_cannot_read_is_named(small_bundle: Path, tmp_path: Path) -> None:
    import dataclasses
    import hashlib

    copied = shutil.copytree(small_bundle, tmp_path / 'copied')
    (copied / 'graph.onnx').write_bytes(b'not a graph')
    manifest = load_manifest(copied)
    digest = hashlib.sha256(b'not a graph').hexdigest()
    changed = dataclasses.replace(manifest, files={**manifest.files, 'graph.onnx': digest})
    save_manifest(changed, copied)
    with pytest.raises(BundleError, match=r'graph\.onnx: ONNX Runtime .* refuses the graph'):
        open_engine(copied)
