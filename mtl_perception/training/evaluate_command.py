# SPDX-License-Identifier: Apache-2.0
"""`evaluate`: a bundle and a labelled dataset in; scores, a table and pictures out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mtl_perception.training.evaluate import Evaluation
    from rich.console import Console

SCORES_FILE = 'evaluation.json'
PICTURE_FILE = 'evaluation.png'
_EPILOG = """\
example:
  python3 -m mtl_perception evaluate --data rooms:runs/rooms --split val --out results
  python3 -m mtl_perception evaluate --model runs/mti_net_nyud/bundle --data nyud:NYUD_MT \\
      --split val --protocol nyud_mti --out results
  python3 -m mtl_perception evaluate --data 'rosbag:my_bag?every=10' --split all --out results
"""


def _parser() -> argparse.ArgumentParser:
    from mtl_perception.inference.engine import ENGINE_NAMES
    from mtl_perception.metrics.task_metric import DEFAULT_PROTOCOL, PROTOCOLS

    parser = argparse.ArgumentParser(
        prog='python3 -m mtl_perception evaluate',
        description='Score a bundle on a labelled dataset, fitted to the network as the live node '
        f'does it. Writes {SCORES_FILE} and {PICTURE_FILE}.',
        epilog='protocols:\n'
        + ''.join(f'  {name:20} {each.source}\n' for name, each in PROTOCOLS.items())
        + f'\n{_EPILOG}',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--model', type=Path, help='bundle folder (default: the shipped one)')
    parser.add_argument(
        '--data', required=True, metavar='KIND:PATH?OPTIONS', help='as in docs/datasets.md'
    )
    parser.add_argument('--split', default='val', help='train, val or all (default: val)')
    parser.add_argument(
        '--protocol', default=DEFAULT_PROTOCOL, choices=list(PROTOCOLS), metavar='NAME',
        help=f'how scores are counted, see below (default: {DEFAULT_PROTOCOL})',
    )
    parser.add_argument('--out', type=Path, required=True, help='folder for the results')
    parser.add_argument('--engine', choices=ENGINE_NAMES, default='onnxruntime')
    parser.add_argument('--threads', type=int, help='threads of the engine (default: all cores)')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Score a bundle; return 0 when the results are written."""
    options = _parser().parse_args(argv)
    from mtl_perception.command_line import progress_bar
    from mtl_perception.datasets.dataset import open_dataset
    from mtl_perception.files import write_json
    from mtl_perception.inference.engine import open_engine
    from mtl_perception.manifest import default_bundle
    from mtl_perception.pictures import write_png
    from mtl_perception.training.errors import TrainingError
    from mtl_perception.training.evaluate import evaluate, evaluation_grid
    from rich.console import Console

    frames = open_dataset(options.data, options.split)
    model = options.model or default_bundle()
    console = Console()
    with open_engine(model, options.engine, threads=options.threads) as engine:
        with progress_bar() as bar:
            task = bar.add_task('frames', total=len(frames))
            result = evaluate(
                engine, frames, frames.tasks, options.protocol,
                lambda done: bar.update(task, completed=done),
            )  # fmt: skip
        picture = evaluation_grid(engine, frames, result.tasks)
    document = {**result.to_json(), 'data': options.data, 'split': options.split}
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        write_json(options.out / SCORES_FILE, document)
        write_png(options.out / PICTURE_FILE, picture)
    except OSError as error:
        msg = f'--out {options.out} cannot be written: {error.strerror}'
        raise TrainingError(msg) from error
    print_evaluation(console, result)
    console.print(f'written to {options.out}', highlight=False, soft_wrap=True)
    return 0


def print_evaluation(console: Console, result: Evaluation) -> None:
    """Print all scores, those that the protocol prints in bold, and the classes."""
    from rich.table import Table

    table = Table(
        'task', 'score', 'value',
        title=f'{result.model} on {result.frames} frames, protocol {result.protocol}',
    )  # fmt: skip
    headlines = {f'{name}.{each[0]}': each[2] for name, each in result.headlines.items()}
    for name, value in result.scores.items():
        task, _, key = name.partition('.')
        style = 'bold' if name in headlines else None
        arrow = {True: ' ↑', False: ' ↓'}.get(headlines.get(name), '')  # type: ignore[arg-type]
        table.add_row(task, key + arrow, f'{value:.4f}', style=style)
    console.print(table)
    for task, values in result.class_iou.items():
        words = ', '.join(
            f'{label} {value:.3f}' for label, value in values.items() if value == value
        )
        console.print(f'{task}, IoU by class: {words}', highlight=False)
    for note in result.notes:
        console.print(f'note: {note}', style='yellow', markup=False)
