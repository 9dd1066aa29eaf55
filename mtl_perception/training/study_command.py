# SPDX-License-Identifier: Apache-2.0
"""`study`: train several networks under one budget, and compare them by Delta_m."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
import os
from pathlib import Path
import time

_EPILOG = """\
example:
  python3 -m mtl_perception study --config config/study/rooms.yaml --data runs/rooms
  python3 -m mtl_perception study --config config/study/camvid.yaml --seeds 0 1 2

Repeat the command to go on with a study that was stopped: what is finished stays. More seeds and
networks can be added the same way.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python3 -m mtl_perception study',
        description='Train a list of networks and their single-task twins under one budget; '
        'write study.json, a table with Delta_m (study.md) and a plot (study.png).',
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--config', type=Path, required=True, help='the study, a YAML file')
    parser.add_argument('--data', type=Path, help="data folder, instead of the recipe's data.root")
    parser.add_argument('--out', type=Path, help='output directory (default: runs/study_<name>)')
    parser.add_argument(
        '--seeds', type=int, nargs='+', metavar='N', help="seeds instead of the study's"
    )
    parser.add_argument(
        '--networks', nargs='+', metavar='NAME',
        help='only these of its networks, and the baseline; the others can be added later',
    )
    parser.add_argument(
        '--device', default='auto', choices=('auto', 'cpu', 'cuda'),
        help='where to train (default: auto, a GPU where there is one)',
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 when the study is written."""
    options = _parser().parse_args(argv)
    # Before torch loads: waiting threads that spin take the core from the data loader.
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

    from mtl_perception.training.recipe import expand
    from mtl_perception.training.source import describe_data, open_frames
    from mtl_perception.training.study import load_plan, make_study, Run, run_study
    from mtl_perception.training.study_report import table, verdict, write_study
    from rich.console import Console

    plan, base = load_plan(options.config)
    if options.seeds:
        plan = replace(plan, seeds=tuple(options.seeds))
    if options.networks:
        plan = plan.only(options.networks)
    study = make_study(plan, base)
    frames = open_frames(base, options.data or expand(base.data.root, 'data.root'))
    out = options.out or Path('runs') / f'study_{plan.name}'
    console = Console()
    began: list[float] = []  # when each run of this process began

    def say(index: int, run: Run, is_done: bool) -> None:
        words = f'run {index + 1} of {len(study.runs)}: {run.label}, seed {run.seed}'
        if is_done:
            words += ' is finished'
        else:
            began.append(time.monotonic())
            if len(began) > 1:
                each = (began[-1] - began[0]) / (len(began) - 1)
                words += f' (about {each * (len(study.runs) - index) / 60:.0f} min left)'
        console.print(words, style='bold', highlight=False)

    results = run_study(
        study, *frames, out, device=options.device,
        provenance={'data': describe_data(base, *frames)}, before=say,
    )  # fmt: skip
    summary = write_study(study, results, out)
    print(table(summary), verdict(summary), f'written to {out}', sep='\n')
    return 0
