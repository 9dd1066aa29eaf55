# SPDX-License-Identifier: Apache-2.0
"""Frames are served from the first moment, and the engines change between two of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import shutil
import sys
from threading import Event, Thread
import time

from mtl_perception.inference import InferenceError, open_engine
from mtl_perception.inference import serving as serving_module
from mtl_perception.inference.cache import EngineCache
from mtl_perception.inference.device import nvidia_gpu_present
from mtl_perception.inference.engine import EngineChoice
from mtl_perception.inference.serving import ServingEngine
from mtl_perception.manifest import BundleError, load_manifest
import numpy as np
import pytest

pytest.importorskip('onnxruntime')
SCALE = np.ones(1, np.float32)
IMAGE = np.random.default_rng(0).integers(0, 256, (1, 96, 128, 3), dtype=np.uint8)


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    """Return an empty cache."""
    return EngineCache(tmp_path / 'engines')


def wait_for(serving: ServingEngine, state: str, timeout_s: float = 120.0) -> None:
    """Wait until opening and building are over."""
    deadline = time.monotonic() + timeout_s
    while serving.status().state in ('opening', 'building'):
        assert time.monotonic() < deadline, serving.status()
        time.sleep(0.05)
    assert serving.status().state == state


class KnownEngine:
    """Gives its name for a map and keeps a diary."""

    def __init__(self, directory: Path, name: str, diary: list[str]) -> None:
        self.manifest, self.name, self._diary = load_manifest(directory), name, diary

    def run(self, image: object, depth_scale: object) -> dict[str, object]:
        self._diary.append(f'{self.name} runs')
        return {'name': self.name}

    def close(self) -> None:
        self._diary.append(f'{self.name} is closed')


def opening(
    monkeypatch: pytest.MonkeyPatch, open_openvino: Callable[..., object], diary: list[str]
) -> None:
    """Let `open_openvino` open that engine; all others are ready at once."""

    def open_engine(directory: Path, engine: str, **options: object) -> object:
        if engine == 'openvino':
            return open_openvino(directory, engine, **options)
        return KnownEngine(directory, engine, diary)

    monkeypatch.setattr(serving_module, 'open_engine', open_engine)


def test_a_plain_engine_serves_and_nothing_is_built(
    small_bundle: Path, cache: EngineCache
) -> None:
    with ServingEngine(small_bundle, 'onnxruntime', cache=cache) as serving:
        status = serving.status()
        assert (status.serving, status.wanted, status.state) == ('onnxruntime',) * 2 + ('ready',)
        with open_engine(small_bundle) as alone:
            wanted = alone.run(IMAGE, SCALE)
        for name, values in serving.run(IMAGE, SCALE).items():
            np.testing.assert_array_equal(values, wanted[name])
    assert not cache.directory.exists()


def test_who_asks_for_the_status_does_not_wait_for_the_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = Event(), Event()

    class SlowEngine:
        name = 'onnxruntime'

        def run(self, image: object, depth_scale: object) -> dict[str, object]:
            begun.set()
            assert go_on.wait(20)
            return {}

        def close(self) -> None:
            pass

    monkeypatch.setattr(serving_module, 'open_engine', lambda *_, **__: SlowEngine())
    with ServingEngine(tmp_path, 'onnxruntime') as serving:
        frame = Thread(target=serving.run, args=(IMAGE, SCALE))
        frame.start()
        assert begun.wait(20)
        asking = Thread(target=serving.status)
        asking.start()
        asking.join(5)
        waited = asking.is_alive()
        go_on.set()
        frame.join()
        asking.join()
    assert not waited


def test_frames_are_served_while_an_engine_is_opened_and_it_takes_over_warm(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diary: list[str] = []
    go_on = Event()

    def open_slowly(directory: Path, engine: str, **options: object) -> KnownEngine:
        assert go_on.wait(20)
        return KnownEngine(directory, engine, diary)

    opening(monkeypatch, open_slowly, diary)
    with ServingEngine(small_bundle, 'openvino') as serving:
        assert serving.run(IMAGE, SCALE) == {'name': 'onnxruntime'}
        assert serving.status().state == 'opening'
        go_on.set()
        wait_for(serving, 'ready')
        while 'onnxruntime is closed' not in diary:
            time.sleep(0.01)
        assert serving.run(IMAGE, SCALE) == {'name': 'openvino'}
    # It ran a frame of its own before it served one.
    assert diary == [
        'onnxruntime runs', 'openvino runs', 'onnxruntime is closed', 'openvino runs',
        'openvino is closed',
    ]  # fmt: skip


@pytest.mark.parametrize('build', ['background', 'blocking', 'never'])
@pytest.mark.parametrize(
    'error',
    [RuntimeError('CUDA out of memory'), TypeError('no such option'), OSError('libnvinfer.so')],
)
def test_whatever_a_library_raises_the_fallback_serves_and_the_log_warns(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, build: str
) -> None:
    said: list[str] = []
    warned: list[str] = []

    def fail(directory: Path, engine: str, **options: object) -> object:
        raise error

    opening(monkeypatch, fail, [])
    with ServingEngine(
        small_bundle, 'openvino', build=build, say=said.append, warn=warned.append
    ) as serving:
        wait_for(serving, 'failed')
        assert serving.run(IMAGE, SCALE) == {'name': 'onnxruntime'}
        reason = f'{type(error).__name__}: {error}'
        assert serving.status().why == reason
    assert warned == [f'onnxruntime serves instead of openvino: {reason}']
    assert said == []


def test_one_that_fails_on_its_first_frame_never_serves(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diary: list[str] = []

    class Broken(KnownEngine):
        def run(self, image: object, depth_scale: object) -> dict[str, object]:
            raise InferenceError('it could not run the frame')

    opening(monkeypatch, lambda directory, engine, **_: Broken(directory, engine, diary), diary)
    with ServingEngine(small_bundle, 'openvino', build='never', warn=diary.append) as serving:
        assert serving.run(IMAGE, SCALE) == {'name': 'onnxruntime'}
    assert diary[:2] == [
        'openvino is closed',
        'onnxruntime serves instead of openvino: it could not run the frame',
    ]


def test_auto_says_what_it_takes_even_where_that_is_built_first(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = EngineChoice('openvino', 'openvino is the first choice')
    monkeypatch.setattr(serving_module, 'choose_engine', lambda precision: choice)
    opening(monkeypatch, lambda directory, engine, **_: KnownEngine(directory, engine, []), [])
    said: list[str] = []
    with ServingEngine(small_bundle, 'auto', say=said.append) as serving:
        assert said[0] == 'engine auto: openvino is the first choice'
        wait_for(serving, 'ready')


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_is_no_reason_not_to_build(
    small_bundle: Path, tmp_path: Path
) -> None:
    pytest.importorskip('openvino')
    (tmp_path / 'file').write_text('in the way')
    cache = EngineCache(tmp_path / 'file' / 'engines')
    warned: list[str] = []
    with ServingEngine(small_bundle, 'openvino', cache=cache, warn=warned.append) as serving:
        wait_for(serving, 'ready')
        assert serving.name == 'openvino'
        assert serving.run(IMAGE, SCALE)['semantic'].shape == (1, 96, 128)
    assert len(warned) == 1
    assert 'cannot be written' in warned[0]
    assert 'built for this process only' in warned[0]


@pytest.mark.slow
def test_frames_go_on_while_it_is_built_and_after(small_bundle: Path, cache: EngineCache) -> None:
    pytest.importorskip('openvino')
    said: list[str] = []
    options = {'threads': 1, 'cache': cache, 'say': said.append}
    with ServingEngine(small_bundle, 'openvino', **options) as serving:  # type: ignore[arg-type]
        status = serving.status()
        assert status.serving == 'onnxruntime'
        assert status.state in ('opening', 'building')
        reference = serving.run(IMAGE, SCALE)
        ended, names, failures = Event(), [], []

        def frames() -> None:
            while not ended.is_set():
                try:
                    maps = serving.run(IMAGE, SCALE)
                    names.append(serving.name)
                    np.testing.assert_allclose(maps['depth'], reference['depth'], rtol=1e-3)
                except Exception as error:
                    failures.append(error)

        thread = Thread(target=frames)
        thread.start()
        wait_for(serving, 'ready')
        time.sleep(0.3)
        ended.set()
        thread.join()
        assert failures == []
        assert names[0] == 'onnxruntime'
        assert names[-1] == 'openvino'
        # Once exchanged, never back.
        assert names == sorted(names)
        status = serving.status()
        assert (status.serving, status.wanted) == ('openvino', 'openvino')
        assert status.elapsed_s > 0.5
        assert 'onnxruntime served until then' in status.why
    assert any('compile: openvino in fp32 against the fp32 reference' in line for line in said)
    # From now on it serves from the first frame.
    with ServingEngine(small_bundle, 'openvino', build='never', cache=cache) as serving:
        assert serving.status().serving == 'openvino'
        assert serving.status().state == 'ready'


@pytest.mark.slow
def test_an_engine_that_fails_its_check_leaves_the_fallback_serving(
    small_bundle: Path, cache: EngineCache
) -> None:
    pytest.importorskip('openvino')
    said: list[str] = []
    # Random weights on noise: bf16 turns the normals by more than it may.
    with ServingEngine(
        small_bundle, 'openvino', precision='bf16', cache=cache, say=said.append
    ) as serving:
        wait_for(serving, 'failed')
        status = serving.status()
        assert status.serving == 'onnxruntime'
        assert 'normals is' in status.why
        assert 'quarantine' in status.why
        assert serving.run(IMAGE, SCALE)['semantic'].shape == (1, 96, 128)
    assert any('onnxruntime serves instead of openvino' in line for line in said)
    # The next start does not try again, and says why.
    with ServingEngine(small_bundle, 'openvino', precision='bf16', cache=cache) as serving:
        wait_for(serving, 'failed')
        assert 'in quarantine' in serving.status().why


def test_never_leaves_the_fallback_and_says_how_to_build(
    small_bundle: Path, cache: EngineCache
) -> None:
    pytest.importorskip('openvino')
    with ServingEngine(small_bundle, 'openvino', build='never', cache=cache) as serving:
        status = serving.status()
    assert (status.serving, status.state) == ('onnxruntime', 'failed')
    assert f'compile --model {small_bundle} --engine openvino' in status.why


def test_a_missing_library_is_named_and_the_fallback_serves(
    small_bundle: Path, cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, 'openvino', None)
    with ServingEngine(small_bundle, 'openvino', cache=cache) as serving:
        wait_for(serving, 'failed')
        assert serving.status().serving == 'onnxruntime'
        assert 'pip install openvino' in serving.status().why


@pytest.mark.skipif(nvidia_gpu_present(), reason='says what happens without a GPU')
def test_without_a_gpu_the_fallback_serves(small_bundle: Path, cache: EngineCache) -> None:
    pytest.importorskip('tensorrt_rtx')
    pytest.importorskip('cuda.bindings')
    with ServingEngine(small_bundle, 'tensorrt-rtx', cache=cache) as serving:
        wait_for(serving, 'failed')
        status = serving.status()
        assert (status.serving, status.state) == ('onnxruntime', 'failed')
        assert 'tensorrt-rtx needs an NVIDIA GPU' in status.why
        serving.run(IMAGE, SCALE)


def test_a_build_that_dies_is_reported_with_what_it_said(
    small_bundle: Path, cache: EngineCache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip('openvino')
    script = tmp_path / 'python'
    script.write_text('#!/bin/sh\necho out of memory\nexit 9\n')
    script.chmod(0o755)
    monkeypatch.setattr(sys, 'executable', str(script))
    with ServingEngine(small_bundle, 'openvino', cache=cache) as serving:
        wait_for(serving, 'failed')
        assert serving.status().why == 'the build ended with code 9: out of memory'


def test_closing_ends_the_build(
    small_bundle: Path, cache: EngineCache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip('openvino')
    script = tmp_path / 'python'
    script.write_text('#!/bin/sh\nexec sleep 100\n')
    script.chmod(0o755)
    monkeypatch.setattr(sys, 'executable', str(script))
    serving = ServingEngine(small_bundle, 'openvino', cache=cache)
    started = time.monotonic()
    serving.close()
    assert time.monotonic() - started < 20


def test_a_damaged_bundle_is_no_case_for_a_fallback(small_bundle: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(small_bundle, tmp_path / 'copied')
    (copied / 'weights.safetensors').write_bytes(b'short')
    with pytest.raises(BundleError, match='weights'):
        ServingEngine(copied, 'openvino')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'engine': 'onnxruntime', 'build': 'later'}, "build is 'later'; use one of background"),
        ({'engine': 'none'}, "engine 'none' is unknown"),
        ({'engine': 'onnxruntime', 'precision': 'fp16'}, "does not compute in 'fp16'"),
    ],
)
def test_senseless_wishes_are_refused(
    small_bundle: Path, options: dict[str, str], message: str
) -> None:
    with pytest.raises(InferenceError, match=message):
        ServingEngine(small_bundle, **options)  # type: ignore[arg-type]
