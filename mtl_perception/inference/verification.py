# SPDX-License-Identifier: Apache-2.0
"""Run a bundle's check frame through an engine and compare its maps with the stored ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
import statistics
import time
from typing import Any

from mtl_perception.agreement import disagreement, TOLERANCES
from mtl_perception.inference.engine import Engine, InferenceError
from mtl_perception.manifest import BundleError, CHECK_FILE, Manifest, verify_files

_WARM_UP_RUNS, _TIMED_RUNS = 3, 20


def measure_engine(engine: Engine, directory: Path) -> dict[str, float]:
    """
    Return by task how far the engine is from the fp32 reference (`agreement.disagreement`).

    A map of the wrong shape counts as NaN, which no tolerance admits.

    Raises
    ------
    BundleError
        If the bundle's check frame is damaged.
    InferenceError
        If the engine cannot run it.

    """
    manifest = engine.manifest
    image, scale, reference = _check_frame(manifest, directory)
    maps = engine.run(image, scale)
    errors: dict[str, float] = {}
    for task in manifest.tasks:
        if maps[task.name].shape != reference[task.name].shape:
            errors[task.name] = float('nan')
        else:
            errors |= disagreement((task,), reference, maps)
    return errors


def warm_up(engine: Engine, directory: Path) -> None:
    """
    Run the check frame once: libraries choose kernels and allocate in the first run.

    Raises
    ------
    BundleError
        If the bundle's check frame is damaged.
    InferenceError
        If the engine cannot run it.

    """
    image, scale, _ = _check_frame(engine.manifest, directory)
    engine.run(image, scale)


def time_engine(engine: Engine, directory: Path) -> float:
    """
    Return the median milliseconds of one frame of the bundle's check image.

    Raises
    ------
    BundleError
        If the bundle's check frame is damaged.
    InferenceError
        If the engine cannot run it.

    """
    image, scale, _ = _check_frame(engine.manifest, directory)
    times = []
    for number in range(-_WARM_UP_RUNS, _TIMED_RUNS):
        started = time.perf_counter()
        engine.run(image, scale)
        if number >= 0:
            times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times)


def _check_frame(manifest: Manifest, directory: Path) -> tuple[Any, Any, dict[str, Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    verify_files(manifest, directory, (CHECK_FILE,))
    try:
        check = load_file(directory / CHECK_FILE)
        reference = {name: check[f'output.{name}'] for name in manifest.output_names}
        return check['input.image'], check['input.depth_scale'], reference
    except (SafetensorError, KeyError, OSError) as error:
        msg = f'{directory / CHECK_FILE}: not a readable check frame ({error}); copy it again'
        raise BundleError(msg) from error


def excess(manifest: Manifest, errors: Mapping[str, float], precision: str) -> str:
    """Return which tasks are farther from the reference than `precision` may be, or ''."""
    beyond = [
        f'{task.name} is {errors[task.name]:.3g} away, allowed are '
        f'{TOLERANCES[precision][task.kind]:.3g}'
        for task in manifest.tasks
        # NaN compares false with everything.
        if not errors[task.name] <= TOLERANCES[precision][task.kind]
    ]
    return '; '.join(beyond)


def describe_errors(manifest: Manifest, errors: Mapping[str, float]) -> str:
    """Return the errors in words, with the unit of each task's kind."""
    words = {
        'semantic': '{:.2%} other labels',
        'parts': '{:.2%} other labels',
        'depth': '{:.2%} largest relative difference',
        'normals': '{:.2g} degrees (99th percentile)',
        'edges': '{:.3f} largest difference of probability',
        'saliency': '{:.3f} largest difference of probability',
    }
    return ', '.join(
        f'{task.name} {words[task.kind].format(errors[task.name])}' for task in manifest.tasks
    )


def verify_engine(
    engine: Engine, directory: Path, precision: str, say: Callable[[str], None]
) -> dict[str, float]:
    """
    Tell and return the errors of an engine, by task.

    Raises
    ------
    InferenceError
        If a task is beyond what the precision may cost.

    """
    errors = measure_engine(engine, directory)
    words = describe_errors(engine.manifest, errors)
    say(f'{engine.name} in {precision} against the fp32 reference: {words}')
    if reason := excess(engine.manifest, errors, precision):
        msg = f'{engine.name} in {precision} differs from the reference: {reason}'
        raise InferenceError(msg)
    return errors
