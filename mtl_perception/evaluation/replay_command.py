# SPDX-License-Identifier: Apache-2.0
"""`python3 -m mtl_perception replay`: a rosbag in, numbers and pictures out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
import signal
from typing import Any

from mtl_perception.bags.frames import BagReader
from mtl_perception.bags.topics import BagTopics
from mtl_perception.evaluation.errors import EvaluationError
from mtl_perception.evaluation.replay import Replay, ReplayReport, write_report
from mtl_perception.inference.engine import ENGINES, open_engine
from mtl_perception.inference.perceiver import Perceiver
from mtl_perception.manifest import default_bundle
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

_EXAMPLE = """example:
  python3 -m mtl_perception replay my_bag --out results
  python3 -m mtl_perception replay my_bag --out results --model my_bundle \\
      --depth-topic /camera/aligned_depth_to_color/image_raw
"""
_TOPIC_HELP = {
    'image': 'colour image, raw or compressed',
    'camera_info': 'its intrinsics; without them there is no metric depth',
    'depth': 'measured depth in the frame of the image, 16UC1 or 32FC1',
    'semantic': 'true labels, the ids of the model',
    'normals': 'true normals, 32FC3 in the optical frame',
    'edges': 'true edges, mono8',
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python3 -m mtl_perception replay',
        description='Run a model over every frame of a rosbag2 (no ROS needed) and score it by '
        'what the bag holds: depth, and normals computed from it, or ground-truth topics. '
        'Writes metrics.json, per_frame.csv and pictures.',
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('bag', type=Path, help='rosbag2 folder, or its .mcap or .db3 file')
    parser.add_argument('--out', type=Path, required=True, help='folder for the results')
    parser.add_argument('--model', type=Path, help='bundle folder (default: the shipped one)')
    parser.add_argument('--engine', choices=sorted(ENGINES), default='onnxruntime')
    parser.add_argument('--threads', type=int, help='threads of the engine (default: all cores)')
    for role, text in _TOPIC_HELP.items():
        option = f'--{role.replace("_", "-")}-topic'
        parser.add_argument(option, metavar='TOPIC', help=f'{text} (default: found by name)')
    parser.add_argument(
        '--tolerance-ms',
        type=float,
        default=20.0,
        metavar='MS',
        help='how far apart the stamps of an image and its depth may be (default: 20)',
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Replay a bag; return 0, or 130 if Ctrl-C ended it early (results are written)."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.tolerance_ms < 0:
        parser.error('--tolerance-ms must not be negative')
    given = BagTopics(
        **{entry.name: getattr(arguments, f'{entry.name}_topic') for entry in fields(BagTopics)}
    )
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f'--out {arguments.out} cannot be made: {error}'
        raise EvaluationError(msg) from error
    model = arguments.model or default_bundle()
    console = Console()
    tolerance_s = arguments.tolerance_ms / 1e3
    with (
        BagReader(arguments.bag, given, tolerance_s=tolerance_s) as reader,
        open_engine(model, arguments.engine, threads=arguments.threads) as engine,
    ):
        _print_topics(console, reader)
        tasks = engine.manifest.tasks
        replay = Replay(reader, Perceiver(engine).perceive, tasks, arguments.out)
        try:
            report = _run(console, reader, replay)
            write_report(
                report, arguments.out, model=engine.manifest.name, engine=engine.name
            )
        except OSError as error:
            msg = f'the results cannot be written to {arguments.out}: {error}'
            raise EvaluationError(msg) from error
    print_report(console, report, arguments.out)
    if report.interrupted:
        return 128 + signal.SIGINT
    if not report.processed:
        reason = next(iter(report.refused), 'the image topic has no messages')
        msg = f'{arguments.bag}: no frame could be processed: {reason}'
        raise EvaluationError(msg)
    return 0


def _print_topics(console: Console, reader: BagReader) -> None:
    for role, topic in vars(reader.topics).items():
        if topic is not None:
            console.print(f'{role:12} {topic}', highlight=False)
    if not reader.topics.targets:
        console.print(
            'There is no depth and no ground truth in this bag: pictures and latencies only. '
            'If a topic was overlooked, name it (--depth-topic ...).'
        )


def _run(console: Console, reader: BagReader, replay: Replay) -> ReplayReport:
    columns = (
        TextColumn('frames'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console) as progress:
        task = progress.add_task('frames', total=reader.frame_count)
        return replay.run(lambda frames: progress.update(task, completed=frames))


def print_report(console: Console, report: ReplayReport, directory: Path) -> None:
    """Print the scores, the latencies and everything that was lost or refused."""
    console.print(
        f'{report.processed} of {report.frames} frames processed'
        + (', interrupted' if report.interrupted else '')
    )
    for task, values in report.scores.items():
        title = f'{task} ({report.frames_scored[task]} frames)'
        _print_numbers(console, title, values)
    for task, values in report.class_iou.items():
        _print_numbers(console, f'{task}: IoU by class', values)
    if report.latency_ms:
        table = Table('ms', *next(iter(report.latency_ms.values())), title='latency')
        for stage, values in report.latency_ms.items():
            table.add_row(stage, *(f'{value:.1f}' for value in values.values()))
        console.print(table)
        console.print(f'{report.frames_per_second:.1f} frames per second without reading, scoring')
    for sentence in report.damage:
        console.print(f'damaged: {sentence}', style='red', markup=False)
    for topic, (read, recorded) in report.lost.items():
        sentence = f'lost: {recorded - read} of {recorded} messages of {topic}'
        console.print(sentence, style='red', markup=False)
    for what, counter in (('refused', report.refused), ('note', report.notes)):
        for sentence, count in counter.most_common(10):
            console.print(f'{what} ({count} frames): {sentence}', style='yellow', markup=False)
    console.print(f'results are in {directory}', highlight=False)


def _print_numbers(console: Console, title: str, values: dict[str, Any]) -> None:
    table = Table('', 'value', title=title)
    for name, value in values.items():
        table.add_row(name, f'{value:.4f}')
    console.print(table)
