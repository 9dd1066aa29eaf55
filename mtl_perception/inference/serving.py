# SPDX-License-Identifier: Apache-2.0
"""Serve frames at once with an engine that needs no building, and swap when the best is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
import shutil
import subprocess
import sys
from threading import Lock, Thread
import time
from typing import Any

from mtl_perception.closing import Closing
from mtl_perception.inference.cache import EngineCache
from mtl_perception.inference.compiled import EngineMissingError
from mtl_perception.inference.engine import (
    AUTO,
    check_precision,
    choose_engine,
    Engine,
    engine_class,
    InferenceError,
    open_engine,
    PLAIN_ENGINES,
    print_message,
)
from mtl_perception.manifest import Manifest
import numpy as np
import numpy.typing as npt

BUILD_MODES = ('background', 'blocking', 'never')


@dataclass(frozen=True)
class EngineStatus:
    """Which engine serves, which was asked for, and why they differ if they do."""

    serving: str
    wanted: str
    state: str  # ready, building, or failed: the fallback serves until the next start
    elapsed_s: float = 0.0  # of the build, so far or in all
    why: str = ''


class ServingEngine(Closing):
    """
    The engine asked for, or one that can serve until it is built, or instead of it.

    :param directory: the bundle
    :param engine: an engine's name or `auto`
    :param build: what to do with a compiled engine that is not in the cache. `background`
        builds it in a process of its own while a fallback serves, and swaps between two
        frames; `blocking` builds before the first frame; `never` leaves the fallback serving
    :param say: told in words what happens, from any thread

    An engine that is missing its library or device, cannot be built, or is too far from the
    reference leaves the fallback serving, and `status` tells why.

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
    ) -> None:
        if build not in BUILD_MODES:
            msg = f'build is {build!r}; use one of {", ".join(BUILD_MODES)}'
            raise InferenceError(msg)
        self._directory = directory
        self._threads = threads
        self._cache = cache or EngineCache()
        self._say = say
        self._lock = Lock()  # of the state; held for moments
        self._frame_lock = Lock()  # of the engine; held for a whole frame
        self._process: subprocess.Popen[str] | None = None
        self._thread: Thread | None = None
        self._closed = False
        self._why = ''
        if engine == AUTO:
            choice = choose_engine()
            engine, self._why = choice.name, choice.why
        self._wanted = engine
        self._state, self._started, self._elapsed_s = 'ready', time.monotonic(), 0.0
        self._precision = check_precision(engine, precision)
        try:
            self._engine = self._open(engine, self._precision, build=build == 'blocking')
            self._elapsed_s = time.monotonic() - self._started
        except EngineMissingError as error:
            self._engine = self._open_fallback(str(error))
            if build == 'background':
                self._state, self._why = 'building', 'it is not in the cache yet'
                self._thread = Thread(target=self._build, name='engine build', daemon=True)
                self._thread.start()
            else:
                self._fail(str(error))
        except InferenceError as error:
            self._engine = self._open_fallback(str(error))
            self._fail(str(error))

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
            building = self._state == 'building'
            elapsed = time.monotonic() - self._started if building else self._elapsed_s
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

    def _open(self, engine: str, precision: str | None, *, build: bool = False) -> Engine:
        return open_engine(
            self._directory,
            engine,
            threads=self._threads,
            precision=precision,
            cache=self._cache,
            build=build,
            say=self._say,
        )

    def _open_fallback(self, reason: str) -> Engine:
        for name in PLAIN_ENGINES:
            if not engine_class(name).unavailable():
                return self._open(name, precision=None)
        msg = f'{reason}; and no engine can serve instead: pip install onnxruntime'
        raise InferenceError(msg)

    def _fail(self, reason: str) -> None:
        with self._lock:
            self._state, self._why = 'failed', reason
            self._elapsed_s = time.monotonic() - self._started
            serving = self._engine.name
        self._say(f'{serving} serves instead of {self._wanted}: {reason}')

    def _build(self) -> None:
        """Build in a process of its own, then exchange the engines; runs in a thread."""
        self._say(f'{self._engine.name} serves while {self._wanted} is built')
        try:
            problem = self._run_compile()
            if self._closed:
                return
            if problem:
                self._fail(problem)
                return
            engine = self._open(self._wanted, self._precision)
            if engine.manifest != self.manifest:
                engine.close()
                self._fail(f'the bundle {self._directory} was changed meanwhile; start again')
                return
        # Whatever it is, the fallback goes on serving.
        except Exception as error:
            self._fail(str(error))
            return
        with self._frame_lock, self._lock:
            old, self._engine = self._engine, engine
            self._state, self._elapsed_s = 'ready', time.monotonic() - self._started
            self._why = f'built in the background, {old.name} served until then'
        old.close()
        self._say(f'{self._wanted} serves now, after {self._elapsed_s:.1f} s')

    def _run_compile(self) -> str:
        """Return why the build failed, or an empty string."""
        command = [
            sys.executable, '-m', 'mtl_perception', 'compile',
            '--model', str(self._directory), '--engine', self._wanted,
            '--precision', str(self._precision), '--out', str(self._cache.directory),
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
