# SPDX-License-Identifier: Apache-2.0
"""What an engine is, which one suits this machine, and the one door to open one by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
import sys
from types import TracebackType
from typing import Any, Protocol, TYPE_CHECKING

from mtl_perception.errors import MtlPerceptionError
from mtl_perception.inference.device import nvidia_gpu_present
from mtl_perception.manifest import Manifest
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from mtl_perception.inference.cache import EngineCache

# Imported only when asked for: each stands on a library that a robot may lack.
ENGINES = {
    'onnxruntime': 'mtl_perception.inference.onnxruntime_engine:OnnxRuntimeEngine',
    'openvino': 'mtl_perception.inference.openvino_engine:OpenVinoEngine',
    'torch': 'mtl_perception.inference.torch_engine:TorchEngine',
    'torch-graph': 'mtl_perception.inference.torch_engine:TorchGraphEngine',
    'torch-compiled': 'mtl_perception.inference.torch_compiled_engine:TorchCompiledEngine',
    'tensorrt': 'mtl_perception.inference.tensorrt_engine:TensorRtEngine',
    'tensorrt-rtx': 'mtl_perception.inference.tensorrt_rtx_engine:TensorRtRtxEngine',
}
# Built first, which takes seconds to minutes, kept in the engine cache, and checked before use.
COMPILED_ENGINES = ('openvino', 'torch-compiled', 'tensorrt', 'tensorrt-rtx')
AUTO = 'auto'
# Exact in fp32 and ready at once: they serve while others are built, or instead of them.
PLAIN_ENGINES = ('onnxruntime', 'torch')
# Whatever a user may name.
ENGINE_NAMES = (AUTO, *ENGINES)
PRECISIONS = ('fp32', 'fp16', 'bf16')


class InferenceError(MtlPerceptionError):
    """An engine that cannot be opened or an input it cannot take; the message says the remedy."""


class Engine(Protocol):
    """Runs the graph of one bundle; used by one thread at a time, closed by whoever opened it."""

    @property
    def name(self) -> str:
        """Which of `ENGINES` it is."""

    @property
    def manifest(self) -> Manifest:
        """The manifest of its bundle."""

    def run(
        self, image: npt.NDArray[np.uint8], depth_scale: npt.NDArray[np.float32]
    ) -> dict[str, npt.NDArray[Any]]:
        """
        Return the maps by output name (`Manifest.output_names`), each with a batch axis.

        :param image: uint8 (B, H, W, 3) RGB at network size
        :param depth_scale: float32 (B,), f / f_ref of each image

        The arrays belong to the caller: a later run does not change them.
        """

    def close(self) -> None:
        """Free what the engine holds; it cannot run after that."""

    def __enter__(self) -> Engine:
        """Return the engine itself."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the engine."""


@dataclass(frozen=True)
class EngineChoice:
    """An engine's name, and in words why it was taken."""

    name: str
    why: str


def choose_engine(precision: str | None = None) -> EngineChoice:
    """
    Return the best engine that can run on this machine now.

    :param precision: one that it must be able to compute in; None: any

    With an NVIDIA GPU: tensorrt-rtx, tensorrt, torch-graph, torch; on a processor: openvino
    (x86), then onnxruntime, then torch.

    Raises
    ------
    InferenceError
        If no engine of that precision has its library installed.

    """
    on_gpu = [
        (name, 'the GPU') for name in ('tensorrt-rtx', 'tensorrt', 'torch-graph', 'torch')
    ]
    on_processor = [(name, 'the processor') for name in ('openvino', 'onnxruntime', 'torch')]
    has_gpu = nvidia_gpu_present()
    passed_over = [] if has_gpu else ['tensorrt-rtx, tensorrt (no NVIDIA GPU)']
    for name, place in (on_gpu if has_gpu else []) + on_processor:
        kind = engine_class(name)
        lacks = precision is not None and precision not in kind.precisions
        reason = f'it does not compute in {precision}' if lacks else kind.unavailable()
        if not reason:
            why = f'{name} is the first choice for {place} that can run here'
            return EngineChoice(name, '; not '.join([why, *passed_over]))
        passed_over.append(f'{name} ({reason})')
    msg = f'no engine can run here: {"; ".join(passed_over)}'
    raise InferenceError(msg)


