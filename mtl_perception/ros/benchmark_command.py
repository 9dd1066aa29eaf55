# SPDX-License-Identifier: Apache-2.0
"""`benchmark`: milliseconds per stage of a frame, as a table and as JSON."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from functools import lru_cache
from importlib import import_module
from itertools import product
import math
from pathlib import Path
import sys
from typing import Any

from mtl_perception.command_line import listed, one_of, positive, progress_bar, size
from mtl_perception.evaluation.benchmark import (
    benchmark,
    benchmark_images,
    cloud_stage,
    LaterStages,
    machine,
    Variant,
    variant_report,
)
from mtl_perception.evaluation.engine_report import write_section, writing_results
from mtl_perception.evaluation.stage_report import stages_markdown
from mtl_perception.files import write_json
from mtl_perception.inference.engine import ENGINE_NAMES, open_engine
from mtl_perception.inference.perceiver import Memory, new_memory
from mtl_perception.manifest import default_bundle
from mtl_perception.ros.memory import keep_freed_memory
from mtl_perception.tasks import Task
import numpy as np
from rich.console import Console
from rich.table import Table

# DDS has domains 0 to 101 for everybody on Linux; few think of this one.
_UNUSED_DOMAIN = 97
_EXAMPLE = """example:
  python3 -m mtl_perception benchmark --threads 1,2 --size 640x480 --json benchmark.json
`benchmark engines` compares engines, precisions, sizes and batches; `benchmark systems` every
system on every CPU engine; `benchmark soak` tells whether memory grows; `benchmark loader` whether
training waits for its data; `benchmark replay` times a replay and its halves. Each has its own
--help. `make benchmarks` puts the tables of the first three and of this one into
docs/benchmarks.md.
"""
_KINDS = {
    'engines': 'mtl_perception.evaluation.engine_benchmark_command',
    'systems': 'mtl_perception.evaluation.system_benchmark_command',
    'soak': 'mtl_perception.evaluation.soak_command',
    'loader': 'mtl_perception.training.loader_benchmark_command',
    'replay': 'mtl_perception.evaluation.replay_benchmark_command',
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python3 -m mtl_perception benchmark',
        description='Time every stage between a camera message and the published outputs, all of '
        'them built: decode, fit, engine, finish, cloud, and publish (the messages filled and '
        "serialised by the perception node's publishers, without their transport). Engines take "
        'turns frame by frame.',
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--model', type=Path, help='bundle folder (default: the shipped one)')
    parser.add_argument(
        '--engine', type=listed(one_of(ENGINE_NAMES)), default=['onnxruntime'],
        metavar='NAME[,NAME]',
        help=f'any of {", ".join(ENGINE_NAMES)} (default: onnxruntime)',
    )
    parser.add_argument(
        '--threads', type=listed(positive), metavar='N[,N]',
        help='threads of the engine (default: all)',
    )
    parser.add_argument(
        '--size', type=size, default=(640, 480), metavar='WxH', help='camera (default: 640x480)'
    )
    parser.add_argument('--frames', type=positive, default=100, help='per variant (default: 100)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the numbers here')
    parser.add_argument(
        '--markdown', type=Path, metavar='FILE', help='put the table into this file'
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0."""
    words = list(sys.argv[1:] if argv is None else argv)
    # As the live node does, and before anything is allocated.
    keep_freed_memory()
    if words and words[0] in _KINDS:
        return int(import_module(_KINDS[words[0]]).main(words[1:]))
    parser = _parser()
    arguments = parser.parse_args(words)
    threads: list[int | None] = arguments.threads or [None]
    if len(threads) > 1 and any(name.startswith('torch') for name in arguments.engine):
        parser.error('torch has one pool of threads per process: give one number to --threads')
    model = arguments.model or default_bundle()
    width, height = arguments.size
    console = Console()
    with ExitStack() as stack:
        variants = []
        for name, count in product(arguments.engine, threads):
            engine = stack.enter_context(open_engine(model, name, threads=count))
            stages, memory, left_out = _later_stages(engine.manifest.tasks, stack)
            label = name if count is None else f'{name}, {count} thread{"s" * (count > 1)}'
            variants.append(Variant(label, engine, stages, memory))
        images = benchmark_images(model, width, height)
        steps = range(arguments.frames * len(variants))
        with progress_bar(transient=True) as bar:
            ticks = iter(bar.track(steps, description='frames'))
            benchmark(variants, images, arguments.frames, lambda: next(ticks, None))
    document = {
        'model': engine.manifest.name,
        'camera_size': [width, height],
        'frames': arguments.frames,
        'machine': machine(),
        'left_out': left_out,
        'variants': [variant_report(variant) for variant in variants],
    }
    _print(console, document)
    with writing_results():
        if arguments.json is not None:
            write_json(arguments.json, document)
        if arguments.markdown is not None:
            write_section(arguments.markdown, stages_markdown(document), 'stages')
    return 0


def _later_stages(tasks: Sequence[Task], stack: ExitStack) -> tuple[LaterStages, Memory, str]:
    """Return the stages after the maps, where these lie, and what is left out, or ''."""
    try:
        import rclpy  # noqa: F401
    except ModuleNotFoundError:
        points = lru_cache(maxsize=1)(lambda shape: np.empty(shape, np.float32))
        return cloud_stage(tasks, points), new_memory, 'publish: rclpy is not installed'
    return *_publishing(tasks, stack), ''


def _publishing(tasks: Sequence[Task], stack: ExitStack) -> tuple[LaterStages, Memory]:
    """Return the stages in which the perception node's own publishers get every output."""
    from mtl_perception.ros.outputs import Outputs
    from mtl_perception.ros.perception_parameters import CloudSettings
    import rclpy
    from rclpy.context import Context
    from std_msgs.msg import Header

    context = Context()
    # A domain where nobody listens: messages are filled and serialised, and go no further.
    rclpy.init(args=[], context=context, domain_id=_UNUSED_DOMAIN)
    stack.callback(context.try_shutdown)
    node = rclpy.create_node('benchmark', context=context, start_parameter_services=False)
    stack.callback(node.destroy_node)
    outputs = Outputs(node, tuple(tasks), lambda problem: None)
    stack.callback(outputs.close)
    everything = outputs.everything()
    header = Header(frame_id='benchmark')
    settings = CloudSettings(stride=1, range_m=(0.0, math.inf), color_mode='camera')
    return lambda maps: outputs.publish(header, maps, everything, settings), outputs.memory


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
