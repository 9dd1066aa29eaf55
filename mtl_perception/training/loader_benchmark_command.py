# SPDX-License-Identifier: Apache-2.0
"""`benchmark loader`: the speed of training through the loader over that on one batch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
import os
from pathlib import Path
import tempfile
from typing import Any

from mtl_perception.command_line import positive, progress_bar

_EXAMPLE = """\
example:
  python3 -m mtl_perception benchmark loader --config config/train/rooms_small_start.yaml \\
    --data runs/rooms --json loader.json
"""
# Of the folder in NYUD's layout: 6 MB each, so that reading them is like reading the real one.
_NYUD_FRAMES = 48


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python3 -m mtl_perception benchmark loader',
        description='Time training steps of a recipe on one batch that stays in memory and, in '
        'turns with them, on batches of its loader. From rooms, the same frames are also written '
        'to a scratch folder in the layout and size of NYUD-v2 (0.3 GB) and loaded from there.',
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--config', type=Path, required=True, help='the recipe, a YAML file')
    parser.add_argument('--data', type=Path, help="data folder, instead of the recipe's data.root")
    parser.add_argument(
        '--turns', type=positive, default=4, metavar='N', help='of either (default: 4)'
    )
    parser.add_argument(
        '--steps', type=positive, default=10, metavar='N', help='counted a turn (default: 10)'
    )
    parser.add_argument(
        '--workers', type=positive, metavar='N', help="of the loader, instead of the recipe's"
    )
    parser.add_argument(
        '--device', default='cpu', choices=('cpu', 'cuda'), help='where to train (default: cpu)'
    )
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the numbers here')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Time the steps; return 0."""
    options = _parser().parse_args(argv)
    # As `train` does.
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

    from mtl_perception.datasets.dataset import open_dataset
    from mtl_perception.evaluation.benchmark import machine
    from mtl_perception.files import write_json
    from mtl_perception.training.errors import TrainingError
    from mtl_perception.training.loader_benchmark import (
        measure,
        NYUD_TASKS,
        SETTLING,
        write_nyud_like,
    )
    from mtl_perception.training.recipe import expand, load_recipe, Recipe
    from mtl_perception.training.source import open_split
    from rich.console import Console

    recipe = load_recipe(options.config)
    data = replace(recipe.data, workers=options.workers or recipe.data.workers)
    # Weights to start from do not change the time.
    network = replace(recipe.network, pretrained=None, initial=None)
    recipe = replace(recipe, data=data, network=network, adaptation=None)
    root = options.data or expand(data.root, 'data.root')
    frames = open_split(data.kind, root, data.train, data.options)
    plan = recipe.optimiser
    height, width = network.size
    console = Console()
    console.print(
        f'{recipe.name}: {width}x{height}, batches of {plan.batch_size}, {data.workers} workers',
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix='mtl_perception_loader_') as scratch:
        runs: list[tuple[Recipe, Any]] = [(recipe, frames)]
        if data.kind == 'rooms':
            write_nyud_like(frames, _NYUD_FRAMES, Path(scratch) / 'nyud')
            like = replace(recipe, tasks=NYUD_TASKS, data=replace(data, kind='nyud', options={}))
            runs.append((like, open_dataset(f'nyud:{scratch}/nyud', 'train')))
        steps = range(len(runs) * options.turns * 2 * (SETTLING + options.steps))
        with progress_bar(transient=True) as bar:
            ticks = iter(bar.track(steps, description='steps'))
            for each, given in runs:
                times = measure(
                    each, given, options.turns, options.steps, options.device,
                    lambda: next(ticks, None),
                )  # fmt: skip
                rows.append(times.to_json())
                # Now: what follows may take minutes.
                console.print(_line(rows[-1]), highlight=False, soft_wrap=True)
    if options.json is not None:
        document = {
            'recipe': recipe.name, 'size': list(network.size),
            'batch_size': plan.batch_size, 'workers': data.workers, 'device': options.device,
            'machine': machine(), 'rows': rows,
        }  # fmt: skip
        try:
            write_json(options.json, document)
        except OSError as error:
            msg = f'--json {options.json} cannot be written: {error}'
            raise TrainingError(msg) from error
    return 0


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['data']}: {row['speed_ratio']:.1%} of the speed on one batch; a step takes "
        f"{row['loader_ms']['median']:.0f} ms through the loader, "
        f"{row['memory_ms']['median']:.0f} ms without (medians of {row['steps']})"
    )
