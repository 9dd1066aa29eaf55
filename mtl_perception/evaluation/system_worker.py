# SPDX-License-Identifier: Apache-2.0
"""One system in a process of its own: every engine in turn, and its build for GPUs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import json
import os
from pathlib import Path
import sys
import time
from typing import Any

from mtl_perception.errors import MtlPerceptionError
from mtl_perception.evaluation.sample_bundle import sample_bundle
from mtl_perception.inference.engine import COMPILED_ENGINES, Engine, engine_class
from mtl_perception.inference.verification import measure_engine
from mtl_perception.manifest import CHECK_FILE
import numpy as np

# Where in a system's entry the results of the two parts are.
RESULTS = ('comparison', 'tensorrt_rtx')
TARGETS = ('sm86', 'sm89', 'sm120')
REFERENCE = 'torch fp32'
ON_PROCESSOR = (
    ('torch', 'fp32'), ('onnxruntime', 'fp32'), ('openvino', 'fp32'), ('openvino', 'bf16')
)  # fmt: skip
ON_GPU = (
    ('torch', 'fp32'), ('torch', 'fp16'), ('torch-graph', 'fp16'), ('torch-compiled', 'fp32')
)  # fmt: skip
_WARM_UP_ROUNDS = 2


def main() -> int:
    """Measure the system that argument 1 describes and print one line of JSON."""
    wish = json.loads(sys.argv[1])
    document: dict[str, Any] = {'system': wish['system'], 'backbone': wish['backbone']}
    try:
        directory = sample_bundle(
            wish['system'], wish['backbone'], tuple(wish['size']), Path(wish['bundles'])
        )
        if wish['threads']:
            document |= _compare(directory, wish['threads'], wish['rounds'])
        if wish['build']:
            document['tensorrt_rtx'] = _build(directory)
    except MtlPerceptionError as error:
        document['error'] = str(error)
    print(json.dumps(document), flush=True)
    return 0


def _open(directory: Path, engine: str, precision: str, threads: Sequence[int]) -> list[Engine]:
    """Return an engine for each number of threads, unchecked: random weights are no test."""
    kind = engine_class(engine)
    if engine not in COMPILED_ENGINES:
        return [kind(directory, threads=count, precision=precision) for count in threads]
    built = kind.build(directory, precision, (1, 1), kind.device())
    return [kind(directory, built.content, precision, threads=count) for count in threads]


def _compare(directory: Path, threads: Sequence[int], rounds: int) -> dict[str, Any]:
    from safetensors.numpy import load_file
    import torch

    check = load_file(directory / CHECK_FILE)
    image, scale = check['input.image'], check['input.depth_scale']
    engines = {
        f'{engine} {precision}': _open(directory, engine, precision, threads)
        for engine, precision in (ON_GPU if torch.cuda.is_available() else ON_PROCESSOR)
    }
    errors = {label: measure_engine(row[0], directory) for label, row in engines.items()}
    rows = []
    for index, count in enumerate(threads):
        torch.set_num_threads(count)
        runs = {
            label: lambda engine=row[index]: engine.run(image, scale)
            for label, row in engines.items()
        }
        began = os.getloadavg()[0]
        elapsed, used = in_turn(runs, rounds)
        rows.append({
            'threads': count,
            'load_average_1min': [round(began, 2), round(os.getloadavg()[0], 2)],
            'median_ms': _medians(elapsed),
            'times_faster': _ratios(elapsed),
            'median_processor_ms': _medians(used),
            'times_cheaper': _ratios(used),
        })
    return {'comparison': rows, 'errors': errors}


def in_turn(
    runs: Mapping[str, Callable[[], object]], rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """
    Return milliseconds of each run by label: elapsed, and of all processors that worked for it.

    In turn, because a shared machine is fast at one moment and slow at the next. What others
    take from the processors is in the elapsed time only.
    """
    elapsed: dict[str, list[float]] = {label: [] for label in runs}
    used: dict[str, list[float]] = {label: [] for label in runs}
    for number in range(-_WARM_UP_ROUNDS, rounds):
        for label, run in runs.items():
            started, begun = time.perf_counter(), time.process_time()
            run()
            if number >= 0:
                elapsed[label].append((time.perf_counter() - started) * 1e3)
                used[label].append((time.process_time() - begun) * 1e3)
    return elapsed, used


def _medians(times: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {label: float(np.median(values)) for label, values in times.items()}


def _ratios(times: Mapping[str, Sequence[float]]) -> dict[str, float]:
    reference = times[REFERENCE]
    return {
        label: float(np.median(np.divide(reference, values))) for label, values in times.items()
    }


def _build(directory: Path) -> dict[str, Any]:
    from mtl_perception.inference.half_precision import load_graph
    from mtl_perception.inference.tensorrt_rtx_builder import build_tensorrt_rtx

    started, used = time.perf_counter(), time.process_time()
    model = load_graph(directory, 'fp16').SerializeToString()
    built = build_tensorrt_rtx(model, TARGETS)
    return {
        'seconds': time.perf_counter() - started,
        'processor_seconds': time.process_time() - used,
        'megabytes': len(built.content) / 1e6,
        'layers': built.report['layers'],
        'layers_by_precision': built.report['layers_by_precision'],
    }


if __name__ == '__main__':
    sys.exit(main())
