# SPDX-License-Identifier: Apache-2.0
"""`benchmark engines`: engines x precisions x sizes x batches, as JSON, table and plot."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path
import tempfile
from typing import Any

from mtl_perception.command_line import listed, one_of, positive, progress_bar, size
from mtl_perception.evaluation.benchmark import gpu_name, machine
from mtl_perception.evaluation.engine_benchmark import compare_engines, EngineVariant
from mtl_perception.evaluation.engine_report import markdown, plot, write_section, writing_results
from mtl_perception.files import write_json
from mtl_perception.inference.engine import (
    AUTO,
    choose_engine,
    engine_class,
    ENGINE_NAMES,
    PRECISIONS,
)
from mtl_perception.inference.resizing import resized_bundle
from mtl_perception.manifest import default_bundle, load_manifest
from rich.console import Console

_EXAMPLE = """example, the one that writes docs/benchmarks.md:
  python3 -m mtl_perception benchmark engines --threads 1,2 --markdown docs/benchmarks.md \\
      --plot docs/images/engines.png --json engines.json
"""


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
        '--engine', type=listed(one_of(ENGINE_NAMES)), metavar='NAME[,NAME]',
        default=['torch', 'onnxruntime', 'openvino'],
        help=f'any of {", ".join(ENGINE_NAMES)} (default: torch,onnxruntime,openvino)',
    )
    parser.add_argument(
        '--precision', type=listed(one_of(PRECISIONS)), default=['fp32', 'bf16'], metavar='P[,P]',
        help='taken where an engine has it (default: fp32,bf16)',
    )
    parser.add_argument(
        '--size', type=listed(size), metavar='HxW[,HxW]',
        help="of the network's input (default: the bundle's own; others need torch)",
    )
    parser.add_argument('--batch', type=listed(positive), default=[1], metavar='N[,N]')
    parser.add_argument('--threads', type=listed(positive), default=[1], metavar='N[,N]')
    parser.add_argument('--runs', type=positive, default=50, help='of each (default: 50)')
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
    model = arguments.model or default_bundle()
    manifest = load_manifest(model)
    gpu = gpu_name()
    console = Console()
    with tempfile.TemporaryDirectory(prefix='mtl_perception_sizes_') as scratch:
        variants = _variants(arguments, model, Path(scratch))
        if not variants:
            parser.error('no engine has any of these precisions')
        steps = range(arguments.runs * len(variants))
        with progress_bar(transient=True) as bar:
            ticks = iter(bar.track(steps, description='runs'))
            rows = compare_engines(
                variants, arguments.runs, cache=arguments.cache, progress=lambda: next(ticks, None)
            )
    document = {
        'model': manifest.name,
        'network': f'{manifest.system} on {manifest.backbone}',
        'runs': arguments.runs,
        'machine': machine(),
        'gpu': gpu,
        'rows': [row.to_json() for row in rows],
    }
    text = markdown(rows, manifest.tasks, document)
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    with writing_results():
        if arguments.json is not None:
            write_json(arguments.json, document)
        if arguments.markdown is not None:
            write_section(arguments.markdown, text)
        if arguments.plot is not None:
            plot(rows, arguments.plot)
    return 0


def _variants(arguments: Any, model: Path, scratch: Path) -> list[EngineVariant]:
    # One row for an engine that auto took and that was named too.
    engines = dict.fromkeys(
        choose_engine().name if name == AUTO else name for name in arguments.engine
    )
    sizes = arguments.size or [load_manifest(model).network_size]
    bundles = {size: resized_bundle(model, size, scratch) for size in sizes}
    return [
        EngineVariant(bundle, size, engine, precision, batch, count)
        for size, bundle in bundles.items()
        for batch, count in product(arguments.batch, arguments.threads)
        for engine, precision in product(engines, arguments.precision)
        if precision in engine_class(engine).precisions
    ]
