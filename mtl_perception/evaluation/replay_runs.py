# SPDX-License-Identifier: Apache-2.0
"""The runs of one replay, models x bags x engines, and their scores side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
import json
from pathlib import Path
from typing import Any

from mtl_perception.evaluation.replay_report import plain_values, ReplayReport
from mtl_perception.files import atomic_write

SUMMARY_FILE = 'summary.json'
_COMPARED = ('frames', 'processed', 'scores', 'class_iou', 'frames_per_second')


@dataclass(frozen=True)
class Run:
    """One model on one engine over one bag."""

    name: str  # '' where there is only one
    bag: Path
    model: Path
    engine: str
    directory: Path


@dataclass(frozen=True)
class Outcome:
    """What became of a run: a report, or why there is none."""

    run: Run
    report: ReplayReport | None = None
    error: str = ''


def plan_runs(
    bags: Sequence[Path], models: Sequence[Path], engines: Sequence[str], out: Path
) -> list[Run]:
    """
    Return every combination; a single one writes into `out` itself, several below it.

    A run is named after what differs between the runs; equal names are numbered.
    """
    bags, models = list(dict.fromkeys(bags)), list(dict.fromkeys(models))
    combinations = list(product(bags, models, dict.fromkeys(engines)))
    if len(combinations) == 1:
        bag, model, engine = combinations[0]
        return [Run('', bag, model, engine, out)]
    runs: list[Run] = []
    for bag, model, engine in combinations:
        parts = [bag.resolve().stem] if len(bags) > 1 else []
        parts += [model.resolve().name] if len(models) > 1 else []
        parts += [engine] if len(set(engines)) > 1 else []
        name = unnumbered = '-'.join(parts)
        number = 1
        while any(run.name == name for run in runs):
            number += 1
            name = f'{unnumbered}-{number}'
        runs.append(Run(name, bag, model, engine, out / name))
    return runs


def write_summary(outcomes: Sequence[Outcome], out: Path) -> None:
    """Write summary.json: the scores of each run, and how they differ from the first run's."""
    document = plain_values({'runs': summary(outcomes)})
    atomic_write(out / SUMMARY_FILE, json.dumps(document, indent=2, allow_nan=False) + '\n')


def summary(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return, by run, its scores and their `difference` to the first run that has a report."""
    first: dict[str, Any] | None = None
    entries = []
    for outcome in outcomes:
        run = outcome.run
        entry: dict[str, Any] = {
            'name': run.name, 'bag': str(run.bag), 'model': run.model.name, 'engine': run.engine,
        }  # fmt: skip
        entries.append(entry)
        if outcome.report is None:
            entry['error'] = outcome.error
            continue
        values = {name: getattr(outcome.report, name) for name in _COMPARED}
        entry.update(values, model=outcome.report.model, engine=outcome.report.engine)
        if first is None:
            first = values
        else:
            entry['difference'] = _difference(values, first)
    return entries


def _difference(values: dict[str, Any], first: dict[str, Any]) -> dict[str, Any]:
    """Return value - first of every number that both have."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        other = first.get(name)
        if isinstance(value, dict) and isinstance(other, dict):
            result[name] = _difference(value, other)
        elif isinstance(value, (int, float)) and isinstance(other, (int, float)):
            result[name] = value - other
    return result
