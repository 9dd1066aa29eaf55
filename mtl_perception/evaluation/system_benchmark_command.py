# SPDX-License-Identifier: Apache-2.0
"""`benchmark systems`: every system on every CPU engine, and built for GPUs, in one table."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import json
import os
from pathlib import Path
import subprocess
import sys
import tempfile
from typing import Any

from mtl_perception.command_line import listed, one_of, positive, progress_bar, size
from mtl_perception.evaluation.benchmark import gpu_name, machine
from mtl_perception.evaluation.engine_report import write_section, writing_results
from mtl_perception.evaluation.errors import EvaluationError
from mtl_perception.evaluation.system_ratios import system_ratios
from mtl_perception.evaluation.system_report import (
    builds_markdown,
    costs_markdown,
    engines_markdown,
    plot_systems,
)
from mtl_perception.evaluation.system_worker import RESULTS
from mtl_perception.files import write_json
from rich.console import Console

_EXAMPLE = """example, the one that writes docs/benchmarks.md:
  python3 -m mtl_perception benchmark systems --markdown docs/benchmarks.md \\
      --plot docs/images/systems.png --json systems.json
"""
_PARTS = ('engines', 'builds', 'ratios')


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python3 -m mtl_perception benchmark systems',
        description='Time every system with random weights in PyTorch eager, ONNX Runtime and '
        'OpenVINO (fp32, bf16), or where PyTorch finds a GPU in PyTorch eager (fp32, fp16), as '
        'CUDA graph (fp16) and compiled (fp32); the engines in turn, each system in a process of '
        'its own; build each with TensorRT-RTX, which needs no GPU; or compare what the systems '
        'cost.',
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--system', nargs='+', metavar='NAME', help='only these (default: all)')
    parser.add_argument(
        '--backbone', default='mobilenetv2_100', metavar='NAME', help='default: mobilenetv2_100'
    )
    parser.add_argument(
        '--size', type=size, default=(240, 320), metavar='HxW', help='default: 240x320'
    )
    parser.add_argument(
        '--parts', type=listed(one_of(_PARTS)), default=['engines', 'builds'], metavar='P[,P]',
        help='engines: time them; builds: TensorRT-RTX (default: these two); ratios: what a frame '
        'costs in PyTorch against the multi-task baseline and four single-task networks',
    )
    parser.add_argument('--threads', type=listed(positive), default=[1, 2], metavar='N[,N]')
    parser.add_argument('--rounds', type=positive, default=20, help='of each (default: 20)')
    parser.add_argument(
        '--bundles', type=Path, metavar='DIR', help='keep the bundles here for the next time'
    )
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the numbers here')
    parser.add_argument('--plot', type=Path, metavar='FILE', help='draw the ratios (png, svg)')
    parser.add_argument(
        '--markdown', type=Path, metavar='FILE', help='put the tables into this file'
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Compare systems; return 0."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.plot is not None and 'engines' not in arguments.parts:
        parser.error('--plot draws the part engines')
    systems = arguments.system
    if systems is None:
        from mtl_perception.networks.build import SYSTEMS

        systems = list(SYSTEMS)
    console = Console()
    with (
        tempfile.TemporaryDirectory(prefix='mtl_perception_systems_') as scratch,
        progress_bar(transient=True) as bar,
    ):
        bundles = arguments.bundles or Path(scratch)
        entries = [
            _measure(system, bundles, arguments)
            for system in bar.track(systems, description='systems')
            if arguments.parts != ['ratios']
        ]
        compared = None
        if 'ratios' in arguments.parts:
            compared = system_ratios(
                systems, arguments.backbone, arguments.size, arguments.rounds
            )
    # One that was timed and could not be built has an error and a result.
    if entries and not any(set(entry) & set(RESULTS) for entry in entries):
        msg = f"no system could be measured: {entries[0]['system']}: {entries[0]['error']}"
        raise EvaluationError(msg)
    document = {
        'backbone': arguments.backbone,
        'size': list(arguments.size),
        'rounds': arguments.rounds,
        'machine': machine(),
        'gpu': gpu_name(),
        'systems': entries,
        'ratios': compared,
    }
    reports = {
        'engines': engines_markdown, 'builds': builds_markdown, 'ratios': costs_markdown
    }
    with writing_results():
        for part in arguments.parts:
            text = reports[part](document)
            console.print(text, markup=False, highlight=False, soft_wrap=True)
            if arguments.markdown is not None:
                write_section(arguments.markdown, text, f'systems, {part}')
        if arguments.json is not None:
            write_json(arguments.json, document)
        if arguments.plot is not None and any('comparison' in entry for entry in entries):
            plot_systems(document, arguments.plot)
    return 0


def _measure(system: str, bundles: Path, arguments: Any) -> dict[str, Any]:
    wish = {
        'system': system, 'backbone': arguments.backbone, 'size': arguments.size,
        'bundles': str(bundles), 'rounds': arguments.rounds,
        'threads': arguments.threads if 'engines' in arguments.parts else [],
        'build': 'builds' in arguments.parts,
    }  # fmt: skip
    # Threads that spin at a barrier would take the cores of the engine whose turn it is.
    environment = {**os.environ, 'OMP_WAIT_POLICY': 'PASSIVE'}
    result = subprocess.run(
        [sys.executable, '-m', 'mtl_perception.evaluation.system_worker', json.dumps(wish)],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    lines = result.stdout.splitlines()
    if result.returncode or not lines:
        said = (result.stderr.strip().splitlines() or ['it said nothing'])[-1]
        reason = f'its process ended with code {result.returncode}: {said}'
        return {'system': system, 'backbone': arguments.backbone, 'error': reason}
    document: dict[str, Any] = json.loads(lines[-1])
    return document
