# SPDX-License-Identifier: Apache-2.0
"""`python3 -m mtl_perception replay`: a rosbag in, numbers and pictures out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
import signal
from typing import Any

from mtl_perception.bags.frames import BagReader
from mtl_perception.bags.topics import BagTopics
from mtl_perception.calibration_file import load_calibration
from mtl_perception.command_line import positive, progress_bar
from mtl_perception.errors import MtlPerceptionError
from mtl_perception.evaluation.errors import EvaluationError
from mtl_perception.evaluation.output_bag import OutputBag
from mtl_perception.evaluation.perception_source import (
    add_live_arguments,
    check_live_arguments,
    OpenLive,
    perception_source,
)
from mtl_perception.evaluation.replay import Replay
from mtl_perception.evaluation.replay_observer import ReplayObserver
from mtl_perception.evaluation.replay_report import ReplayReport
from mtl_perception.evaluation.replay_runs import Outcome, plan_runs, Run, write_summary
from mtl_perception.evaluation.report.html_report import HtmlReport, REPORT_FILE
from mtl_perception.evaluation.scene_map import SceneMap
from mtl_perception.evaluation.segment_export import check_export
from mtl_perception.evaluation.worst_segments import print_worst, WorstSegments
from mtl_perception.inference.engine import ENGINE_NAMES
from mtl_perception.manifest import (
    default_bundle,
    file_digest,
    GRAPH_FILE,
    Manifest,
    WEIGHTS_FILE,
)
from rich.console import Console
from rich.table import Table

_EXAMPLE = """example:
  python3 -m mtl_perception replay my_bag --out results
  python3 -m mtl_perception replay my_bag --out results --model my_bundle \\
      --depth-topic /camera/aligned_depth_to_color/image_raw
  python3 -m mtl_perception replay kitchen corridor --out results --model old new \\
      --engine onnxruntime openvino        every combination, side by side in summary.json
"""
_TOPIC_HELP = {
    'image': 'colour image, raw or compressed',
    'camera_info': 'its intrinsics; without them there is no metric depth',
    'depth': 'measured depth in the frame of the image, 16UC1, 32FC1 or compressedDepth',
    'semantic': 'true labels, the ids of the model',
    'normals': 'true normals, 32FC3 in the optical frame',
    'edges': 'true edges, mono8',
    'odometry': 'how the camera moves, nav_msgs/Odometry',
    'tf': 'transforms',
    'tf_static': 'transforms that never change',
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python3 -m mtl_perception replay',
        description='Run models over every frame of rosbag2 recordings (no ROS needed) and score '
        'them by what the bags hold: depth, and normals computed from it, or ground-truth '
        'topics. Writes report.html, metrics.json, per_frame.csv and pictures; several runs into '
        'a folder each, compared in summary.json and on one page.',
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'bag', type=Path, nargs='+', help='rosbag2 folder, or its .mcap or .db3 file'
    )
    parser.add_argument('--out', type=Path, required=True, help='folder for the results')
    parser.add_argument(
        '--model', type=Path, nargs='+', help='bundle folders (default: the shipped one)'
    )
    parser.add_argument(
        '--engine', choices=ENGINE_NAMES, nargs='+', default=['onnxruntime'],
        help='default: onnxruntime',
    )  # fmt: skip
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
    parser.add_argument(
        '--camera', type=Path, metavar='FILE',
        help='calibration YAML (camera_calibration, or a printed camera_info) that replaces the '
        'camera_info of the bags',
    )  # fmt: skip
    parser.add_argument(
        '--image-is-rectified', action=argparse.BooleanOptionalAction, default=None,
        help='the image is free of distortion already: its camera is P of camera_info, and D is '
        'not applied again (default: as its topic says: image_rect, image_rect_color, ...)',
    )  # fmt: skip
    parser.add_argument(
        '--resume', action='store_true', help='go on where a replay into --out was ended'
    )
    parser.add_argument(
        '--segments', type=positive, default=3, metavar='N',
        help='how many worst segments to name, and to export (default: 3)',
    )  # fmt: skip
    parser.add_argument(
        '--export-worst', type=Path, metavar='DIR',
        help="write the worst segments of the bag's first 80 %% as DIR/train and its last 20 %% "
        'as DIR/validation, for `train --config config/train/rosbag_adapt.yaml --data DIR`',
    )
    parser.add_argument(
        '--map', action='store_true',
        help='fuse all frames whose camera pose is known into one labelled surface (PLY), from '
        'predicted and from measured depth; needs Open3D',
    )  # fmt: skip
    add_live_arguments(parser)
    parser.add_argument(
        '--write-bag', action='store_true',
        help="write bag/, an MCAP with the perception node's topics beside the recorded ones",
    )  # fmt: skip
    return parser


def _without_ros(*_: Any) -> Any:
    msg = 'a live replay needs the package with ROS: python3 -m mtl_perception replay ... --live'
    raise EvaluationError(msg)


def main(argv: Sequence[str] | None = None, open_live: OpenLive = _without_ros) -> int:
    """
    Replay the bags; return 0, or 130 if Ctrl-C ended it early (results are written).

    :param open_live: opens the running node for --live
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    check_live_arguments(parser, arguments)
    if arguments.tolerance_ms < 0:
        parser.error('--tolerance-ms must not be negative')
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f'--out {arguments.out} cannot be made: {error}'
        raise EvaluationError(msg) from error
    models = arguments.model or [default_bundle()]
    runs = plan_runs(arguments.bag, models, arguments.engine, arguments.out)
    if arguments.export_worst is not None:
        if len(runs) > 1:
            parser.error('--export-worst takes one bag, one model and one engine')
        check_export(arguments.export_worst)
    console = Console()
    page = HtmlReport(arguments.out / REPORT_FILE)
    outcomes: list[Outcome] = []
    for run in runs:
        if run.name:
            console.rule(run.name)
        try:
            outcome = Outcome(run, _replay(console, arguments, run, open_live, page))
        except MtlPerceptionError as error:
            if len(runs) == 1:
                raise
            # The others may well succeed.
            console.print(str(error), style='red', markup=False)
            outcome = Outcome(run, error=str(error))
        outcomes.append(outcome)
        if len(runs) > 1:
            try:
                write_summary(outcomes, arguments.out)
            except OSError as error:
                raise _unwritable(arguments.out, error) from error
        if outcome.report is not None and outcome.report.interrupted:
            return 128 + signal.SIGINT
    failed = [outcome for outcome in outcomes if outcome.report is None]
    if failed:
        msg = f'{len(failed)} of {len(runs)} runs failed, the first: {failed[0].error}'
        raise EvaluationError(msg)
    return 0


