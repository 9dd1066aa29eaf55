# SPDX-License-Identifier: Apache-2.0
"""Run a bundle's check frame through an engine and compare its maps with the stored ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mtl_perception.agreement import disagreement, TOLERANCES
from mtl_perception.inference.engine import Engine, InferenceError
from mtl_perception.manifest import BundleError, CHECK_FILE, Manifest, verify_files


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
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    manifest = engine.manifest
    verify_files(manifest, directory, (CHECK_FILE,))
    try:
        check = load_file(directory / CHECK_FILE)
        reference = {name: check[f'output.{name}'] for name in manifest.output_names}
        image, scale = check['input.image'], check['input.depth_scale']
    except (SafetensorError, KeyError, OSError) as error:
        msg = f'{directory / CHECK_FILE}: not a readable check frame ({error}); copy it again'
        raise BundleError(msg) from error
    maps = engine.run(image, scale)
    errors: dict[str, float] = {}
    for task in manifest.tasks:
        if maps[task.name].shape != reference[task.name].shape:
            errors[task.name] = float('nan')
        else:
            errors |= disagreement((task,), reference, maps)
    return errors


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


def verify_engine(engine: Engine, directory: Path, precision: str) -> dict[str, float]:
    """
    Return the errors of an engine, by task.

    Raises
    ------
    InferenceError
        If a task is beyond what the precision may cost.

    """
    errors = measure_engine(engine, directory)
    if reason := excess(engine.manifest, errors, precision):
        msg = f'{engine.name} in {precision} differs from the reference: {reason}'
        raise InferenceError(msg)
    return errors
