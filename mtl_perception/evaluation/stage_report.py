# SPDX-License-Identifier: Apache-2.0
"""What `benchmark` and `benchmark soak` measured, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtl_perception.evaluation.engine_report import where_measured


def stages_markdown(document: Mapping[str, Any]) -> str:
    """Return the table of stages: median and 95th percentile in ms, one column per variant."""
    width, height = document['camera_size']
    variants = document['variants']
    lines = [
        f"`{document['model']}` on a {width}x{height} camera, every output built; "
        f"{document['frames']} frames each, in turn; {_load(document)}.",
        '',
        'Median (95th percentile) in ms. "All but the engine" counts the raw image, not the JPEG.',
        '',
        f'| stage | {" | ".join(variant["name"] for variant in variants)} |',
        '|---|' + '---|' * len(variants),
    ]
    for stage in variants[0]['latency_ms']:
        values = [variant['latency_ms'][stage] for variant in variants]
        cells = ' | '.join(f"{one['median']:.1f} ({one['p95']:.1f})" for one in values)
        lines.append(f'| {stage} | {cells} |')
    outside = [variant['outside_engine_ms']['median'] for variant in variants]
    lines.append(f'| all but the engine | {" | ".join(f"{one:.1f}" for one in outside)} |')
    if document['left_out']:
        lines += ['', f"Left out: {document['left_out']}."]
    return '\n'.join(lines) + '\n'


def soak_markdown(document: Mapping[str, Any]) -> str:
    """Return in words how much a process grew over many frames."""
    samples = document['resident_mib']
    first, last = min(samples), max(samples)
    return (
        f"`{document['model']}` on {document['engine']}: {document['frames']} frames in "
        f"{document['seconds']:.0f} s. {samples[first]:.1f} MiB resident after frame {first}, "
        f"{samples[last]:.1f} MiB at the end: {document['growth_mib']:+.2f} MiB; "
        f'{_load(document)}.\n'
    )


def _load(document: Mapping[str, Any]) -> str:
    about = document['machine']
    return f"load of the machine {about['load_average_1min']}. {where_measured(about)}"
