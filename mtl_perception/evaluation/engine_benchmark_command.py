# SPDX-License-Identifier: Apache-2.0
"""`benchmark engines`: engines x precisions x sizes x batches, as JSON, table and plot."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from itertools import product
import json
from pathlib import Path
import re
import tempfile
from typing import Any

from mtl_perception.evaluation.benchmark import machine
from mtl_perception.evaluation.engine_benchmark import compare_engines, EngineVariant
from mtl_perception.evaluation.engine_report import markdown, plot, write_section
from mtl_perception.evaluation.errors import EvaluationError
from mtl_perception.files import atomic_write
from mtl_perception.inference.device import nvidia_gpu_present
from mtl_perception.inference.engine import engine_class, ENGINES, PRECISIONS
from mtl_perception.inference.resizing import resized_bundle
from mtl_perception.manifest import default_bundle, load_manifest
from rich.console import Console
from rich.progress import track

_EXAMPLE = """example, the one that writes docs/benchmarks.md:
  python3 -m mtl_perception benchmark engines --threads 1,2 --markdown docs/benchmarks.md \\
      --plot docs/images/engines.png --json engines.json
"""


def _list_of(known: Sequence[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(',')
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f'{name!r} is not one of {", ".join(known)}')
        return names

    return parse


def _numbers(text: str) -> list[int]:
    if not all(entry.isdecimal() and int(entry) for entry in text.split(',')):
        raise argparse.ArgumentTypeError(f'{text!r} is not a list of positive numbers such as 1,2')
    return [int(entry) for entry in text.split(',')]


def _sizes(text: str) -> list[tuple[int, int]]:
    matches = [re.fullmatch(r'([1-9]\d*)x([1-9]\d*)', entry) for entry in text.split(',')]
    sizes = [(int(match[1]), int(match[2])) for match in matches if match is not None]
    if len(sizes) < len(matches):
        raise argparse.ArgumentTypeError(f'{text!r} is not a list of HxW such as 240x320,480x640')
    return sizes


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python3 -m mtl_perception benchmark engines',
        description='Compare engines on one bundle. Each runs in a process of its own; those of '
        'one size, batch and number of threads take turns run by run.',
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--model', type=Path, help='bundle folder (default: the shipped one)')
    parser.add_argument(
        '--engine', type=_list_of(list(ENGINES)), metavar='NAME[,NAME]',
        default=['torch', 'onnxruntime', 'openvino'],
        help=f'any of {", ".join(ENGINES)} (default: torch,onnxruntime,openvino)',
    )
    parser.add_argument(
        '--precision', type=_list_of(PRECISIONS), default=['fp32', 'bf16'], metavar='P[,P]',
        help='taken where an engine has it (default: fp32,bf16)',
    )
    parser.add_argument(
        '--size', type=_sizes, metavar='HxW[,HxW]',
        help="of the network's input (default: the bundle's own; others need torch)",
    )
    parser.add_argument('--batch', type=_numbers, default=[1], metavar='N[,N]')
    parser.add_argument('--threads', type=_numbers, default=[1], metavar='N[,N]')
    parser.add_argument('--runs', type=int, default=50, help='of each (default: 50)')
    parser.add_argument('--cache', type=Path, help="engine cache (default: the user's own)")
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the numbers here')
    parser.add_argument('--plot', type=Path, metavar='FILE', help='draw the medians (png, svg)')
    parser.add_argument(
        '--markdown', type=Path, metavar='FILE', help='put the tables into this file'
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Compare engines; return 0."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.runs < 1:
        parser.error('--runs must be at least 1')
    model = arguments.model or default_bundle()
    manifest = load_manifest(model)
    console = Console()
    with tempfile.TemporaryDirectory(prefix='mtl_perception_sizes_') as scratch:
        variants = _variants(arguments, model, Path(scratch))
        if not variants:
            parser.error('no engine has any of these precisions')
        steps = range(arguments.runs * len(variants))
        bar = iter(track(steps, 'runs', console=console, transient=True))
        rows = compare_engines(
            variants, arguments.runs, cache=arguments.cache, progress=lambda: next(bar, None)
        )
    document = {
        'model': manifest.name,
        'network': f'{manifest.system} on {manifest.backbone}',
        'runs': arguments.runs,
        'machine': machine(),
        'gpu': _gpu_name(),
        'rows': [row.to_json() for row in rows],
    }
    text = markdown(rows, manifest.tasks, document)
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    try:
        if arguments.json is not None:
            atomic_write(arguments.json, json.dumps(document, indent=2) + '\n')
        if arguments.markdown is not None:
            write_section(arguments.markdown, text)
        if arguments.plot is not None:
            plot(rows, arguments.plot)
    except OSError as error:
        msg = f'the results cannot be written: {error}'
        raise EvaluationError(msg) from error
    return 0


def _variants(arguments: Any, model: Path, scratch: Path) -> list[EngineVariant]:
    sizes = arguments.size or [load_manifest(model).network_size]
    bundles = {size: resized_bundle(model, size, scratch) for size in sizes}
    return [
        EngineVariant(bundle, size, engine, precision, batch, count)
        for size, bundle in bundles.items()
        for batch, count in product(arguments.batch, arguments.threads)
        for engine, precision in product(arguments.engine, arguments.precision)
        if precision in engine_class(engine).precisions
    ]


def _gpu_name() -> str:
    if not nvidia_gpu_present():
        return ''
    from mtl_perception.inference.tensorrt_runtime import gpu

    return str(gpu('benchmark'))
