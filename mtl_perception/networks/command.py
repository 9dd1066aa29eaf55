# SPDX-License-Identifier: Apache-2.0
"""`models`: every system on every backbone, and what each costs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
import json
from typing import TYPE_CHECKING

from mtl_perception.command_line import progress_bar, size
from mtl_perception.networks.errors import NetworkError
from mtl_perception.tasks import standard_tasks

if TYPE_CHECKING:
    from mtl_perception.networks.describe import NetworkCost

_EPILOG = """\
example:
  python3 -m mtl_perception models --system mti_net demt --size 480x640
  python3 -m mtl_perception models --backbone mobilenetv2_100 --json > costs.json

Every number is counted on the network itself: parameters (weights and biases) and floating-point
operations of one image, a multiplication and its addition being two. Tasks: the label set's
classes, depth, normals and edges; single_task has the classes alone.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python3 -m mtl_perception models',
        description='List the networks that can be built and what each costs.',
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--system', nargs='+', metavar='NAME', help='only these systems')
    parser.add_argument('--backbone', nargs='+', metavar='NAME', help='only these backbones')
    parser.add_argument(
        '--size', type=size, default=(240, 320), metavar='HxW',
        help='image size (default: 240x320)',
    )
    parser.add_argument(
        '--mode', default='corrected', choices=('corrected', 'published'),
        help='corrected as the papers mean it, or as the released code computes it',
    )
    parser.add_argument(
        '--labels', default='rooms', metavar='SET', help='label set (default: rooms)'
    )
    parser.add_argument('--json', action='store_true', help='print JSON instead of tables')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 when the counts are printed."""
    arguments = _parser().parse_args(argv)
    costs = _count(
        arguments.system, arguments.backbone, arguments.size, arguments.mode, arguments.labels
    )
    if arguments.json:
        print(json.dumps([_plain(cost) for cost in costs], indent=1))
    else:
        _print_tables(costs)
    return 0


def _count(
    systems: Sequence[str] | None,
    backbones: Sequence[str] | None,
    image_size: tuple[int, int],
    mode: str,
    labels: str,
) -> list[NetworkCost]:
    from mtl_perception.networks.backbones import BACKBONES
    from mtl_perception.networks.build import SYSTEMS
    from mtl_perception.networks.describe import network_cost

    for kind, wanted, known in (
        ('system', systems, tuple(SYSTEMS)), ('backbone', backbones, tuple(BACKBONES))
    ):
        if unknown := [name for name in wanted or () if name not in known]:
            raise NetworkError(f'unknown {kind} {unknown[0]!r}; known are {", ".join(known)}')
    tasks = standard_tasks(labels)
    cases = [
        (system, backbone)
        for system in systems or SYSTEMS
        for backbone in backbones or BACKBONES
        if mode in SYSTEMS[system].modes
    ]
    if not cases:
        raise NetworkError(f'none of {", ".join(systems or ())} has a {mode!r} mode')
    with progress_bar(transient=True) as bar:
        return [
            network_cost(
                system,
                tasks[:1] if system == 'single_task' else tasks,
                backbone=backbone,
                size=image_size,
                mode=mode,
            )
            for system, backbone in bar.track(cases, description='counting')
        ]


def _plain(cost: NetworkCost) -> dict[str, object]:
    from mtl_perception.networks.build import SYSTEMS

    return {**asdict(cost), 'good_for': SYSTEMS[cost.system].good_for}


def _print_tables(costs: Sequence[NetworkCost]) -> None:
    from mtl_perception.networks.build import SYSTEMS
    from rich.console import Console
    from rich.table import Table

    console = Console()
    height, width = costs[0].size
    table = Table(title=f'{costs[0].mode} mode, one image of {height}x{width}')
    for title in ('system', 'backbone'):
        table.add_column(title, no_wrap=True)
    for title in ('weights M', 'backbone M', 'GFLOP'):
        table.add_column(title, justify='right', no_wrap=True)
    table.add_column('neck', overflow='fold')
    for index, cost in enumerate(costs):
        last = index + 1 == len(costs) or costs[index + 1].system != cost.system
        table.add_row(
            cost.system,
            cost.backbone,
            f'{cost.parameters / 1e6:.2f}',
            f'{cost.backbone_parameters / 1e6:.2f}',
            f'{cost.flops / 1e9:.1f}',
            '/'.join(str(value) for value in cost.neck_widths) or 'none',
            end_section=last,
        )
    console.print(table)
    purposes = Table('system', 'good for', title='what each system is good for')
    for name in dict.fromkeys(cost.system for cost in costs):
        purposes.add_row(name, SYSTEMS[name].good_for)
    console.print(purposes)
