# SPDX-License-Identifier: Apache-2.0
"""What each field of a manifest may hold."""

from __future__ import annotations

from collections.abc import Mapping
import json
import math
from typing import Any, TYPE_CHECKING

from mtl_perception.errors import MtlPerceptionError
from mtl_perception.tasks import Task

if TYPE_CHECKING:
    from mtl_perception.manifest import Manifest


class BundleError(MtlPerceptionError):
    """A bundle that cannot be used; the message names the file, the field and the remedy."""


def refuse(name: str, value: Any, remedy: str) -> BundleError:
    """Return the error that names a field, its value (cut short) and what to do."""
    shown = repr(value)
    shown = shown if len(shown) <= 80 else f'{shown[:77]}...'
    return BundleError(f'field {name!r} is {shown}: {remedy}')


def plain_json(value: Any) -> Any:
    """Return `value` as JSON has it: tuples become lists, NaN and infinity null."""
    if isinstance(value, Mapping):
        return {key: plain_json(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_json(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _is_number(value: Any, low: float = -math.inf, high: float = math.inf) -> bool:
    """Whether `value` is a finite number in the open interval (low, high)."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # Comparisons, since a JSON integer may be too large for a float; NaN fails them.
    return number and -1e300 < value < 1e300 and low < value < high


def _is_whole(value: Any, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= high


def _is_tuple(value: Any, length: int) -> bool:
    return isinstance(value, tuple) and len(value) == length


def check_manifest(manifest: Manifest) -> None:
    """Raise a `BundleError` that names the first field without sense."""
    for name in ('name', 'system', 'backbone', 'mode'):
        value = getattr(manifest, name)
        if not isinstance(value, str) or not value:
            raise refuse(name, value, 'it must be a string that is not empty')
    if not isinstance(manifest.description, str):
        raise refuse('description', manifest.description, 'it must be a string')
    _check_tasks(manifest)
    _check_sizes(manifest)
    for name in ('mean', 'std'):
        value = getattr(manifest, name)
        low = 0.0 if name == 'std' else -1e-9
        inside = _is_tuple(value, 3) and all(_is_number(entry, low, 1.001) for entry in value)
        if not inside:
            raise refuse(name, value, 'it must be three numbers for RGB in 0..1, std positive')
    if not _is_number(manifest.reference_focal_px, 0.0):
        raise refuse('reference_focal_px', manifest.reference_focal_px, 'it must be positive')
    span = manifest.depth_range_m
    numbers = _is_tuple(span, 2) and all(_is_number(entry, 0.0) for entry in span)
    if not numbers or span[0] >= span[1]:
        raise refuse('depth_range_m', span, 'it must be 0 < shortest < longest, in metres')
    if not isinstance(manifest.limitations, tuple) or not all(
        isinstance(entry, str) for entry in manifest.limitations
    ):
        raise refuse('limitations', manifest.limitations, 'it must be a list of sentences')
    _check_records(manifest)


def _check_tasks(manifest: Manifest) -> None:
    for name in ('tasks', 'auxiliary'):
        value = getattr(manifest, name)
        if not isinstance(value, tuple) or not all(isinstance(entry, Task) for entry in value):
            raise refuse(name, value, 'it must be a tuple of tasks')
    if not manifest.tasks:
        raise refuse('tasks', manifest.tasks, 'a network needs at least one task')
    names = manifest.output_names
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise refuse('tasks', names, f'the output {repeated[0]!r} comes twice; rename a task')


def _check_sizes(manifest: Manifest) -> None:
    size = manifest.network_size
    if not _is_tuple(size, 2) or not all(_is_whole(entry, 16384) for entry in size):
        raise refuse('network_size', size, 'it must be height and width in whole pixels')
    scale = manifest.label_scale
    if not _is_number(scale, 1e-3) or abs(scale * round(1.0 / scale) - 1.0) > 1e-6:
        raise refuse('label_scale', scale, 'it must be 1, 1/2, 1/3 and so on')
    if any(entry % manifest.label_step for entry in size):
        remedy = f'network_size {size[0]}x{size[1]} is not a multiple of its inverse'
        raise refuse('label_scale', scale, remedy)
    neck = manifest.neck
    if neck is not None and not (
        isinstance(neck, tuple) and all(_is_whole(entry, 65536) for entry in neck)
    ):
        raise refuse('neck', neck, 'it must be null or a list of channel counts')


def _check_records(manifest: Manifest) -> None:
    scores = manifest.scores
    if not isinstance(scores, Mapping) or not all(
        isinstance(predictor, str) and isinstance(metrics, Mapping)
        for predictor, metrics in scores.items()
    ):
        raise refuse('scores', scores, 'it must map predictors to mappings of metrics')
    for predictor, metrics in scores.items():
        for metric, value in metrics.items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not isinstance(metric, str) or not (value is None or number):
                raise refuse(f'scores.{predictor}.{metric}', value, 'it must be a number or null')
    if not isinstance(manifest.provenance, Mapping):
        raise refuse('provenance', manifest.provenance, 'it must be a mapping')
    try:
        json.dumps(plain_json(manifest.provenance), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise refuse('provenance', manifest.provenance, f'only JSON values: {error}') from error
    if not isinstance(manifest.files, Mapping) or not all(
        isinstance(name, str) and isinstance(digest, str)
        for name, digest in manifest.files.items()
    ):
        raise refuse('files', manifest.files, 'it must map file names to SHA-256 digests')
