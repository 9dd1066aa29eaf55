# SPDX-License-Identifier: Apache-2.0
"""Never a stale engine, never a crash: the cache of engines and what is opened from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
import errno
import hashlib
import json
import os
from pathlib import Path
import shutil
import subprocess
import sys
from typing import Any

from mtl_perception.inference import cache as cache_module
from mtl_perception.inference import engine as engine_module
from mtl_perception.inference.cache import (
    Built,
    CacheError,
    default_directory,
    EngineCache,
)
from mtl_perception.inference.compiled import (
    build_engine,
    EngineMismatchError,
    EngineMissingError,
)
from mtl_perception.inference.device import Device
from mtl_perception.inference.engine import InferenceError, open_engine
from mtl_perception.inference.engine_key import EngineKey
from mtl_perception.manifest import load_manifest, save_manifest
import numpy as np
import pytest

HERE = Device('GPU Alpha', 'sm89', '575.1')
KEY = EngineKey(
    weights='1' * 64,
    graph='2' * 64,
    network_size=(96, 128),
    batch=(1, 1),
    precision='fp16',
    engine='recorded',
    libraries={'mtl_perception': '0.1.0', 'library': '1.0'},
    device=HERE,
)


class RecordedEngine:
    """A compiled engine whose content is the maps of the check frame, moved by `SHIFT`."""

    name = 'recorded'
    precisions = ('fp32',)
    DEVICE = HERE
    VERSION = '1.0'
    BUILDS = 0
    SHIFT = 0.0

    @staticmethod
    def libraries() -> dict[str, str]:
        return {'library': RecordedEngine.VERSION}

    @staticmethod
    def device() -> Device:
        return RecordedEngine.DEVICE

    @staticmethod
    def build(directory: Path, *arguments: Any) -> Built:
        RecordedEngine.BUILDS += 1
        text = json.dumps([str(directory), RecordedEngine.SHIFT])
        return Built(text.encode(), {'layers': 7})

    def __init__(self, directory: Path, content: bytes, precision: str, threads: Any) -> None:
        self.manifest = load_manifest(directory)
        self.built_from, self.shift = json.loads(content)

    def run(self, image: np.ndarray, scale: np.ndarray) -> dict[str, np.ndarray]:
        from safetensors.numpy import load_file

        check = load_file(Path(self.built_from) / 'check.safetensors')
        maps = {name: check[f'output.{name}'] for name in self.manifest.output_names}
        maps['depth'] = maps['depth'] * np.float32(1 + self.shift)
        return maps

    def close(self) -> None:
        pass


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> type[RecordedEngine]:
    """Make `recorded` one of the compiled engines, and count from zero."""
    for name, value in (('DEVICE', HERE), ('VERSION', '1.0'), ('BUILDS', 0), ('SHIFT', 0.0)):
        monkeypatch.setattr(RecordedEngine, name, value)
    known = engine_module.engine_class

    def find(name: str) -> Any:
        return RecordedEngine if name == 'recorded' else known(name)

    monkeypatch.setattr(engine_module, 'engine_class', find)
    monkeypatch.setattr('mtl_perception.inference.compiled.engine_class', find)
    monkeypatch.setattr(engine_module, 'COMPILED_ENGINES', ('recorded',))
    return RecordedEngine


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    """Return an empty cache."""
    return EngineCache(tmp_path / 'engines')


@pytest.fixture
def open_recorded(
    small_bundle: Path, cache: EngineCache, recorded: type[RecordedEngine]
) -> Callable[..., list[str]]:
    """Return a function that opens the engine and returns what was said meanwhile."""

    def run(directory: Path = small_bundle, **options: Any) -> list[str]:
        said: list[str] = []
        options = {'cache': cache, **options}
        open_engine(directory, 'recorded', say=said.append, **options).close()
        return said

    return run


@pytest.mark.parametrize(
    'change',
    [
        {'weights': '3' * 64},
        {'graph': '3' * 64},
        {'network_size': (128, 96)},
        {'batch': (1, 4)},
        {'precision': 'fp32'},
        {'engine': 'other'},
        {'libraries': {'mtl_perception': '0.1.0', 'library': '1.1'}},
        {'libraries': {'mtl_perception': '0.2.0', 'library': '1.0'}},
        {'device': replace(HERE, name='GPU Beta')},
        {'device': replace(HERE, capability='sm86')},
        {'device': replace(HERE, driver='580.0')},
    ],
)
def test_each_part_of_the_key_counts(cache: EngineCache, change: dict[str, Any]) -> None:
    cache.store(KEY, Built(b'engine'), {})
    other = replace(KEY, **change)
    assert other.digest != KEY.digest
    found = cache.find(other)
    # A smaller range of batches may be served by a larger one, never the reverse.
    assert found is None
    hit = cache.find(KEY)
    assert hit is not None
    assert cache.content(hit) == b'engine'


def test_the_digest_is_the_sha256_of_the_key_in_the_sidecar(cache: EngineCache) -> None:
    entry = cache.store(KEY, Built(b'engine', {'layers': 3}), {'model': 'rooms'})
    document = json.loads((entry.directory / 'engine.json').read_text())
    text = json.dumps(document['key'], sort_keys=True, separators=(',', ':'))
    assert hashlib.sha256(text.encode()).hexdigest() == entry.directory.name == KEY.digest
    assert document['sha256'] == hashlib.sha256(b'engine').hexdigest()
    assert document['bytes'] == 6
    assert document['model'] == 'rooms'
    assert document['report'] == {'layers': 3}
    assert document['key']['device'] == asdict(HERE)
    assert EngineKey.from_json(document['key']) == KEY


def test_an_engine_built_ahead_of_time_serves_the_gpus_it_was_built_for(
    cache: EngineCache,
) -> None:
    ahead = replace(KEY, device=Device('any', 'sm86,sm89'), batch=(1, 4))
    cache.store(ahead, Built(b'ahead'), {})
    for capability, name in (('sm86', 'GPU Alpha'), ('sm89', 'GPU Beta')):
        entry = cache.find(replace(KEY, device=Device(name, capability, '575.1')))
        assert entry is not None
        assert entry.key == ahead
    for other in (
        replace(KEY, device=replace(HERE, capability='sm8')),
        replace(KEY, device=replace(HERE, capability='sm120')),
        replace(KEY, batch=(1, 5)),
        replace(KEY, libraries={'library': '2.0'}),
    ):
        assert cache.find(other) is None
    # One built on the device itself goes before it.
    cache.store(KEY, Built(b'here'), {})
    entry = cache.find(KEY)
    assert entry is not None
    assert cache.content(entry) == b'here'


@pytest.mark.parametrize('content', [b'', b'engi', b'enginf', None])
def test_a_truncated_or_changed_engine_is_deleted_not_used(
    cache: EngineCache, content: bytes | None
) -> None:
    entry = cache.store(KEY, Built(b'engine'), {})
    file = entry.directory / 'engine.bin'
    file.unlink() if content is None else file.write_bytes(content)
    assert cache.content(entry) is None
    assert cache.find(KEY) is None


@pytest.mark.parametrize('text', ['', '{', '[]', '{"key": 1}', '{"key": {"weights": 1}}'])
def test_a_damaged_sidecar_is_no_entry(cache: EngineCache, text: str) -> None:
    entry = cache.store(KEY, Built(b'engine'), {})
    (entry.directory / 'engine.json').write_text(text)
    assert cache.find(KEY) is None
    assert cache.entries() == []
    cache.store(KEY, Built(b'anew'), {})
    again = cache.find(KEY)
    assert again is not None
    assert cache.content(again) == b'anew'


def test_a_sidecar_of_another_key_is_not_believed(cache: EngineCache) -> None:
    entry = cache.store(KEY, Built(b'engine'), {})
    shutil.copytree(entry.directory, cache.directory / replace(KEY, precision='fp32').digest)
    assert cache.find(replace(KEY, precision='fp32')) is None


def test_beyond_the_limit_the_one_unused_for_longest_goes(cache: EngineCache) -> None:
    cache = EngineCache(cache.directory, limit_bytes=250)
    keys = [replace(KEY, weights=str(digit) * 64) for digit in range(4)]
    for age, key in enumerate(keys[:2]):
        entry = cache.store(key, Built(bytes(100)), {})
        os.utime(entry.directory / 'engine.json', (1000 + age, 1000 + age))
    first = cache.find(keys[0])
    assert first is not None
    assert cache.content(first) is not None  # used: now the second is the oldest
    cache.store(keys[2], Built(bytes(100)), {})
    present = [key for key in keys if cache.find(key) is not None]
    assert present == [keys[0], keys[2]]
    # One larger than the limit stays: it was asked for.
    cache.store(keys[3], Built(bytes(300)), {})
    assert [key for key in keys if cache.find(key) is not None] == [keys[3]]


def test_the_default_directory_is_the_users_and_never_temporary(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv('HOME', '/users/robot')
    monkeypatch.setenv('XDG_CACHE_HOME', '/users/robot/caches')
    assert default_directory() == Path('/users/robot/caches/mtl_perception/engines')
    for value in ('', 'relative/path'):
        monkeypatch.setenv('XDG_CACHE_HOME', value)
        assert default_directory() == Path('/users/robot/.cache/mtl_perception/engines')


def test_purge_deletes_everything_and_counts_engines(cache: EngineCache) -> None:
    assert cache.purge() == 0
    cache.store(KEY, Built(b'engine'), {})
    bad = cache.store(replace(KEY, precision='fp32'), Built(b'bad'), {})
    cache.quarantine(bad, 'too far off')
    with cache.lock(KEY):
        pass
    assert cache.quarantined(replace(KEY, precision='fp32')) == 'too far off'
    assert cache.purge() == 2
    assert list(cache.directory.iterdir()) == []


def test_purge_leaves_what_the_cache_did_not_make(cache: EngineCache) -> None:
    for number, name in enumerate(('thesis.txt', '.bashrc', 'quarantine.txt', f'{"0" * 63}')):
        cache.directory.mkdir(exist_ok=True)
        (cache.directory / name).write_text(str(number))
    (cache.directory / 'photos').mkdir()
    (cache.directory / 'photos' / 'cat.jpg').write_bytes(b'cat')
    bad = cache.store(KEY, Built(b'bad'), {})
    cache.quarantine(bad, 'too far off')
    (cache.directory / 'quarantine' / 'notes.txt').write_text('mine')
    before = sorted(path for path in cache.directory.rglob('*') if path.is_file())
    cache.store(KEY, Built(b'engine'), {})
    with cache.lock(KEY):
        pass
    # What an interrupted build and a probe on a full disk leave.
    (cache.directory / f'.{KEY.digest}.x1y2').mkdir()
    (cache.directory / '.probe-4711').touch()
    assert cache.purge() == 2
    after = sorted(path for path in cache.directory.rglob('*') if path.is_file())
    assert after == [path for path in before if KEY.digest not in str(path)]
    assert len(after) == 6
    assert not (cache.directory / f'.{KEY.digest}.x1y2').exists()


def test_quarantined_engines_count_and_their_reasons_stay(cache: EngineCache) -> None:
    cache = EngineCache(cache.directory, limit_bytes=250)
    keys = [replace(KEY, weights=str(digit) * 64) for digit in range(3)]
    cache.quarantine(cache.store(keys[0], Built(bytes(200)), {}), 'too far off')
    cache.store(keys[1], Built(bytes(40)), {})
    cache.store(keys[2], Built(bytes(100)), {})  # 340 bytes in all
    stored = sum(path.stat().st_size for path in cache.directory.rglob('engine.bin'))
    assert stored == 140
    assert cache.find(keys[1]) is not None
    assert cache.quarantined(keys[0]) == 'too far off'


def test_a_probe_on_a_full_disk_leaves_nothing(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_bytes(path: Path, data: bytes) -> int:
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, 'write_bytes', write_bytes)
    with pytest.raises(CacheError, match='No space left'):
        cache.check_writable()
    assert list(cache.directory.iterdir()) == []


def test_an_engine_is_built_once_and_checked_before_its_first_use(
    open_recorded: Callable[..., list[str]], cache: EngineCache
) -> None:
    first = open_recorded()
    assert any('against the fp32 reference: semantic 0.00%' in line for line in first)
    assert RecordedEngine.BUILDS == 1
    (entry,) = cache.entries()
    assert cache.verified(entry, HERE) == {
        'semantic': 0.0, 'depth': 0.0, 'normals': 0.0, 'edges': 0.0,
    }  # fmt: skip
    assert open_recorded() == []  # neither built nor checked again
    assert RecordedEngine.BUILDS == 1


def test_a_retrained_model_of_the_same_name_gets_its_own_engine(
    open_recorded: Callable[..., list[str]], small_bundle: Path, tmp_path: Path
) -> None:
    open_recorded()
    retrained = shutil.copytree(small_bundle, tmp_path / 'small')
    weights = bytearray((retrained / 'weights.safetensors').read_bytes())
    weights[-1] ^= 1
    (retrained / 'weights.safetensors').write_bytes(weights)
    manifest = load_manifest(retrained)
    digest = hashlib.sha256(weights).hexdigest()
    files = {**manifest.files, 'weights.safetensors': digest}
    save_manifest(replace(manifest, files=files), retrained)
    assert load_manifest(retrained).name == load_manifest(small_bundle).name
    assert any('building' in line for line in open_recorded(retrained))
    assert RecordedEngine.BUILDS == 2


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('DEVICE', replace(HERE, name='GPU Beta')),
        ('DEVICE', replace(HERE, driver='580.2')),
        ('VERSION', '1.1'),
    ],
)
def test_another_gpu_driver_or_library_gets_its_own_engine(
    open_recorded: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, name: str, value: Any
) -> None:
    open_recorded()
    monkeypatch.setattr(RecordedEngine, name, value)
    assert any('building' in line for line in open_recorded())
    assert RecordedEngine.BUILDS == 2


def test_an_engine_built_ahead_of_time_is_checked_on_each_device(
    open_recorded: Callable[..., list[str]],
    cache: EngineCache,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    open_recorded()
    (entry,) = cache.entries()
    content = cache.content(entry)
    assert content is not None
    cache.purge()
    ahead = replace(entry.key, device=Device('any', 'sm86,sm89'))
    cache.store(ahead, Built(content), {})
    for capability in ('sm89', 'sm86'):
        monkeypatch.setattr(RecordedEngine, 'DEVICE', replace(HERE, capability=capability))
        said = open_recorded()
        assert len(said) == 1
        assert 'against the fp32 reference' in said[0]
        assert open_recorded() == []
    assert RecordedEngine.BUILDS == 1


def test_a_truncated_engine_is_built_anew(
    open_recorded: Callable[..., list[str]], cache: EngineCache
) -> None:
    open_recorded()
    (entry,) = cache.entries()
    content = (entry.directory / 'engine.bin').read_bytes()
    (entry.directory / 'engine.bin').write_bytes(content[:-5])
    assert 'is damaged and was deleted' in open_recorded()[0]
    assert RecordedEngine.BUILDS == 2
    assert open_recorded() == []


def test_a_mismatch_is_quarantined_and_not_built_again(
    open_recorded: Callable[..., list[str]],
    cache: EngineCache,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(RecordedEngine, 'SHIFT', 0.05)
    with pytest.raises(EngineMismatchError, match=r'depth is 0\.05 away, allowed are 0\.001'):
        open_recorded()
    assert cache.entries() == []
    assert len(cache.quarantined_entries()) == 1
    with pytest.raises(EngineMismatchError, match=r'in quarantine: on GPU Alpha.*--purge'):
        open_recorded()
    assert RecordedEngine.BUILDS == 1
    monkeypatch.setattr(RecordedEngine, 'SHIFT', 0.0)
    cache.purge()
    open_recorded()


def test_one_built_ahead_of_time_that_fails_is_not_built_again_on_the_device(
    open_recorded: Callable[..., list[str]],
    cache: EngineCache,
    small_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    open_recorded()
    (entry,) = cache.entries()
    content = json.dumps([str(small_bundle), 0.05]).encode()
    cache.purge()
    ahead = replace(entry.key, device=Device('any', 'sm86,sm89'), batch=(1, 4))
    cache.store(ahead, Built(content), {})
    with pytest.raises(EngineMismatchError, match='it is in quarantine'):
        open_recorded()
    for _ in range(2):
        with pytest.raises(EngineMismatchError, match='--purge allows another try'):
            open_recorded()
        with pytest.raises(EngineMismatchError, match='--purge allows another try'):
            build_engine(small_bundle, entry.key, cache, print)
    assert RecordedEngine.BUILDS == 1
    # A GPU that it was not built for is not concerned.
    monkeypatch.setattr(RecordedEngine, 'DEVICE', replace(HERE, capability='sm120'))
    open_recorded()


def test_where_a_mismatch_cannot_be_kept_nobody_says_that_it_is_in_quarantine(
    open_recorded: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(RecordedEngine, 'SHIFT', 0.05)
    (tmp_path / 'file').write_text('in the way')
    with pytest.raises(EngineMismatchError, match='could not be kept') as caught:
        open_recorded(cache=EngineCache(tmp_path / 'file' / 'engines'))
    assert 'quarantine' not in str(caught.value)


def test_nan_never_passes_the_check(
    open_recorded: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RecordedEngine, 'SHIFT', float('nan'))
    with pytest.raises(EngineMismatchError, match='depth is nan away'):
        open_recorded()


def test_without_leave_to_build_it_says_what_would(
    open_recorded: Callable[..., list[str]], cache: EngineCache
) -> None:
    with pytest.raises(EngineMissingError, match=r'compile --model .* --engine recorded'):
        open_recorded(build=False)
    open_recorded()
    assert open_recorded(build=False) == []


def test_a_cache_that_cannot_be_made_serves_this_process_only(
    open_recorded: Callable[..., list[str]], tmp_path: Path
) -> None:
    (tmp_path / 'file').write_text('in the way')
    cache = EngineCache(tmp_path / 'file' / 'engines')
    for _ in range(2):
        said = open_recorded(cache=cache)
        assert f'the engine cache {cache.directory} cannot be written' in said[0]
        assert 'XDG_CACHE_HOME' in said[0]
        assert 'for this process only' in said[0]
    assert RecordedEngine.BUILDS == 2


def test_a_read_only_cache_still_serves_what_it_holds(
    open_recorded: Callable[..., list[str]],
    cache: EngineCache,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    open_recorded()
    # A root user may write into read-only directories: let the system calls refuse.
    refuse_writing(monkeypatch, errno.EROFS)
    assert open_recorded() == []
    monkeypatch.setattr(RecordedEngine, 'DEVICE', replace(HERE, name='GPU Beta'))
    assert 'Read-only file system' in open_recorded()[0]


def test_a_full_disk_leaves_nothing_half(
    open_recorded: Callable[..., list[str]],
    cache: EngineCache,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refuse_writing(monkeypatch, errno.ENOSPC, smallest=2)
    said = open_recorded()
    assert any('No space left on device' in line for line in said)
    assert cache.entries() == []
    assert [path for path in cache.directory.iterdir() if path.suffix != '.lock'] == []


def refuse_writing(monkeypatch: pytest.MonkeyPatch, code: int, smallest: int = 0) -> None:
    """Let every write of at least `smallest` bytes fail as the system would."""
    real = Path.write_bytes

    def write_bytes(path: Path, data: bytes) -> int:
        if len(data) >= smallest:
            raise OSError(code, os.strerror(code))
        return real(path, data)

    def atomic_write(path: Path, data: str) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, 'write_bytes', write_bytes)
    monkeypatch.setattr(cache_module, 'atomic_write', atomic_write)


def test_a_check_that_cannot_be_kept_is_made_again(
    open_recorded: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> None:
        raise CacheError('the cache is read-only')

    monkeypatch.setattr(EngineCache, 'keep_verification', refuse)
    for _ in range(2):
        assert 'checked again at every start' in open_recorded()[-1]
    assert RecordedEngine.BUILDS == 1


BUILD_SLOWLY = """
import sys, time
from pathlib import Path
from test_cache import *
from mtl_perception.inference.compiled import build_engine
import mtl_perception.inference.compiled as compiled

