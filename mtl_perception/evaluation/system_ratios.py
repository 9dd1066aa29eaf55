# SPDX-License-Identifier: Apache-2.0
"""What a frame costs, by system, as ratios to the multi-task baseline: all in one process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import json
import os
import subprocess
import sys
from typing import Any

from mtl_perception.errors import MtlPerceptionError
from mtl_perception.evaluation.errors import EvaluationError
from mtl_perception.evaluation.sample_bundle import untrained_network
from mtl_perception.evaluation.system_worker import in_turn
from mtl_perception.tasks import standard_tasks, Task
import numpy as np

BASELINE = 'multi_task'
FOUR_SINGLE = 'four single_task'
_MODE = 'corrected'


def system_ratios(
    systems: Sequence[str], backbone: str, size: tuple[int, int], rounds: int
) -> dict[str, Any]:
    """
    Compare systems in a process of its own, one thread of PyTorch, in turn.

    :param systems: names in `SYSTEMS`; the baseline and four single-task networks always run too
    :param size: (height, width) of the image
    :param rounds: runs of each

    Raises
    ------
    EvaluationError
        If a system or the backbone is unknown, or the process fails.

    """
    wish = {'systems': list(systems), 'backbone': backbone, 'size': size, 'rounds': rounds}
    result = subprocess.run(
        [sys.executable, '-m', 'mtl_perception.evaluation.system_ratios', json.dumps(wish)],
        capture_output=True, text=True, check=False,
        # Threads that spin at a barrier would take the cores of the network whose turn it is.
        env={**os.environ, 'OMP_WAIT_POLICY': 'PASSIVE'},
    )  # fmt: skip
    lines = result.stdout.splitlines()
    document: dict[str, Any] = json.loads(lines[-1]) if lines and not result.returncode else {}
    if 'ratios' not in document:
        said = (result.stderr.strip().splitlines() or ['it said nothing'])[-1]
        msg = f'systems on {backbone} cannot be compared: {document.get("error", said)}'
        raise EvaluationError(msg)
    return document


def main() -> int:
    """Compare what argument 1 describes and print one line of JSON."""
    wish = json.loads(sys.argv[1])
    try:
        document = _compare(
            wish['systems'], wish['backbone'], tuple(wish['size']), wish['rounds']
        )
    except MtlPerceptionError as error:
        document = {'error': str(error)}
    print(json.dumps(document), flush=True)
    return 0


def _compare(
    systems: Sequence[str], backbone: str, size: tuple[int, int], rounds: int
) -> dict[str, Any]:
    from mtl_perception.networks.describe import network_cost
    import torch

    torch.set_num_threads(1)
    tasks = standard_tasks('rooms')
    wanted: dict[str, list[tuple[str, Sequence[Task]]]] = {
        FOUR_SINGLE: [('single_task', [task]) for task in tasks], BASELINE: [(BASELINE, tasks)]
    }
    wanted |= {system: [(system, tasks)] for system in systems if system != 'single_task'}
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    networks = {
        label: [untrained_network(*one, backbone, size, _MODE).eval() for one in parts]
        for label, parts in wanted.items()
    }
    gflop = {
        label: sum(
            network_cost(system, its, backbone=backbone, size=size).flops for system, its in parts
        ) / 1e9
        for label, parts in wanted.items()
    }  # fmt: skip
    runs = {
        label: lambda several=several: [network(image) for network in several]
        for label, several in networks.items()
    }
    began = os.getloadavg()[0]
    with torch.inference_mode():
        _, used = in_turn(runs, rounds)
    load = [round(began, 2), round(os.getloadavg()[0], 2)]
    return {'load_average_1min': load, 'ratios': ratios(used, gflop)}


def ratios(
    milliseconds: Mapping[str, Sequence[float]], gflop: Mapping[str, float]
) -> list[dict[str, Any]]:
    """
    Return a row for each label but the single-task networks, by rising floating-point work.

    Every ratio of times is the median over the rounds of the ratio within a round.

    :param milliseconds: of each round, by label
    :param gflop: floating-point work of one run, by label
    """
    base, single = (np.asarray(milliseconds[label]) for label in (BASELINE, FOUR_SINGLE))
    rows = []
    for label in sorted(set(gflop) - {FOUR_SINGLE}, key=lambda name: gflop[name]):
        times = np.asarray(milliseconds[label])
        times_baseline = float(np.median(times / base))
        rows.append({
            'system': label,
            'gflop': gflop[label],
            'median_ms': float(np.median(times)),
            'times_baseline': times_baseline,
            'ms_per_gflop_times_baseline': times_baseline * gflop[BASELINE] / gflop[label],
            'four_single_over_this': float(np.median(single / times)),
        })
    return rows


def ratios_markdown(document: Mapping[str, Any], heading: str) -> str:
    """Return the table; `heading` says what was measured where."""
    low, high = sorted(document['load_average_1min'])
    lines = [
        f'{heading} Processor time of one thread, PyTorch eager, all networks in turn in one '
        f'process; load of the machine {low:g} to {high:g}. The last column is the time of four '
        'single-task networks one after another divided by that of this network.',
        '',
        "| system | GFLOP | ms | x the baseline's time | ms per GFLOP, x the baseline's "
        '| four single nets / this |',
        '|---|---|---|---|---|---|',
    ]
    lines += [
        f"| `{row['system']}` | {row['gflop']:.1f} | {row['median_ms']:.0f} | "
        f"{row['times_baseline']:.2f} | {row['ms_per_gflop_times_baseline']:.2f} | "
        f"{row['four_single_over_this']:.2f} |"
        for row in document['ratios']
    ]
    return '\n'.join(lines) + '\n'


if __name__ == '__main__':
    sys.exit(main())
