# SPDX-License-Identifier: Apache-2.0
"""Build TensorRT-RTX engines from ONNX, ahead of time: no GPU is needed for that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from mtl_perception.inference.cache import Built
from mtl_perception.inference.engine import InferenceError

Progress = Callable[[str, float], None]


def tensorrt_rtx() -> Any:
    """
    Return the library.

    Raises
    ------
    InferenceError
        If it is not installed.

    """
    try:
        import tensorrt_rtx as library
    except (ImportError, OSError) as error:
        msg = f'the engine tensorrt-rtx cannot be imported ({error}); pip install tensorrt_rtx'
        raise InferenceError(msg) from error
    return library


def known_targets() -> tuple[str, ...]:
    """Return the compute capabilities that the installed library builds for: sm75 and on."""
    members = tensorrt_rtx().ComputeCapability.__members__
    return tuple(name.lower() for name in members if name.startswith('SM'))


def build_tensorrt_rtx(
    model: bytes,
    targets: Sequence[str],
    *,
    batch: tuple[int, int] = (1, 1),
    progress: Progress = lambda phase, share: None,
) -> Built:
    """
    Build one engine that serves all `targets`.

    Strongly typed: each layer computes in the type that the graph gives it, which the report
    counts as the library's own network definition has it.

    :param model: a serialised ONNX model with its weights inside
    :param targets: compute capabilities such as sm89
    :param batch: smallest and largest; the first axis of every input with an open size
    :param progress: told the phase and how much of it is done, 0 to 1

    Raises
    ------
    InferenceError
        If the library is missing, a target is unknown, or the graph cannot be built.

    """
    library = tensorrt_rtx()
    unknown = sorted(set(targets) - set(known_targets()))
    if unknown or not targets:
        msg = (
            f'target {", ".join(unknown) or "(none)"} is unknown to TensorRT-RTX '
            f'{library.__version__}; it builds for {", ".join(known_targets())}'
        )
        raise InferenceError(msg)
    logger = _logger(library)
    builder = library.Builder(logger)
    typed = 1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = library.OnnxParser(network, logger)
    if not parser.parse(model):
        reasons = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        msg = f'TensorRT-RTX {library.__version__} cannot read the graph: {"; ".join(reasons)}'
        raise InferenceError(msg)
    config = builder.create_builder_config()
    # What stays in fp32 stays there in full: TF32, on by default, is 1e-3 off in depth.
    config.clear_flag(library.BuilderFlag.TF32)
    config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        config.set_compute_capability(
            library.ComputeCapability.__members__[target.upper()], index
        )
    # Kept alive until the build is over; the library only borrows it.
    monitor = _monitor(library, progress)
    config.progress_monitor = monitor
    _add_profile(builder, network, config, batch)
    report = _layers(network)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        reason = '; '.join(logger.errors) or 'it does not say why'
        msg = f'TensorRT-RTX {library.__version__} builds no engine: {reason}'
        raise InferenceError(msg)
    return Built(bytes(engine), report)


def _add_profile(builder: Any, network: Any, config: Any, batch: tuple[int, int]) -> None:
    low, high = batch
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        first, *rest = tensor.shape
        if first < 0:
            profile.set_shape(tensor.name, (low, *rest), (low, *rest), (high, *rest))
    config.add_optimization_profile(profile)


def _layers(network: Any) -> dict[str, Any]:
    """Count the layers by the type of what they compute, and of the heavy ones each kind."""
    by_type: Counter[str] = Counter()
    kinds: dict[str, Counter[str]] = {}
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if not layer.num_outputs:
            continue
        name = layer.get_output(0).dtype.name.lower()
        by_type[name] += 1
        kinds.setdefault(layer.type.name.lower(), Counter())[name] += 1
    return {
        'layers': network.num_layers,
        'layers_by_precision': dict(by_type.most_common()),
        'kinds_by_precision': {kind: dict(kinds[kind]) for kind in sorted(kinds)},
    }


def _logger(library: Any) -> Any:
    class Collector(library.ILogger):  # type: ignore[misc]
        """Keeps errors for the message of the exception; the rest is the library's own."""

        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= library.ILogger.Severity.ERROR:
                self.errors.append(message)

    return Collector()


def _monitor(library: Any, progress: Progress) -> Any:
    class Monitor(library.IProgressMonitor):  # type: ignore[misc]
        """Passes the phases on; nested ones come and go by name."""

        def __init__(self) -> None:
            super().__init__()
            self._steps: dict[str, int] = {}

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            self._steps[name] = steps
            progress(name, 0.0)

        def step_complete(self, name: str, step: int) -> bool:
            progress(name, (step + 1) / max(self._steps.get(name, 1), 1))
            return True

        def phase_finish(self, name: str) -> None:
            progress(name, 1.0)

    return Monitor()
