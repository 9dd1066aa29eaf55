# SPDX-License-Identifier: Apache-2.0
"""`compile`: build an engine before it is needed, list what is built, delete it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
import re
from typing import Any

from mtl_perception.command_line import progress_bar, size
from mtl_perception.inference.cache import EngineCache, Entry
from mtl_perception.inference.compiled import build_engine, engine_key, open_compiled
from mtl_perception.inference.device import Device
from mtl_perception.inference.engine import (
    AUTO,
    check_precision,
    choose_engine,
    COMPILED_ENGINES,
    InferenceError,
    PRECISIONS,
)
from mtl_perception.inference.resizing import resized_bundle
from mtl_perception.inference.verification import time_engine
from mtl_perception.manifest import default_bundle
from rich.console import Console
from rich.table import Table

_EXAMPLE = """examples:
  python3 -m mtl_perception compile --engine openvino
      for this processor, checked against the reference and kept for the live node
  python3 -m mtl_perception compile --model bundles/mine --engine tensorrt-rtx \\
      --target sm86,sm89,sm120 --precision fp16 --out engines
      for GPUs that are not here; copy `engines` to the robot's ~/.cache/mtl_perception/engines
  python3 -m mtl_perception compile --list
"""
_AHEAD = ('tensorrt-rtx',)


def _targets(text: str) -> list[str]:
    names = text.lower().split(',')
    for name in names:
        if not re.fullmatch(r'sm\d{2,3}', name):
            raise argparse.ArgumentTypeError(f'{name!r} is not a compute capability such as sm89')
    return names


def _batch(text: str) -> tuple[int, int]:
    match = re.fullmatch(r'([1-9]\d*)(?::([1-9]\d*))?', text)
    low, high = (0, 0) if match is None else (int(match[1]), int(match[2] or match[1]))
    if not 1 <= low <= high:
        raise argparse.ArgumentTypeError(f'{text!r} is not a range of batches such as 1:4')
    if low > 1:
        msg = f'{text!r} leaves out single frames, which is what the node runs; such as 1:4'
        raise argparse.ArgumentTypeError(msg)
    return low, high


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python3 -m mtl_perception compile',
        description='Build an engine of a bundle and keep it in the engine cache. On the device '
        'it is meant for it is at once checked against the fp32 reference and timed; elsewhere '
        'it is checked before its first use there.',
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--model', type=Path, help='bundle folder (default: the shipped one)')
    parser.add_argument(
        '--engine', choices=(AUTO, *COMPILED_ENGINES), default='openvino',
        help='auto: what the live node takes with engine:=auto (default: openvino)',
    )
    parser.add_argument(
        '--target', type=_targets, metavar='SM[,SM]',
        help='compute capabilities to build for without having them (tensorrt-rtx only)',
    )
    parser.add_argument('--precision', choices=PRECISIONS, help="default: the engine's own")
    parser.add_argument(
        '--size', type=size, metavar='HxW',
        help='another input size: the bundle at that size is written beside the engine',
    )
    parser.add_argument(
        '--batch', type=_batch, default=(1, 1), metavar='N[:N]',
        help='the batches it takes, from 1 on (default: 1); the node runs single frames',
    )
    parser.add_argument('--out', type=Path, help="engine cache (default: the user's own)")
    parser.add_argument('--list', action='store_true', help='list the engines in the cache')
    parser.add_argument('--purge', action='store_true', help='delete every engine in the cache')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Build an engine, or list or purge the cache; return 0."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.target and arguments.engine not in _AHEAD:
        parser.error(f'--target goes with --engine {", ".join(_AHEAD)} only')
    if arguments.batch != (1, 1) and arguments.engine not in _AHEAD:
        parser.error(f'--batch goes with --engine {", ".join(_AHEAD)} only')
    console = Console()
    cache = EngineCache(arguments.out)
    if arguments.purge:
        count = cache.purge()
        console.print(f'{count} engines deleted from {cache.directory}', highlight=False)
        return 0
    if arguments.list:
        _list(console, cache)
        return 0
    if arguments.engine == AUTO:
        choice = choose_engine(arguments.precision)
        console.print(f'engine auto: {choice.why}', highlight=False, markup=False)
        if choice.name not in COMPILED_ENGINES:
            console.print('it needs no building')
            return 0
        arguments.engine = choice.name
    precision = check_precision(arguments.engine, arguments.precision)
    model = arguments.model or default_bundle()
    if arguments.size is not None:
        model = resized_bundle(model, arguments.size, cache.directory.parent / 'bundles')
        console.print(f'the bundle at that size is {model}', highlight=False)
    _build(console, cache, model, precision, arguments)
    return 0


def _build(
    console: Console, cache: EngineCache, model: Path, precision: str, arguments: Any
) -> None:
    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    device = Device('any', ','.join(arguments.target)) if arguments.target else None
    key = engine_key(
        model, arguments.engine, precision, batch=arguments.batch, device=device
    )
    # Better than after minutes of building for nobody.
    cache.check_writable()
    with progress_bar(console=console, transient=True) as bar:
        task = bar.add_task('build', total=100)

        def progress(phase: str, share: float) -> None:
            bar.update(task, description=phase, completed=round(100 * share))

        entry, _ = build_engine(model, key, cache, say, progress)
    if entry is None:
        msg = f'the engine was built but could not be kept in {cache.directory}'
        raise InferenceError(msg)
    _describe(console, entry)
    if device is not None:
        say('built without its device: it is checked before its first use there')
        return
    with open_compiled(
        model, arguments.engine, threads=None, precision=precision, cache=cache, build=False,
        say=say, batch=arguments.batch,
    ) as engine:  # fmt: skip
        milliseconds = time_engine(engine, model)
    say(f'checked on {key.device}: {milliseconds:.1f} ms a frame')


def _describe(console: Console, entry: Entry) -> None:
    report = entry.document['report']
    console.print(
        f"{entry.key.engine} {entry.key.precision} of {entry.document['model']}: "
        f"{entry.size / 1e6:.1f} MB, {report.get('layers', '?')} layers, built in "
        f"{report.get('seconds', 0.0):.1f} s",
        highlight=False,
    )
    if counts := report.get('layers_by_precision'):
        words = ', '.join(f'{count} {name}' for name, count in counts.items())
        console.print(f'layers by the type they compute in: {words}', highlight=False)
    console.print(f'kept in {entry.directory}', highlight=False, soft_wrap=True)


def _list(console: Console, cache: EngineCache) -> None:
    entries = [(entry, '') for entry in cache.entries()]
    entries += [(entry, 'in quarantine') for entry in cache.quarantined_entries()]
    table = Table('model', 'engine', 'size', 'batch', 'device', 'MB', 'built', 'state')
    for entry, state in entries:
        key = entry.key
        checks = len(list(entry.directory.glob('verified-*.json')))
        table.add_row(
            str(entry.document.get('model', '?')),
            f'{key.engine} {key.precision}',
            f'{key.network_size[0]}x{key.network_size[1]}',
            ':'.join(str(number) for number in key.batch),
            str(key.device),
            f'{entry.size / 1e6:.1f}',
            str(entry.document.get('built', '?')),
            state or (f'checked on {checks}' if checks else 'not checked yet'),
        )
    console.print(table)
    total = sum(entry.size for entry, _ in entries) / 1e6
    console.print(f'{len(entries)} engines, {total:.1f} MB in {cache.directory}', highlight=False)
