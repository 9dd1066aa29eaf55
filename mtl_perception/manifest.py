# SPDX-License-Identifier: Apache-2.0
"""
The manifest of a bundle: what the network is, what it gives, how it was trained and scored.

It is the file `bundle.json`. Reading it needs neither torch nor any trust: it is plain JSON,
every field is checked, and the SHA-256 of the other files is in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
import hashlib
import json
import math
from pathlib import Path
from typing import Any

from mtl_perception.errors import MtlPerceptionError
from mtl_perception.files import atomic_write
from mtl_perception.tasks import Task, TaskError

FORMAT_VERSION = 1
MANIFEST_FILE = 'bundle.json'
WEIGHTS_FILE = 'weights.safetensors'
GRAPH_FILE = 'graph.onnx'
CHECK_FILE = 'check.safetensors'
CARD_FILE = 'README.md'
_HASHED_FILES = (WEIGHTS_FILE, GRAPH_FILE, CHECK_FILE, CARD_FILE)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class BundleError(MtlPerceptionError):
    """A bundle that cannot be used; the message names the file, the field and the remedy."""


def _refuse(name: str, value: Any, remedy: str) -> BundleError:
    shown = repr(value)
    shown = shown if len(shown) <= 80 else f'{shown[:77]}...'
    return BundleError(f'field {name!r} is {shown}: {remedy}')


def confidence_name(task: Task) -> str:
    """Return the name of the confidence map that goes with the labels of a semantic task."""
    return f'{task.name}_confidence'


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """
    All that an engine or a reader must know of a network beside its weights.

    `system`, `mode`, `backbone`, `neck`, `tasks` and `auxiliary` build the network;
    `network_size`, `label_scale`, `mean` and `std` make the graph; `reference_focal_px` and
    `depth_range_m` give its numbers their metres. `scores` maps each predictor (this network
    first, then what it is compared with) to its metrics; a score that could not be computed
    is None. `provenance` is free: any JSON values.

    Raises
    ------
    BundleError
        If a field has a value that no network can have; the message names the field.

    """

    name: str
    system: str
    backbone: str
    tasks: tuple[Task, ...]
    network_size: tuple[int, int]  # (height, width) of the network's input, pixels
    reference_focal_px: float  # the focal length, at network size, that depth is learned for
    depth_range_m: tuple[float, float]  # at the reference focal length
    mode: str = 'corrected'
    neck: tuple[int, ...] | None = None  # width per backbone level; () = none, None = default
    auxiliary: tuple[Task, ...] = ()
    label_scale: float = 1.0  # size of labels and confidence over network_size: 1, 1/2, 1/3 ...
    mean: tuple[float, float, float] = IMAGENET_MEAN  # RGB in 0..1
    std: tuple[float, float, float] = IMAGENET_STD
    description: str = ''
    limitations: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)  # file name -> SHA-256, hexadecimal
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        _check(self)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The graph's outputs in order: each task's map, after labels their confidence."""
        return _output_names(self.tasks)

    @property
    def label_size(self) -> tuple[int, int]:
        """(height, width) at which labels and confidence leave the graph."""
        step = self.label_step
        return self.network_size[0] // step, self.network_size[1] // step

    @property
    def label_step(self) -> int:
        """How many network pixels one label spans per axis: 1 / label_scale."""
        return round(1.0 / self.label_scale)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; what is not finite becomes null."""
        document = {item.name: getattr(self, item.name) for item in fields(self)}
        document['tasks'] = [task.to_json() for task in self.tasks]
        document['auxiliary'] = [task.to_json() for task in self.auxiliary]
        return {name: _plain(document[name]) for name in ('format_version', *document)}

    @classmethod
    def from_json(cls, document: Any) -> Manifest:
        """
        Read what `to_json` wrote.

        Raises
        ------
        BundleError
            If a field is missing, unknown, of the wrong type or without sense, or the format
            is newer than this package; the message names the field.

        """
        if not isinstance(document, Mapping) or 'format_version' not in document:
            msg = "field 'format_version' is missing: this is not a bundle of mtl_perception"
            raise BundleError(msg)
        version = document['format_version']
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise _refuse('format_version', version, 'it must be a whole number from 1 on')
        if version > FORMAT_VERSION:
            remedy = f'this mtl_perception reads up to {FORMAT_VERSION}; upgrade the package'
            raise _refuse('format_version', version, remedy)
        known = {item.name for item in fields(cls)}
        if known != set(document):
            name = sorted(known ^ set(document))[0]
            state = 'missing' if name in known else 'unknown'
            msg = f'field {name!r} is {state}: the file was edited or is not a bundle manifest'
            raise BundleError(msg)
        values = dict(document)
        for name in ('tasks', 'auxiliary'):
            values[name] = _read_tasks(name, values[name])
        for name in _TUPLES:
            if isinstance(values[name], list):
                values[name] = tuple(values[name])
        return cls(**values)


_TUPLES = ('network_size', 'depth_range_m', 'neck', 'mean', 'std', 'limitations')


def _output_names(tasks: Iterable[Task]) -> tuple[str, ...]:
    names = []
    for task in tasks:
        names.append(task.name)
        if task.kind == 'semantic':
            names.append(confidence_name(task))
    return tuple(names)


def _read_tasks(name: str, values: Any) -> tuple[Task, ...]:
    if not isinstance(values, list):
        raise _refuse(name, values, 'it must be a list of tasks')
    try:
        return tuple(Task.from_json(value) for value in values)
    except TaskError as error:
        msg = f'field {name!r}: {error}'
        raise BundleError(msg) from error


def _plain(value: Any) -> Any:
    """Return `value` as JSON has it: tuples become lists, NaN and infinity null."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _is_number(value: Any, low: float = -math.inf, high: float = math.inf) -> bool:
    """Whether `value` is a finite number in the open interval (low, high)."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value) and low < value < high


def _is_whole(value: Any, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= high


def _is_tuple(value: Any, length: int) -> bool:
    return isinstance(value, tuple) and len(value) == length


def _check(manifest: Manifest) -> None:
    """Raise a BundleError that names the first field without sense."""
    for name in ('name', 'system', 'backbone', 'mode'):
        value = getattr(manifest, name)
        if not isinstance(value, str) or not value:
            raise _refuse(name, value, 'it must be a string that is not empty')
    if not isinstance(manifest.description, str):
        raise _refuse('description', manifest.description, 'it must be a string')
    _check_tasks(manifest)
    _check_sizes(manifest)
    for name in ('mean', 'std'):
        value = getattr(manifest, name)
        low = 0.0 if name == 'std' else -1e-9
        inside = _is_tuple(value, 3) and all(_is_number(entry, low, 1.001) for entry in value)
        if not inside:
            raise _refuse(name, value, 'it must be three numbers for RGB in 0..1, std positive')
    if not _is_number(manifest.reference_focal_px, 0.0):
        raise _refuse('reference_focal_px', manifest.reference_focal_px, 'it must be positive')
    span = manifest.depth_range_m
    numbers = _is_tuple(span, 2) and all(_is_number(entry, 0.0) for entry in span)
    if not numbers or span[0] >= span[1]:
        raise _refuse('depth_range_m', span, 'it must be 0 < shortest < longest, in metres')
    if not isinstance(manifest.limitations, tuple) or not all(
        isinstance(entry, str) for entry in manifest.limitations
    ):
        raise _refuse('limitations', manifest.limitations, 'it must be a list of sentences')
    _check_records(manifest)


def _check_tasks(manifest: Manifest) -> None:
    for name in ('tasks', 'auxiliary'):
        value = getattr(manifest, name)
        if not isinstance(value, tuple) or not all(isinstance(entry, Task) for entry in value):
            raise _refuse(name, value, 'it must be a tuple of tasks')
    if not manifest.tasks:
        raise _refuse('tasks', manifest.tasks, 'a network needs at least one task')
    names = _output_names(manifest.tasks)
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise _refuse('tasks', names, f'the output {repeated[0]!r} comes twice; rename a task')


def _check_sizes(manifest: Manifest) -> None:
    size = manifest.network_size
    if not _is_tuple(size, 2) or not all(_is_whole(entry, 16384) for entry in size):
        raise _refuse('network_size', size, 'it must be height and width in whole pixels')
    scale = manifest.label_scale
    if not _is_number(scale, 0.0) or abs(scale * round(1.0 / scale) - 1.0) > 1e-6:
        raise _refuse('label_scale', scale, 'it must be 1, 1/2, 1/3 and so on')
    if any(entry % manifest.label_step for entry in size):
        remedy = f'network_size {size[0]}x{size[1]} is not a multiple of its inverse'
        raise _refuse('label_scale', scale, remedy)
    neck = manifest.neck
    if neck is not None and not (
        isinstance(neck, tuple) and all(_is_whole(entry, 65536) for entry in neck)
    ):
        raise _refuse('neck', neck, 'it must be null or a list of channel counts')


def _check_records(manifest: Manifest) -> None:
    scores = manifest.scores
    if not isinstance(scores, Mapping) or not all(
        isinstance(predictor, str) and isinstance(metrics, Mapping)
        for predictor, metrics in scores.items()
    ):
        raise _refuse('scores', scores, 'it must map predictors to mappings of metrics')
    for predictor, metrics in scores.items():
        for metric, value in metrics.items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not isinstance(metric, str) or not (value is None or number):
                raise _refuse(f'scores.{predictor}.{metric}', value, 'it must be a number or null')
    if not isinstance(manifest.provenance, Mapping):
        raise _refuse('provenance', manifest.provenance, 'it must be a mapping')
    try:
        json.dumps(_plain(manifest.provenance), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise _refuse('provenance', manifest.provenance, f'only JSON values: {error}') from error
    if not isinstance(manifest.files, Mapping) or not all(
        isinstance(name, str) and isinstance(digest, str)
        for name, digest in manifest.files.items()
    ):
        raise _refuse('files', manifest.files, 'it must map file names to SHA-256 digests')
    if manifest.format_version != FORMAT_VERSION:
        remedy = f'this package writes format {FORMAT_VERSION}'
        raise _refuse('format_version', manifest.format_version, remedy)


def _digest_of(document: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a manifest's JSON values, however they are laid out in the file."""
    text = json.dumps(document, sort_keys=True, separators=(',', ':'), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def save_manifest(manifest: Manifest, directory: Path | str) -> None:
    """Write `bundle.json` into `directory`, with its own digest so that edits are noticed."""
    document = manifest.to_json()
    document['sha256'] = _digest_of(document)
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    atomic_write(Path(directory) / MANIFEST_FILE, text + '\n')


def load_manifest(directory: Path | str) -> Manifest:
    """
    Read and check `bundle.json` of the bundle `directory`.

    Raises
    ------
    BundleError
        If there is none, or it is cut short, edited, of a newer format or foreign; the message
        names the file and the field.

    """
    directory = Path(directory)
    path = directory / MANIFEST_FILE
    if not path.is_file():
        state = 'there is no such directory' if not directory.is_dir() else 'it has no bundle.json'
        msg = f'{directory} is not a bundle: {state}; give the directory that save_bundle wrote'
        raise BundleError(msg)
    try:
        document = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError, RecursionError) as error:
        msg = f'{path}: not readable as JSON ({error}); copy the bundle again'
        raise BundleError(msg) from error
    try:
        claimed = document.pop('sha256', None) if isinstance(document, dict) else None
        manifest = Manifest.from_json(document)
        if claimed != _digest_of(document):
            remedy = 'it does not match the content, so bundle.json was edited; copy it again'
            raise _refuse('sha256', claimed, remedy)
        missing = [name for name in _HASHED_FILES if name not in manifest.files]
        if missing:
            remedy = f'the digest of {missing[0]} is missing; copy the bundle again'
            raise _refuse('files', sorted(manifest.files), remedy)
    except BundleError as error:
        msg = f'{path}: {error}'
        raise BundleError(msg) from error
    return manifest


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open('rb') as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def verify_files(
    manifest: Manifest, directory: Path | str, names: Iterable[str] = _HASHED_FILES
) -> None:
    """
    Compare files of a bundle with the digests in its manifest.

    Raises
    ------
    BundleError
        If a file is missing, cut short or changed; the message names it.

    """
    for name in names:
        path = Path(directory) / name
        if not path.is_file():
            msg = f'{path}: the file is missing; copy the bundle again, whole'
            raise BundleError(msg)
        digest = file_digest(path)
        if digest != manifest.files[name]:
            msg = (
                f"{path}: SHA-256 is {digest[:12]}..., but field 'files' of {MANIFEST_FILE} says "
                f'{manifest.files[name][:12]}...: the file was changed or cut short; '
                'copy the bundle again, whole'
            )
            raise BundleError(msg)


def default_bundle() -> Path:
    """
    Return the directory of the bundle that ships with the package.

    Raises
    ------
    BundleError
        If this installation lacks it.

    """
    from importlib import resources

    path = Path(str(resources.files('mtl_perception'))) / 'bundles' / 'rooms_small'
    if not (path / MANIFEST_FILE).is_file():
        msg = f'the default bundle is missing at {path}: reinstall the package, or name a bundle'
        raise BundleError(msg)
    return path
