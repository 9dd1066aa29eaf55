# SPDX-License-Identifier: Apache-2.0
"""Open a compiled engine: from the cache, or built, and never before it was checked."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
import time
from typing import Any

from mtl_perception import __version__
from mtl_perception.inference.cache import Built, CacheError, EngineCache, Entry
from mtl_perception.inference.device import Device
from mtl_perception.inference.engine import Engine, engine_class, InferenceError
from mtl_perception.inference.engine_key import EngineKey
from mtl_perception.inference.verification import describe_errors, excess, measure_engine
from mtl_perception.manifest import GRAPH_FILE, load_manifest, verify_files, WEIGHTS_FILE


class EngineMissingError(InferenceError):
    """The engine is not in the cache, and building it was not allowed."""


class EngineMismatchError(InferenceError):
    """The engine gives other maps than the reference."""


def engine_key(
    directory: Path,
    engine: str,
    precision: str,
    *,
    batch: tuple[int, int] = (1, 1),
    device: Device | None = None,
) -> EngineKey:
    """
    Return the key of a bundle's engine; its files are compared with the manifest.

    :param device: None for the one in this machine

    Raises
    ------
    InferenceError
        If the engine's library or device is missing.
    BundleError
        If the bundle is damaged.

    """
    manifest = load_manifest(directory)
    verify_files(manifest, directory, (GRAPH_FILE, WEIGHTS_FILE))
    kind = engine_class(engine)
    return EngineKey(
        weights=manifest.files[WEIGHTS_FILE],
        graph=manifest.files[GRAPH_FILE],
        network_size=manifest.network_size,
        batch=batch,
        precision=precision,
        engine=engine,
        libraries={'mtl_perception': __version__, **kind.libraries()},
        device=device or kind.device(),
    )


def open_compiled(
    directory: Path,
    engine: str,
    *,
    threads: int | None,
    precision: str,
    cache: EngineCache | None,
    build: bool,
    say: Callable[[str], None],
    batch: tuple[int, int] = (1, 1),
) -> Engine:
    """
    Open a compiled engine (see `open_engine`).

    :param batch: smallest and largest batch that it must take

    Raises
    ------
    EngineMissingError
        If it is not in the cache and `build` is false.
    EngineMismatchError
        If its maps are not those of the reference.
    InferenceError
        If its library or device is missing or it cannot be built.

    """
    cache = cache or EngineCache()
    key = engine_key(directory, engine, precision, batch=batch)
    _refuse_quarantined(cache, key)
    entry, content = _from_cache(cache, key, say)
    if content is None:
        if not build:
            name = load_manifest(directory).name
            msg = (
                f'no {engine} engine in {precision} of {name} for {key.device} is in the cache '
                f'{cache.directory}; build it: python3 -m mtl_perception compile '
                f'--model {directory} --engine {engine} --precision {precision}'
            )
            raise EngineMissingError(msg)
        entry, content = build_engine(directory, key, cache, say)
    opened: Engine = engine_class(engine)(directory, content, precision, threads=threads)
    try:
        _verify(opened, directory, key, entry, cache, say)
    except BaseException:
        opened.close()
        raise
    return opened


def _refuse_quarantined(cache: EngineCache, key: EngineKey) -> None:
    if reason := cache.quarantined(key):
        msg = (
            f'{key.engine} in {key.precision} is in quarantine: {reason}; '
            'python3 -m mtl_perception compile --purge allows another try'
        )
        raise EngineMismatchError(msg)


def _from_cache(
    cache: EngineCache, key: EngineKey, say: Callable[[str], None]
) -> tuple[Entry | None, bytes | None]:
    entry = cache.find(key)
    if entry is None:
        return None, None
    content = cache.content(entry)
    if content is None:
        say(f'{entry.directory} is damaged and was deleted; the engine is built anew')
    return entry, content


def build_engine(
    directory: Path,
    key: EngineKey,
    cache: EngineCache,
    say: Callable[[str], None],
    progress: Callable[[str, float], None] = lambda phase, share: None,
) -> tuple[Entry | None, bytes]:
    """
    Build an engine and keep it, unless another process does so first.

    :param progress: told the phase and how much of it is done, 0 to 1
    :returns: no entry where the cache cannot be written: the engine serves this process only

    Raises
    ------
    EngineMismatchError
        If it was built before and failed its check.
    InferenceError
        If it cannot be built.

    """
    _refuse_quarantined(cache, key)
    guard: Any
    try:
        cache.check_writable()
        guard = cache.lock(key, lambda: say('another process builds this engine; waiting for it'))
    except CacheError as error:
        say(f'{error}; the engine is built for this process only')
        guard = nullcontext()
    with guard:
        entry, content = _from_cache(cache, key, say)
        if entry is not None and content is not None:
            return entry, content
        say(f'building {key.engine} in {key.precision} for {key.device}')
        started = time.perf_counter()
        built: Built = engine_class(key.engine).build(
            directory, key.precision, key.batch, key.device, progress
        )
        seconds = time.perf_counter() - started
        built = Built(built.content, {**built.report, 'seconds': round(seconds, 3)})
        megabytes = len(built.content) / 1e6
        layers = built.report.get('layers', '?')
        say(f'built in {seconds:.1f} s: {megabytes:.1f} MB, {layers} layers')
        try:
            entry = cache.store(key, built, _about(directory))
        except CacheError as error:
            say(f'{error}; the engine is kept for this process only')
            entry = None
    return entry, built.content


def _about(directory: Path) -> dict[str, Any]:
    manifest = load_manifest(directory)
    return {
        'model': manifest.name,
        'network': f'{manifest.system} on {manifest.backbone}',
        'made_from': str(directory.resolve()),
    }


def _verify(
    engine: Engine,
    directory: Path,
    key: EngineKey,
    entry: Entry | None,
    cache: EngineCache,
    say: Callable[[str], None],
) -> None:
    """Raise unless the engine's maps are those of the reference, on this device."""
    kept = None if entry is None else cache.verified(entry, key.device)
    if kept is not None and not excess(engine.manifest, kept, key.precision):
        return
    errors = measure_engine(engine, directory)
    words = describe_errors(engine.manifest, errors)
    say(f'{key.engine} in {key.precision} against the fp32 reference: {words}')
    reason = excess(engine.manifest, errors, key.precision)
    fate = 'it could not be kept, so it is built and checked again at the next start'
    try:
        if reason and entry is not None:
            cache.quarantine(entry, f'on {key.device}: {reason}')
            fate = 'it is in quarantine'
        elif entry is not None:
            cache.keep_verification(entry, key.device, errors)
    except CacheError as error:
        say(f'{error}; the engine is checked again at every start')
    if reason:
        msg = f'{key.engine} in {key.precision} is not used: {reason}; {fate}'
        raise EngineMismatchError(msg)
