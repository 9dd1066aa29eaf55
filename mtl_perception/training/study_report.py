# SPDX-License-Identifier: Apache-2.0
"""What a study found: Delta_m of every network over its seeds, as JSON, a table and a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import json
import math
from pathlib import Path
import statistics
from typing import Any

from mtl_perception.files import atomic_write, write_json
from mtl_perception.metrics.delta_m import delta_m
from mtl_perception.metrics.errors import MetricError
from mtl_perception.metrics.task_metric import find_protocol
from mtl_perception.training.study import Study

STUDY_FILE = 'study.json'
TABLE_FILE = 'study.md'
PLOT_FILE = 'study.png'
Results = Mapping[tuple[str, int], Mapping[str, Any]]


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Return the mean and the sample standard deviation, None for a single value."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {'mean': statistics.fmean(values), 'deviation': deviation}


def summarise(study: Study, results: Results) -> dict[str, Any]:
    """
    Return what study.json holds.

    Each network is divided by the single-task twins of its own seed.

    Raises
    ------
    TrainingError
        If a run has no score for a task, or one that Delta_m cannot divide by.

    """
    plan = study.plan
    headlines = find_protocol(plan.protocol).headlines
    tasks = {
        task.name: {'metric': headlines[task.kind][0], 'higher_is_better': headlines[task.kind][1]}
        for task in study.base.task_list()
    }

    def scores(label: str, seed: int, names: Sequence[str]) -> dict[str, float]:
        found = results[label, seed]['scores']
        values = {name: found.get(f'{name}.{tasks[name]["metric"]}') for name in names}
        return {name: math.nan if value is None else value for name, value in values.items()}

    networks = {}
    for name, twins in study.twins.items():
        deltas, gains, own = [], [], []
        for seed in plan.seeds:
            ours = scores(name, seed, list(twins))
            alone = {task: scores(twin, seed, [task])[task] for task, twin in twins.items()}
            higher = {task: bool(tasks[task]['higher_is_better']) for task in twins}
            deltas.append(_delta_m(name, seed, ours, alone, higher))
            gains.append({
                task: _delta_m(name, seed, {task: ours[task]}, {task: alone[task]},
                               {task: higher[task]})
                for task in twins
            })
            own.append(ours)
        networks[name] = {
            'delta_m': {**spread(deltas), 'by_seed': deltas},
            'gain': {task: spread([each[task] for each in gains]) for task in twins},
            'scores': {task: spread([each[task] for each in own]) for task in twins},
            'scores_by_seed': own,
            'twins': dict(twins),
            **_cost(results, name, plan.seeds),
        }
    alone_labels = dict.fromkeys(label for each in study.twins.values() for label in each.values())
    return {
        'name': plan.name,
        'protocol': plan.protocol,
        'protocol_source': find_protocol(plan.protocol).source,
        'baseline': plan.baseline,
        'seeds': list(plan.seeds),
        'steps': study.base.optimiser.steps,
        'batch_size': study.base.optimiser.batch_size,
        'frames': next(iter(results.values()))['frames'],
        'tasks': tasks,
        'single_task': {
            label: {
                'scores': {
                    task: spread([scores(label, seed, [task])[task] for seed in plan.seeds])
                    for task in tasks
                    if any(twins.get(task) == label for twins in study.twins.values())
                },
                **_cost(results, label, plan.seeds),
            }
            for label in alone_labels
        },
        'networks': networks,
        'recipe': json.loads(json.dumps(study.base.to_json())),
    }


def _delta_m(
    name: str,
    seed: int,
    ours: Mapping[str, float],
    alone: Mapping[str, float],
    higher: Mapping[str, bool],
) -> float:
    from mtl_perception.training.errors import TrainingError

    try:
        return delta_m(ours, alone, higher)
    except MetricError as error:
        msg = f'{name}, seed {seed}: {error}; train longer, or look at the frames'
        raise TrainingError(msg) from error


def _cost(results: Results, label: str, seeds: Sequence[int]) -> dict[str, Any]:
    runs = [results[label, seed] for seed in seeds]
    seconds = [run['seconds'] for run in runs if run['seconds'] is not None]
    return {
        'parameters': runs[0]['parameters'],
        'seconds': statistics.fmean(seconds) if seconds else None,
    }


def _number(value: Mapping[str, float | None], digits: int, *, signed: bool = False) -> str:
    text = f'{value["mean"]:{"+" if signed else ""}.{digits}f}'
    if value['deviation'] is not None:
        text += f' ± {value["deviation"]:.{digits}f}'
    return text


def table(summary: Mapping[str, Any]) -> str:
    """Return the Markdown table of a study: twins in one row, then every network."""
    tasks = summary['tasks']
    digits = {name: 2 if 'deg' in each['metric'] else 3 for name, each in tasks.items()}
    heads = [
        f'{name} {each["metric"]} {"↑" if each["higher_is_better"] else "↓"}'
        for name, each in tasks.items()
    ]
    lines = [
        f'| network | M parameters | {" | ".join(heads)} | Delta_m, % |',
        '|---' * (len(heads) + 3) + '|',
    ]
    for sets in _twin_sets(summary):
        cells = [
            _number(summary['single_task'][sets[name]]['scores'][name], digits[name])
            for name in tasks
        ]
        alone = [summary['single_task'][label]['parameters'] for label in sets.values()]
        millions = sum(alone) / 1e6
        row = f'| single task x{len(sets)} | {millions:.2f} | {" | ".join(cells)} | 0 |'
        lines.append(row)
    for name, entry in summary['networks'].items():
        cells = [_number(entry['scores'][task], digits[task]) for task in tasks]
        lines.append(
            f'| {name} | {entry["parameters"] / 1e6:.2f} | {" | ".join(cells)} | '
            f'{_number(entry["delta_m"], 2, signed=True)} |'
        )
    return '\n'.join(lines) + '\n'


def _twin_sets(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    sets: list[dict[str, str]] = []
    for entry in summary['networks'].values():
        if entry['twins'] not in sets:
            sets.append(entry['twins'])
    return sets


def verdict(summary: Mapping[str, Any]) -> str:
    """Return one sentence on how the networks compare with the baseline."""
    base = summary['networks'][summary['baseline']]['delta_m']['mean']
    others = {
        name: entry['delta_m']['mean'] - base
        for name, entry in summary['networks'].items()
        if name != summary['baseline']
    }
    above = [f'{name} ({gain:+.2f})' for name, gain in others.items() if gain > 0]
    below = [f'{name} ({gain:+.2f})' for name, gain in others.items() if gain <= 0]
    seeds = len(summary['seeds'])
    return (
        f'Delta_m against {summary["baseline"]} ({base:+.2f} %), in points: higher: '
        f'{", ".join(above) or "none"}; not higher: {", ".join(below) or "none"}. '
        + ('One seed: the spread was not measured.' if seeds == 1 else f'{seeds} seeds.')
    )


def write_study(study: Study, results: Results, out: Path) -> dict[str, Any]:
    """Write study.json, study.md and study.png into `out`; return what study.json holds."""
    summary = summarise(study, results)
    write_json(out / STUDY_FILE, summary)
    about = (
        f'# Study {summary["name"]}\n\n'
        f'{summary["steps"]} steps of {summary["batch_size"]} frames, scored on '
        f'{summary["frames"]} frames; protocol {summary["protocol"]}: '
        f'{summary["protocol_source"]}. Seeds: {", ".join(map(str, summary["seeds"]))}.\n\n'
    )
    atomic_write(out / TABLE_FILE, f'{about}{table(summary)}\n{verdict(summary)}\n')
    from mtl_perception.training.study_plot import plot

    atomic_write(out / PLOT_FILE, plot(summary))
    return summary
