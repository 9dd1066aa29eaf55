# SPDX-License-Identifier: Apache-2.0
"""The card of a bundle: its manifest in words, for the person who decides whether to use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtl_perception.manifest import Manifest
from mtl_perception.tasks import Task

_GENERAL_LIMITS = (
    'It gives one answer per pixel, also where the camera sees nothing it was trained on; the '
    'confidence map is the only hint of that.',
    'Depth is metric only if the focal length in `camera_info` is right.',
)


def _describe(task: Task, manifest: Manifest) -> str:
    height, width = manifest.network_size
    if task.label_set is not None:
        height, width = manifest.label_size
        names = ', '.join(task.label_set.names)
        content = f'class ids and confidence; {len(task.label_set)} classes: {names}'
    elif task.kind == 'depth':
        near, far = manifest.depth_range_m
        content = (
            f'metres along the optical axis, {near:g} to {far:g} m '
            f'at a focal length of {manifest.reference_focal_px:g} px'
        )
    elif task.kind == 'normals':
        content = 'unit vectors, optical frame (x right, y down, z forward)'
    elif task.kind == 'saliency':
        content = 'probability of belonging to what draws the eye'
    elif task.edge_meaning == 'label_borders' and _is_of_rooms(manifest):
        # As simulation/render.py draws them, which is more than where two labels meet.
        content = (
            'probability of an edge: a border of objects (the corner of two walls too) or a '
            'jump of depth'
        )
    else:
        content = f'probability of {(task.edge_meaning or "").replace("_", " ")}'
    return f'| `{task.name}` | {task.kind} | {width}x{height} | {content} |'


def _is_of_rooms(manifest: Manifest) -> bool:
    return any(task.label_set is not None and task.label_set.name == 'rooms'
               for task in manifest.tasks)


def _score_table(scores: Mapping[str, Mapping[str, float | None]]) -> list[str]:
    metrics: dict[str, None] = {}
    for values in scores.values():
        metrics.update(dict.fromkeys(values))

    def cell(value: float | None) -> str:
        return 'not available' if value is None else f'{value:.4g}'

    header = ['metric', *scores]
    rows = [
        [metric, *(cell(values.get(metric)) for values in scores.values())] for metric in metrics
    ]
    return [
        f'| {" | ".join(header)} |',
        f'|{"---|" * len(header)}',
        *(f'| {" | ".join(row)} |' for row in rows),
    ]


def _listing(value: Any, indent: int = 0) -> list[str]:
    """Return nested provenance as a nested list."""
    lines = []
    for key, entry in value.items():
        label = f'{"  " * indent}* {str(key).replace("_", " ")}'
        if isinstance(entry, Mapping):
            lines += [label, *_listing(entry, indent + 1)]
        elif isinstance(entry, (list, tuple)):
            lines.append(f'{label}: {", ".join(str(part) for part in entry)}')
        else:
            lines.append(f'{label}: {entry}')
    return lines


def write_card(manifest: Manifest, label_scale_cost: float | None = None) -> str:
    """
    Return the README.md of a bundle.

    :param label_scale_cost: the share of pixels whose label differs from the answer at full
        size; where labels leave the graph at full size, the share that would at half of it
    """
    height, width = manifest.network_size
    lines = [f'# {manifest.name}', '']
    if manifest.description:
        lines += [manifest.description, '']
    auxiliary = ', '.join(task.name for task in manifest.auxiliary)
    lines += [
        '## What it is',
        '',
        f'* system: {manifest.system} (mode {manifest.mode}), backbone {manifest.backbone}'
        + (f', neck {"/".join(map(str, manifest.neck))}' if manifest.neck else ''),
        f'* input: RGB image, {width}x{height} pixels',
        *([f'* auxiliary tasks, used inside only: {auxiliary}'] if auxiliary else []),
        '',
        '| output | kind | size | content |',
        '|---|---|---|---|',
        *(_describe(task, manifest) for task in manifest.tasks),
        '',
    ]
    if label_scale_cost is not None and manifest.label_step == 1:
        lines += [
            'Labels are decided at network size. At half of it, which is cheaper, '
            f'{label_scale_cost:.2%} of the pixels of the check frame would get another label.',
            '',
        ]
    elif label_scale_cost is not None:
        lines += [
            f'Labels are decided at {manifest.label_scale:g} of the network size, which is '
            f'cheaper; on the check frame {label_scale_cost:.2%} of the pixels get another label '
            'than at full size.',
            '',
        ]
    lines += ['## Trained on', '']
    lines += _listing(manifest.provenance) or ['Not recorded.']
    lines += ['', '## Scores', '']
    lines += _score_table(manifest.scores) if manifest.scores else ['None measured.']
    lines += ['', '## What it cannot do', '']
    lines += [f'* {limit}' for limit in (*manifest.limitations, *_GENERAL_LIMITS)]
    return '\n'.join(lines) + '\n'
