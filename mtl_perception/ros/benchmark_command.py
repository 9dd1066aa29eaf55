# SPDX-License-Identifier: Apache-2.0
"""`benchmark`: milliseconds per stage of a frame, as a table and as JSON."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from functools import lru_cache
from itertools import product
import json
from pathlib import Path
import sys
import time
from typing import Any

from mtl_perception.evaluation.benchmark import (
    benchmark,
    benchmark_images,
    cloud_stage,
    LaterStages,
    machine,
    Variant,
    variant_report,
)
from mtl_perception.evaluation.errors import EvaluationError
from mtl_perception.files import atomic_write
from mtl_perception.inference.engine import ENGINES, open_engine
from mtl_perception.manifest import default_bundle
from mtl_perception.ros.memory import keep_freed_memory
from mtl_perception.tasks import Task
from mtl_perception.values import PerceptionMaps
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

_EXAMPLE = """example:
  python3 -m mtl_perception benchmark --threads 1,2 --size 640x480 --json benchmark.json
`benchmark engines --help` tells how to compare engines, precisions, sizes and batches.
"""


def _names(text: str) -> list[str]:
    names = text.split(',')
    for name in names:
        if name not in ENGINES:
            raise argparse.ArgumentTypeError(f'{name!r} is not one of {", ".join(ENGINES)}')
    return names


def _numbers(text: str) -> list[int]:
    if not all(entry.isdecimal() and int(entry) for entry in text.split(',')):
        raise argparse.ArgumentTypeError(f'{text!r} is not a list of positive numbers such as 1,2')
    return [int(entry) for entry in text.split(',')]


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition('x')
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f'{text!r} is not a size such as 640x480')
    return int(width), int(height)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python3 -m mtl_perception benchmark',
        description='Time every stage between a camera message and the published outputs, all of '
        'them built: decode, fit, engine, finish, cloud, and publish (filling and serialising '
        'the messages, without their transport). Engines take turns frame by frame.',
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--model', type=Path, help='bundle folder (default: the shipped one)')
    parser.add_argument(
        '--engine', type=_names, default=['onnxruntime'], metavar='NAME[,NAME]',
        help=f'any of {", ".join(ENGINES)} (default: onnxruntime)',
    )
    parser.add_argument(
        '--threads', type=_numbers, metavar='N[,N]', help='threads of the engine (default: all)'
    )
    parser.add_argument(
        '--size', type=_size, default=(640, 480), metavar='WxH', help='camera (default: 640x480)'
    )
    parser.add_argument('--frames', type=int, default=100, help='per variant (default: 100)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the numbers here')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ['engines']:
        from mtl_perception.evaluation.engine_benchmark_command import main as compare

        return compare(words[1:])
    parser = _parser()
    arguments = parser.parse_args(words)
    if arguments.frames < 1:
        parser.error('--frames must be at least 1')
    threads: list[int | None] = arguments.threads or [None]
    if 'torch' in arguments.engine and len(threads) > 1:
        parser.error('torch has one pool of threads per process: give one number to --threads')
    # As the live node does.
    keep_freed_memory()
    model = arguments.model or default_bundle()
    width, height = arguments.size
    console = Console()
    with ExitStack() as stack:
        variants = []
        for name, count in product(arguments.engine, threads):
            engine = stack.enter_context(open_engine(model, name, threads=count))
            stages, left_out = _later_stages(engine.manifest.tasks)
            label = name if count is None else f'{name}, {count} thread{"s" * (count > 1)}'
            variants.append(Variant(label, engine, stages))
        images = benchmark_images(model, width, height)
        steps = range(arguments.frames * len(variants))
        bar = iter(track(steps, 'frames', console=console, transient=True))
        benchmark(variants, images, arguments.frames, lambda: next(bar, None))
    document = {
        'model': engine.manifest.name,
        'camera_size': [width, height],
        'frames': arguments.frames,
        'machine': machine(),
        'left_out': left_out,
        'variants': [variant_report(variant) for variant in variants],
    }
    _print(console, document)
    if arguments.json is not None:
        try:
            atomic_write(arguments.json, json.dumps(document, indent=2) + '\n')
        except OSError as error:
            msg = f'--json {arguments.json} cannot be written: {error}'
            raise EvaluationError(msg) from error
    return 0


def _later_stages(tasks: Sequence[Task]) -> tuple[LaterStages, str]:
    """Return the stages after the maps, and what is left out of them, or ''."""
    try:
        import rclpy  # noqa: F401
    except ModuleNotFoundError:
        points = lru_cache(maxsize=1)(lambda shape: np.empty(shape, np.float32))
        return cloud_stage(tasks, points), 'publish: rclpy is not installed'
    return _message_stages(tasks), ''


def _message_stages(tasks: Sequence[Task]) -> LaterStages:
    """Return the stages that build, fill and serialise every message of the perception node."""
    from mtl_perception.ros.codec import camera_info_message, CloudMessage, image_message
    from mtl_perception.ros.outputs import image_outputs
    from rclpy.serialization import serialize_message
    from std_msgs.msg import Header

    outputs = [output for task in tasks for output in image_outputs(task)]
    cloud = CloudMessage()
    fuse = cloud_stage(tasks, cloud.points)
    header = Header(frame_id='benchmark')

    def run(maps: PerceptionMaps) -> dict[str, float]:
        stages = fuse(maps)
        started = time.perf_counter()
        for output in outputs:
            if (values := output.values(maps)) is not None:
                serialize_message(image_message(header, output.encoding, values))
        if stages and maps.camera is not None:
            serialize_message(camera_info_message(header, maps.camera))
            cloud.message.header = header
            serialize_message(cloud.message)
        return {**stages, 'publish': (time.perf_counter() - started) * 1e3}

    return run


def _print(console: Console, document: dict[str, Any]) -> None:
    about = document['machine']
    width, height = document['camera_size']
    console.print(
        f"{document['model']} at {width}x{height}, {document['frames']} frames each; "
        f"{about['processor']}, {about['cores_available']} of {about['cores']} cores, "
        f"load {about['load_average_1min']}",
        highlight=False,
    )
    variants = document['variants']
    table = Table('ms: median (p95)', *(entry['name'] for entry in variants))
    for stage in variants[0]['latency_ms']:
        cells = (entry['latency_ms'][stage] for entry in variants)
        table.add_row(stage, *(f"{cell['median']:.2f} ({cell['p95']:.2f})" for cell in cells))
    outside = (entry['outside_engine_ms']['median'] for entry in variants)
    table.add_section()
    table.add_row('all but the engine', *(f'{value:.2f}' for value in outside))
    console.print(table)
    console.print('decode is of a raw bgr8 image; "all but the engine" counts that, not the JPEG')
    if document['left_out']:
        console.print(f"left out: {document['left_out']}", style='yellow')
