# SPDX-License-Identifier: Apache-2.0
"""Serve frames at once with an engine that needs no building, and swap when the best is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
import shutil
import subprocess
import sys
import tempfile
from threading import Lock, Thread
import time
from typing import Any

from mtl_perception.closing import Closing
from mtl_perception.errors import MtlPerceptionError
from mtl_perception.inference.cache import CacheError, EngineCache
from mtl_perception.inference.compiled import EngineMissingError
from mtl_perception.inference.engine import (
    AUTO,
    check_precision,
    choose_engine,
    COMPILED_ENGINES,
    Engine,
    engine_class,
    InferenceError,
    open_engine,
    PLAIN_ENGINES,
    print_message,
)
from mtl_perception.inference.verification import warm_up
from mtl_perception.manifest import BundleError, Manifest
import numpy as np
import numpy.typing as npt

BUILD_MODES = ('background', 'blocking', 'never')


@dataclass(frozen=True)
class EngineStatus:
    """Which engine serves, which was asked for, and why they differ if they do."""

    serving: str
    wanted: str
    state: str  # ready, opening, building, or failed: the fallback serves until the next start
    elapsed_s: float = 0.0  # of opening and building, so far or in all
    why: str = ''


class ServingEngine(Closing):
    """
    The engine asked for, or one that can serve until it is built, or instead of it.

    :param directory: the bundle
    :param engine: an engine's name or `auto`
    :param build: when to open an engine, and to build a compiled one that is not in the cache.
        `background` opens a fallback first, which serves while the engine is opened in a thread
        and built in a process of its own, and swaps between two frames; `blocking` opens and
        builds before the first frame; `never` leaves the fallback serving if it is not built
    :param say: told in words what happens, from any thread
    :param warn: told why the fallback serves, from any thread; None: `say` is

    Whatever keeps an engine from being opened, built, checked or run leaves the fallback
    serving, and `status` tells why.

    Raises
    ------
    InferenceError
        If the engine is unknown or has no such precision, or no engine can serve at all.
    BundleError
        If the bundle is missing or damaged.

    """

    def __init__(
        self,
        directory: Path,
        engine: str,
        *,
        threads: int | None = None,
        precision: str | None = None,
        build: str = 'background',
        cache: EngineCache | None = None,
        say: Callable[[str], None] = print_message,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        if build not in BUILD_MODES:
            msg = f'build is {build!r}; use one of {", ".join(BUILD_MODES)}'
            raise InferenceError(msg)
        self._directory = directory
        self._threads = threads
        self._cache = cache or EngineCache()
        self._say = say
        self._warn = warn or say
        self._lock = Lock()  # of the state; held for moments
        self._frame_lock = Lock()  # of the engine; held for a whole frame
        self._process: subprocess.Popen[str] | None = None
        self._thread: Thread | None = None
        self._closed = False
        self._why = ''
        if engine == AUTO:
            choice = choose_engine(precision)
            engine, self._why = choice.name, choice.why
            say(f'engine auto: {choice.why}')
        self._wanted = engine
        self._state, self._started, self._elapsed_s = 'ready', time.monotonic(), 0.0
        self._precision = check_precision(engine, precision)
        fallbacks = self._fallbacks()
        if build == 'background' and fallbacks and engine != fallbacks[0]:
            # Importing PyTorch or loading an engine for a GPU takes many seconds.
            self._engine = self._open(fallbacks[0], None)
            self._state, self._why = 'opening', ' '.join(('it is being opened', self._why)).strip()
            self._thread = Thread(target=self._open_behind, name='engine', daemon=True)
            self._thread.start()
            return
        try:
            self._engine = self._open_wanted(self._cache, build=build == 'blocking')
            self._elapsed_s = time.monotonic() - self._started
        except BundleError:
            raise
        except Exception as error:  # what the libraries raise shares no base
            self._engine = self._open_fallback(error)
            self._fail(error)

    @property
    def name(self) -> str:
        """The engine that serves now."""
        return self._engine.name

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest, the same for every engine."""
        return self._engine.manifest

    def status(self) -> EngineStatus:
        """Return which engine serves and why."""
        with self._lock:
            pending = self._state in ('opening', 'building')
            elapsed = time.monotonic() - self._started if pending else self._elapsed_s
            return EngineStatus(self._engine.name, self._wanted, self._state, elapsed, self._why)

    def run(
        self, image: npt.NDArray[np.uint8], depth_scale: npt.NDArray[np.float32]
    ) -> dict[str, npt.NDArray[Any]]:
        """Return the maps by output name (see `Engine.run`)."""
        # Engines are exchanged between two frames. `status` takes the other lock: who asks, the
        # node's executor, must not wait for the frame.
        with self._frame_lock:
            return self._engine.run(image, depth_scale)

    def close(self) -> None:
        """End a build that is under way and close the engine."""
        with self._lock:
            self._closed = True
            process = self._process
        if process is not None:
            process.terminate()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._engine.close()

    def _open(
        self,
        engine: str,
        precision: str | None,
        cache: EngineCache | None = None,
        *,
        build: bool = False,
    ) -> Engine:
        return open_engine(
            self._directory,
            engine,
            threads=self._threads,
            precision=precision,
            cache=cache or self._cache,
            build=build,
            say=self._say,
        )

    def _open_wanted(self, cache: EngineCache, *, build: bool = False) -> Engine:
        engine = self._open(self._wanted, self._precision, cache, build=build)
        if self._wanted in COMPILED_ENGINES:
            try:
                # A check that was kept from the last start ran nothing.
                warm_up(engine, self._directory)
            except BaseException:
                engine.close()
                raise
        return engine

    def _fallbacks(self) -> list[str]:
        return [name for name in PLAIN_ENGINES if not engine_class(name).unavailable()]

    def _open_fallback(self, reason: Exception) -> Engine:
        for name in self._fallbacks():
            if (name, 'fp32') != (self._wanted, self._precision):
                return self._open(name, None)
        msg = f'{_describe(reason)}; and no engine can serve instead: pip install onnxruntime'
        raise InferenceError(msg) from reason

    def _fail(self, error: Exception) -> None:
        with self._lock:
            self._state, self._why = 'failed', _describe(error)
            self._elapsed_s = time.monotonic() - self._started
            serving = self._engine.name
        self._warn(f'{serving} serves instead of {self._wanted}: {self._why}')

    def _open_behind(self) -> None:
        """Open the engine, or build it first, then exchange the engines; runs in a thread."""
        try:
            try:
                engine, how = self._open_wanted(self._cache), 'opened'
            except EngineMissingError:
                engine, how = self._build(), 'built'
            if engine.manifest != self.manifest:
                engine.close()
                msg = f'the bundle {self._directory} was changed meanwhile; start again'
                raise InferenceError(msg)
        # Whatever it is, the fallback goes on serving.
        except Exception as error:
            if not self._closed:
                self._fail(error)
            return
        # The last frame's maps are the caller's own (`Engine.run`): the old engine may go while
        # they are still being finished.
        with self._frame_lock, self._lock:
            old, self._engine = self._engine, engine
            self._state, self._elapsed_s = 'ready', time.monotonic() - self._started
            self._why = f'{how} in the background, {old.name} served until then'
        old.close()
        self._say(f'{self._wanted} serves now, after {self._elapsed_s:.1f} s')

    def _build(self) -> Engine:
        """
        Build in a process of its own, then open.

        Raises
        ------
        InferenceError
            If the process fails; its last words are the reason.

        """
        with self._lock:
            self._state, self._why = 'building', 'it is not in the cache yet'
        self._say(f'{self._engine.name} serves while {self._wanted} is built')
        try:
            self._cache.check_writable()
        except CacheError as error:
            self._warn(f'{error}; the engine is built for this process only')
            with tempfile.TemporaryDirectory(prefix='mtl_perception_engine_') as scratch:
                return self._compile_and_open(EngineCache(Path(scratch)))
        return self._compile_and_open(self._cache)

    def _compile_and_open(self, cache: EngineCache) -> Engine:
        problem = self._run_compile(cache.directory)
        if problem or self._closed:
            raise InferenceError(problem or 'the node ended meanwhile')
        return self._open_wanted(cache)

    def _run_compile(self, directory: Path) -> str:
        """Build into the cache `directory`; return why that failed, or an empty string."""
        command = [
            sys.executable, '-m', 'mtl_perception', 'compile',
            '--model', str(self._directory), '--engine', self._wanted,
            '--precision', str(self._precision), '--out', str(directory),
        ]  # fmt: skip
        # Frames go before the build.
        nice = shutil.which('nice')
        prefix = [nice, '-n', '10'] if nice else []
        with self._lock:
            if self._closed:
                return ''
            self._process = subprocess.Popen(
                [*prefix, *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                # Ctrl-C at the terminal is for the node, which then ends the build.
                start_new_session=True,
            )
        output, _ = self._process.communicate()
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        for line in lines if not self._closed else ():
            self._say(f'compile: {line}')
        if self._process.returncode == 0:
            return ''
        said = ' '.join(lines[-3:]) or 'it said nothing'
        return f'the build ended with code {self._process.returncode}: {said}'


def _describe(error: Exception) -> str:
    """Return our own messages as they are, a library's with the name of its class."""
    text = str(error).strip()
    return text if isinstance(error, MtlPerceptionError) else f'{type(error).__name__}: {text}'