def _replay(
    console: Console, arguments: argparse.Namespace, run: Run, open_live: OpenLive,
    page: HtmlReport,
) -> ReplayReport:
    given = BagTopics(
        **{entry.name: getattr(arguments, f'{entry.name}_topic') for entry in fields(BagTopics)}
    )
    camera = None if arguments.camera is None else load_calibration(arguments.camera)
    with (
        BagReader(
            run.bag, given, tolerance_s=arguments.tolerance_ms / 1e3, camera=camera,
            image_is_rectified=arguments.image_is_rectified,
        ) as reader,
        ExitStack() as stack,
    ):
        _print_topics(console, reader)
        try:
            run.directory.mkdir(exist_ok=True)
            source = stack.enter_context(perception_source(run, reader, arguments, open_live))
            replay = Replay(
                reader,
                source.perceive,
                source.manifest.tasks,
                run.directory,
                _observers(arguments, stack, page),
                name=run.name,
                model=source.manifest.name,
                engine=source.engine,
                stages=source.stages,
                settings=_settings(arguments, given, source.manifest),
                peak_memory=source.peak_memory_mib,
                resume=arguments.resume,
            )
            report = _run(console, reader, replay)
        except OSError as error:
            raise _unwritable(run.directory, error) from error
    print_report(console, report, run.directory)
    if not report.processed and not report.interrupted:
        reason = next(iter(report.refused), 'the image topic has no messages')
        msg = f'{run.bag}: no frame could be processed: {reason}'
        raise EvaluationError(msg)
    return report


def _settings(
    arguments: argparse.Namespace, given: BagTopics, manifest: Manifest
) -> dict[str, Any]:
    """Return what changes the scores beside topics, model's name and engine."""
    camera = arguments.camera
    return {
        'model_files': {name: manifest.files.get(name) for name in (WEIGHTS_FILE, GRAPH_FILE)},
        'camera_file': None if camera is None else file_digest(camera),
        'tolerance_ms': arguments.tolerance_ms,
        'image_is_rectified': arguments.image_is_rectified,
        # A topic that is insisted on may be in another frame than the image.
        'given_topics': vars(given),
    }


def _observers(
    arguments: argparse.Namespace, stack: ExitStack, page: HtmlReport
) -> list[ReplayObserver]:
    """Return who looks on at one run, as the options ask; `stack` ends with the run."""
    observers: list[ReplayObserver] = [WorstSegments(arguments.segments, arguments.export_worst)]
    if arguments.write_bag:
        observers.append(stack.enter_context(OutputBag()))
    scene = stack.enter_context(SceneMap()) if arguments.map else None
    if scene is not None:
        observers.append(scene)
    # Last: it shows what the others have found.
    page.add_map(scene)
    observers.append(page)
    return observers


def _unwritable(directory: Path, error: OSError) -> EvaluationError:
    return EvaluationError(f'the results cannot be written to {directory}: {error}')


def _print_topics(console: Console, reader: BagReader) -> None:
    for role, topic in vars(reader.topics).items():
        if topic is not None:
            console.print(f'{role:12} {topic}', highlight=False)
    for sentence in reader.remarks:
        console.print(f'note: {sentence}', style='yellow', markup=False)
    if not reader.topics.targets:
        console.print(
            'There is no depth and no ground truth in this bag: pictures and latencies only. '
            'If a topic was overlooked, name it (--depth-topic ...).'
        )


def _run(console: Console, reader: BagReader, replay: Replay) -> ReplayReport:
    with progress_bar(console=console) as progress:
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
        words = 'came out' if 'live' in report.latency_ms else 'without reading, scoring'
        console.print(f'{report.frames_per_second:.1f} frames per second {words}')
    print_worst(console, report)
    for sentence in report.damage:
        console.print(f'damaged: {sentence}', style='red', markup=False)
    for sentence in report.warnings:
        console.print(f'warning: {sentence}', style='red', markup=False)
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