class Slow(RecordedEngine):
    @staticmethod
    def build(*arguments):
        with open(sys.argv[3], 'ab') as stream:
            stream.write(b'.')
        time.sleep(1.5)
        return Built(b'engine')

compiled.engine_class = lambda name: Slow
compiled._about = lambda directory: {}
entry, content = build_engine(Path(sys.argv[2]), KEY, EngineCache(Path(sys.argv[1])), print)
assert content == b'engine' and entry is not None
"""


def test_of_two_processes_at_once_one_builds_and_both_are_served(
    cache: EngineCache, small_bundle: Path, tmp_path: Path
) -> None:
    builds = tmp_path / 'builds'
    environment = {**os.environ, 'PYTHONPATH': str(Path(__file__).parent)}
    processes = [
        subprocess.Popen(
            [sys.executable, '-c', BUILD_SLOWLY, cache.directory, small_bundle, builds],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )
        for _ in range(2)
    ]  # fmt: skip
    said = []
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        said.append(out)
    assert builds.read_bytes() == b'.'
    assert sum('building' in out for out in said) == 1
    assert len(cache.entries()) == 1


def test_a_lock_of_a_dead_process_is_free(cache: EngineCache) -> None:
    code = (
        'import sys, os\nfrom test_cache import *\n'
        'with EngineCache(Path(sys.argv[1])).lock(KEY):\n    os._exit(9)'
    )
    environment = {**os.environ, 'PYTHONPATH': str(Path(__file__).parent)}
    died = subprocess.run(
        [sys.executable, '-c', code, cache.directory], env=environment, check=False, timeout=60
    )
    assert died.returncode == 9
    waited: list[int] = []
    with cache.lock(KEY, lambda: waited.append(1)):
        pass
    assert waited == []


def test_a_real_engine_in_half_precision_that_is_too_far_off_falls(
    small_bundle: Path, cache: EngineCache
) -> None:
    pytest.importorskip('openvino')
    # Random weights on noise: bf16 turns the normals by more than it may.
    said: list[str] = []
    with pytest.raises(InferenceError, match=r'normals is .* away, allowed are 10'):
        open_engine(
            small_bundle, 'openvino', precision='bf16', cache=cache, threads=1, say=said.append
        )
    assert any('other labels' in line for line in said)
    (entry,) = cache.quarantined_entries()
    assert entry.document['report']['layers_by_precision']['bf16'] > 50
