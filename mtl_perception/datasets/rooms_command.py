# SPDX-License-Identifier: Apache-2.0
"""`rooms`: render labelled frames of procedural apartments to a folder or a rosbag2."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import as_completed, ProcessPoolExecutor
import json
import multiprocessing
from pathlib import Path
from typing import Any

from mtl_perception.command_line import positive, progress_bar, size
from mtl_perception.datasets.errors import DatasetError
from mtl_perception.datasets.rooms import settings_of, write_frame
from mtl_perception.files import atomic_directory, atomic_write, write_json
from mtl_perception.simulation.rooms import FIELD_OF_VIEW_DEG, world_frames
from mtl_perception.tasks import standard_tasks
import yaml

_BAG_RATE_HZ = 30.0
_EPILOG = """\
examples:
  python3 -m mtl_perception rooms --frames 2000 --seed 0 --out data/rooms --workers 2
  python3 -m mtl_perception rooms --frames 300 --out walk.bag --size 640x480 --bag

A folder that was begun with the same settings is continued where it stopped.
"""


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'{text!r} is not zero or a positive number')
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python3 -m mtl_perception rooms', description=__doc__, epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--frames', type=positive, required=True, help='how many frames')
    parser.add_argument('--seed', type=_seed, default=0, help='same seed, same frames (default 0)')
    parser.add_argument('--out', type=Path, required=True, help='the folder or bag to write')
    parser.add_argument('--size', type=size, default=(320, 240), help='default 320x240')
    parser.add_argument(
        '--field-of-view', type=float, nargs=2, default=FIELD_OF_VIEW_DEG,
        metavar=('MIN', 'MAX'),
        help='horizontal, degrees; each apartment is seen through one drawn between the two '
        '(default 50 85)',
    )
    parser.add_argument(
        '--frames-per-world', type=positive, default=None,
        help='frames of one apartment before the next (default 24; a bag: all of them)',
    )
    parser.add_argument('--workers', type=positive, default=1, help='processes (default 1)')
    parser.add_argument(
        '--bag', action='store_true',
        help='write a rosbag2 (MCAP): camera at 30 Hz, ground truth, odometry',
    )
    return parser


def render_world(
    directory: Path, seed: int, index: int, frames: int, frames_per_world: int,
    size: tuple[int, int], field_of_view_deg: tuple[float, float],
) -> int:
    """Render the first `frames` frames of one world into its directory; return how many."""
    import cv2

    # Parallelism is by world; OpenCV's threads would only get in each other's way.
    cv2.setNumThreads(1)
    with atomic_directory(_world_directory(directory, index)) as target:
        lines = []
        samples = world_frames(
            seed, index, frames_per_world, size=size, field_of_view_deg=field_of_view_deg
        )
        for number, sample in zip(range(frames), samples):
            lines.append(json.dumps(write_frame(sample, target, number)))
        (target / 'frames.jsonl').write_text('\n'.join(lines) + '\n')
    return frames


def _world_directory(directory: Path, index: int) -> Path:
    return directory / 'worlds' / f'{index:05d}'


def _finished(directory: Path, index: int) -> int:
    lines = _world_directory(directory, index) / 'frames.jsonl'
    return len(lines.read_text().splitlines()) if lines.is_file() else 0


def write_dataset(
    directory: Path, seed: int, frames: int, *, size: tuple[int, int] = (320, 240),
    field_of_view_deg: tuple[float, float] = FIELD_OF_VIEW_DEG,
    frames_per_world: int = 24, workers: int = 1,
) -> None:
    """
    Render `frames` frames into a folder, or continue one; see `datasets.rooms` for its layout.

    Raises
    ------
    DatasetError
        If the folder holds something else or was begun with other settings.

    """
    directory.mkdir(parents=True, exist_ok=True)
    settings = settings_of(seed, frames_per_world, size, field_of_view_deg)
    settings_path = directory / 'rooms.json'
    if settings_path.exists():
        found = json.loads(settings_path.read_text())
        if found != settings:
            raise DatasetError(
                f'{directory} was begun with {found}, not {settings}; choose another --out or '
                'the same settings'
            )
    elif any(directory.iterdir()):
        raise DatasetError(f'{directory} is not empty and holds no rooms; choose another --out')
    tasks = [task.to_json() for task in standard_tasks('rooms')]
    atomic_write(directory / 'tasks.yaml', yaml.safe_dump(tasks, sort_keys=False))
    write_json(settings_path, settings)
    jobs: list[tuple[Any, ...]] = []
    done = 0
    for index in range(-(-frames // frames_per_world)):
        count = min(frames_per_world, frames - index * frames_per_world)
        if _finished(directory, index) >= count:
            done += count
        else:
            jobs.append(
                (directory, seed, index, count, frames_per_world, size, field_of_view_deg)
            )
    _run(jobs, done, frames, workers)


def _run(jobs: list[tuple[Any, ...]], done: int, frames: int, workers: int) -> None:
    with progress_bar() as bar:
        task = bar.add_task('rooms', total=frames, completed=done)
        if workers == 1:
            for job in jobs:
                bar.advance(task, render_world(*job))
            return
        # Forking would copy OpenCV's threads and whatever else the caller has loaded.
        context = multiprocessing.get_context('spawn')
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            running = [pool.submit(render_world, *job) for job in jobs]
            try:
                for future in as_completed(running):
                    bar.advance(task, future.result())
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    low, high = arguments.field_of_view
    if not 0 < low <= high < 180:
        parser.error(f'--field-of-view {low:g} {high:g} should rise, between 0 and 180')
    if arguments.bag:
        from mtl_perception.datasets.bag_writer import write_rooms_bag

        with progress_bar() as bar:
            task = bar.add_task('rooms', total=arguments.frames)
            write_rooms_bag(
                arguments.out, arguments.seed, arguments.frames, size=arguments.size,
                field_of_view_deg=(low, high),
                frames_per_world=arguments.frames_per_world or arguments.frames,
                rate_hz=_BAG_RATE_HZ, on_frame=lambda: bar.advance(task),
            )
    else:
        write_dataset(
            arguments.out, arguments.seed, arguments.frames, size=arguments.size,
            field_of_view_deg=(low, high),
            frames_per_world=arguments.frames_per_world or 24, workers=arguments.workers,
        )
    return 0