def engine_class(engine: str) -> Any:
    """
    Return the class of the engine of that name; its library is not loaded yet.

    Raises
    ------
    InferenceError
        If the name is unknown.

    """
    if engine not in ENGINES:
        msg = f'engine {engine!r} is unknown; use one of {", ".join(ENGINE_NAMES)}'
        raise InferenceError(msg)
    module, name = ENGINES[engine].split(':')
    return getattr(import_module(module), name)


def print_message(text: str) -> None:
    """Print what the user should know about an engine, apart from a command's results."""
    print(text, file=sys.stderr, flush=True)


def open_engine(
    directory: Path | str,
    engine: str = 'onnxruntime',
    *,
    threads: int | None = None,
    precision: str | None = None,
    cache: EngineCache | None = None,
    build: bool = True,
    say: Callable[[str], None] = print_message,
) -> Engine:
    """
    Open the bundle `directory` with the engine of that name, or `auto` for the best present.

    :param threads: threads for one frame; None takes every core this process may use
    :param precision: one of the engine's; None takes the first of them
    :param cache: where compiled engines are kept; None for the user's
    :param build: build a compiled engine that is not in the cache, else it is an error
    :param say: told what is built, where it is kept and how far it is from the reference

    Raises
    ------
    InferenceError
        If the engine is unknown, its library or device is missing, it cannot compute in that
        precision, or it is too far from the reference.
    BundleError
        If the bundle is missing, damaged or of a newer format.

    """
    if threads is not None and threads < 1:
        msg = f'threads is {threads}; it must be at least 1, or left out for every core'
        raise InferenceError(msg)
    if engine == AUTO:
        choice = choose_engine(precision)
        say(f'engine auto: {choice.why}')
        engine = choice.name
    precision = check_precision(engine, precision)
    if engine not in COMPILED_ENGINES:
        return _open_plain(Path(directory), engine, threads, precision, say)
    from mtl_perception.inference.compiled import open_compiled

    return open_compiled(
        Path(directory),
        engine,
        threads=threads,
        precision=precision,
        cache=cache,
        build=build,
        say=say,
    )


def _open_plain(
    directory: Path, engine: str, threads: int | None, precision: str, say: Callable[[str], None]
) -> Engine:
    opened: Engine = engine_class(engine)(directory, threads=threads, precision=precision)
    if precision == 'fp32' and engine in PLAIN_ENGINES:
        return opened
    from mtl_perception.inference.verification import verify_engine

    try:
        verify_engine(opened, directory, precision, say)
    except BaseException:
        opened.close()
        raise
    return opened


def check_precision(engine: str, precision: str | None) -> str:
    """
    Return the precision to compute in, the engine's first where none is given.

    Raises
    ------
    InferenceError
        If the engine has no such precision.

    """
    precisions: tuple[str, ...] = engine_class(engine).precisions
    if precision is None:
        return precisions[0]
    if precision not in precisions:
        msg = f'{engine} does not compute in {precision!r}; it has {", ".join(precisions)}'
        raise InferenceError(msg)
    return precision


def check_inputs(
    manifest: Manifest, image: npt.NDArray[np.uint8], depth_scale: npt.NDArray[np.float32]
) -> None:
    """
    Raise unless the inputs are what the graph of `manifest` takes.

    Raises
    ------
    InferenceError
        With the shape and type that came and those that were due.

    """
    expected = (*manifest.network_size, 3)
    if image.dtype != np.uint8 or image.ndim != 4 or image.shape[1:] != expected:
        msg = f'image is {image.dtype} {image.shape}; the graph takes uint8 (B, *{expected})'
        raise InferenceError(msg)
    if depth_scale.dtype != np.float32 or depth_scale.shape != image.shape[:1]:
        msg = (
            f'depth_scale is {depth_scale.dtype} {depth_scale.shape}; '
            f'the graph takes float32 {image.shape[:1]}, one per image'
        )
        raise InferenceError(msg)


def frame_by_frame(
    run: Callable[[npt.NDArray[Any], npt.NDArray[Any]], dict[str, npt.NDArray[Any]]],
    image: npt.NDArray[np.uint8],
    depth_scale: npt.NDArray[np.float32],
) -> dict[str, npt.NDArray[Any]]:
    """Return the maps of a batch from an engine that takes one image at a time."""
    rows = [
        run(image[index : index + 1], depth_scale[index : index + 1])
        for index in range(len(image))
    ]
    if len(rows) == 1:
        return rows[0]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
