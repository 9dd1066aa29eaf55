# SPDX-License-Identifier: Apache-2.0
"""`benchmark soak`: whether a process that perceives frame after frame keeps its memory."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
import time
from typing import Any

from mtl_perception.command_line import positive, progress_bar, size
from mtl_perception.evaluation.benchmark import benchmark_images, machine
from mtl_perception.evaluation.engine_report import write_section, writing_results
from mtl_perception.evaluation.memory import resident_mib
from mtl_perception.evaluation.stage_report import soak_markdown
from mtl_perception.files import write_json
from mtl_perception.inference.engine import ENGINE_NAMES, open_engine
from mtl_perception.inference.perceiver import Perceiver
from mtl_perception.manifest import default_bundle
from mtl_perception.values import Frame
import numpy as np
from rich.console import Console

_EXAMPLE = """example:
  python3 -m mtl_perception benchmark soak --frames 10000 --threads 1
"""
# Buffers, pools and lazy imports have come by then.
_SETTLED_FRAMES = 100
_SAMPLES = 100


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python3 -m mtl_perception benchmark soak',
        description='Perceive many frames and tell how much the memory of the process grew after '
        f'the first {_SETTLED_FRAMES}.',
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--model', type=Path, help='bundle folder (default: the shipped one)')
    parser.add_argument('--engine', choices=ENGINE_NAMES, default='onnxruntime')
    parser.add_argument('--threads', type=positive, help='of the engine (default: all cores)')
    parser.add_argument('--frames', type=positive, default=10000, help='default: 10000')
    parser.add_argument(
        '--size', type=size, default=(640, 480), metavar='WxH', help='camera (default: 640x480)'
    )
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the numbers here')
    parser.add_argument(
        '--markdown', type=Path, metavar='FILE', help='put the sentence into this file'
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Perceive the frames; return 0."""
    arguments = _parser().parse_args(argv)
    model = arguments.model or default_bundle()
    started = time.perf_counter()
    with open_engine(model, arguments.engine, threads=arguments.threads) as engine:
        samples = soak(engine, model, arguments.size, arguments.frames)
        document: dict[str, Any] = {
            'model': engine.manifest.name,
            'engine': engine.name,
            'frames': arguments.frames,
            'seconds': time.perf_counter() - started,
            'machine': machine(),
            'resident_mib': samples,
            'growth_mib': growth_mib(samples),
        }
    Console().print(
        f"{document['model']} on {document['engine']}: {arguments.frames} frames in "
        f"{document['seconds']:.0f} s, {samples[max(samples)]:.1f} MiB at the end, grown by "
        f"{document['growth_mib']:.2f} MiB since frame {min(samples)}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    with writing_results():
        if arguments.json is not None:
            write_json(arguments.json, document)
        if arguments.markdown is not None:
            write_section(arguments.markdown, soak_markdown(document), 'soak')
    return 0


def soak(engine: Any, model: Path, camera_size: tuple[int, int], frames: int) -> dict[int, float]:
    """Return resident MiB by frame, after the engine settled and about a hundred times."""
    images = benchmark_images(model, *camera_size)
    width, height = camera_size
    pictures = [np.frombuffer(raw, np.uint8).reshape(height, width, 3) for raw in images.raw]
    perceiver = Perceiver(engine)
    settled = min(_SETTLED_FRAMES, frames // 2)
    step = max(frames // _SAMPLES, 1)
    samples: dict[int, float] = {}
    with progress_bar(transient=True) as bar:
        for index in bar.track(range(frames + 1), description='frames'):
            picture = pictures[index % len(pictures)]
            perceiver.perceive(Frame(picture, index, 'benchmark', images.camera))
            if index in (settled, frames) or (index > settled and index % step == 0):
                samples[index] = resident_mib()
    return samples


def growth_mib(samples: dict[int, float]) -> float:
    """Return the last of the samples less the first, MiB."""
    return samples[max(samples)] - samples[min(samples)]
