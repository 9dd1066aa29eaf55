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
from pathlib import Path
from typing import Any

from mtl_perception.files import atomic_write
from mtl_perception.manifest_checks import BundleError, check_manifest, plain_json, refuse
from mtl_perception.tasks import LABELLED_KINDS, Task, TaskError

FORMAT_VERSION = 1
MANIFEST_FILE = 'bundle.json'
WEIGHTS_FILE = 'weights.safetensors'
GRAPH_FILE = 'graph.onnx'
CHECK_FILE = 'check.safetensors'
CARD_FILE = 'README.md'
_HASHED_FILES = (WEIGHTS_FILE, GRAPH_FILE, CHECK_FILE, CARD_FILE)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def confidence_name(task: Task) -> str:
    """Return the name of the confidence map that goes with the labels of a task."""
    return f'{task.name}_confidence'


def default_label_scale(network_size: tuple[int, int]) -> float:
    """
    Return the size of labels over that of the network (height, width) where nobody says it.

    Half of it from 480 pixels on: the largest of many maps costs more than its last pixels are
    worth there.
    """
    halves = not any(side % 2 for side in network_size)
    return 0.5 if min(network_size) >= 480 and halves else 1.0


def padding_colour(mean: tuple[float, float, float]) -> tuple[int, int, int]:
    """Return the RGB bytes around an image that is narrower than the network: zero to the net."""
    red, green, blue = (round(255 * each) for each in mean)
    return red, green, blue


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
    format_version: int = field(default=FORMAT_VERSION, init=False)

    def __post_init__(self) -> None:
        check_manifest(self)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The graph's outputs in order: each task's map, after labels their confidence."""
        names = []
        for task in self.tasks:
            names.append(task.name)
            if task.kind in LABELLED_KINDS:
                names.append(confidence_name(task))
        return tuple(names)

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
        return {name: plain_json(document[name]) for name in ('format_version', *document)}

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
            raise refuse('format_version', version, 'it must be a whole number from 1 on')
        if version > FORMAT_VERSION:
            remedy = f'this mtl_perception reads up to {FORMAT_VERSION}; upgrade the package'
            raise refuse('format_version', version, remedy)
        known = {item.name for item in fields(cls)}
        if known != set(document):
            name = sorted(known ^ set(document))[0]
            state = 'missing' if name in known else 'unknown'
            msg = f'field {name!r} is {state}: the file was edited or is not a bundle manifest'
            raise BundleError(msg)
        values = {name: document[name] for name in known - {'format_version'}}
        for name in ('tasks', 'auxiliary'):
            values[name] = _read_tasks(name, values[name])
        for name in _TUPLES:
            if isinstance(values[name], list):
                values[name] = tuple(values[name])
        return cls(**values)


_TUPLES = ('network_size', 'depth_range_m', 'neck', 'mean', 'std', 'limitations')


def _read_tasks(name: str, values: Any) -> tuple[Task, ...]:
    if not isinstance(values, list):
        raise refuse(name, values, 'it must be a list of tasks')
    try:
        return tuple(Task.from_json(value) for value in values)
    except TaskError as error:
        msg = f'field {name!r}: {error}'
        raise BundleError(msg) from error


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
            raise refuse('sha256', claimed, remedy)
        missing = [name for name in _HASHED_FILES if name not in manifest.files]
        if missing:
            remedy = f'the digest of {missing[0]} is missing; copy the bundle again'
            raise refuse('files', sorted(manifest.files), remedy)
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
        try:
            digest = file_digest(path)
        except OSError as error:
            msg = f'{path}: not readable ({error.strerror}); copy the bundle again, whole'
            raise BundleError(msg) from error
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
