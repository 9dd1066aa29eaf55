# SPDX-License-Identifier: Apache-2.0
"""A study: several networks and their single-task twins under one budget and one protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
import json
from pathlib import Path
from typing import Any

from mtl_perception.datasets.dataset import Dataset
from mtl_perception.files import write_json
from mtl_perception.inference.engine import open_engine
from mtl_perception.metrics.task_metric import DEFAULT_PROTOCOL, find_protocol
from mtl_perception.training.callbacks import LAST_CHECKPOINT
from mtl_perception.training.errors import TrainingError
from mtl_perception.training.evaluate import evaluate
from mtl_perception.training.finish import BUNDLE_DIRECTORY
from mtl_perception.training.parsing import parse, read_yaml
from mtl_perception.training.recipe import load_recipe, Recipe
from mtl_perception.training.run import train
from mtl_perception.training.run_directory import check_same_recipe, plain_recipe, RECIPE_FILE

EVALUATION_FILE = 'evaluation.json'
# What networks of one study may differ in; data, steps and augmentation are the budget.
_OWN_SECTIONS = ('network', 'loss')
# What a network shares with its single-task twins; all else they take from the base recipe.
_TWIN_FIELDS = ('backbone', 'pretrained', 'initial')


@dataclass(frozen=True)
class StudyPlan:
    """What a study compares, as its YAML file has it."""

    name: str
    recipe: str  # the base recipe, relative to the file of the study
    # By name: the fields of `network` and `loss` that differ from the base recipe.
    networks: Mapping[str, Mapping[str, Any]]
    baseline: str  # the network that the others are held against
    protocol: str = DEFAULT_PROTOCOL
    seeds: tuple[int, ...] = (0,)
    # By section of the recipe: fields that differ from the base recipe's for all networks.
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        find_protocol(self.protocol)
        for name, changes in self.networks.items():
            foreign = sorted(set(changes) - set(_OWN_SECTIONS))
            if foreign:
                msg = (
                    f'networks.{name}.{foreign[0]}: networks of a study differ in '
                    f'{" and ".join(_OWN_SECTIONS)} only; all else is their common budget'
                )
                raise TrainingError(msg)
        if self.baseline not in self.networks:
            msg = f'baseline: {self.baseline!r} is not one of {", ".join(self.networks)}'
            raise TrainingError(msg)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            msg = f'seeds: {list(self.seeds)} should be at least one, each once'
            raise TrainingError(msg)

    def only(self, names: Sequence[str]) -> StudyPlan:
        """
        Return the plan with these networks and the baseline alone.

        Raises
        ------
        TrainingError
            If a name is none of the plan's networks.

        """
        for name in names:
            if name not in self.networks:
                msg = f'{name!r} is not one of {", ".join(self.networks)}'
                raise TrainingError(msg)
        kept = {self.baseline, *names}
        networks = {name: each for name, each in self.networks.items() if name in kept}
        return replace(self, networks=networks)


@dataclass(frozen=True)
class Run:
    """One training run of a study."""

    label: str  # the network's name, or single_task_<task>
    seed: int
    recipe: Recipe

    @property
    def folder(self) -> str:
        """Where it lies below the study's runs/."""
        return f'{self.label}_seed{self.seed}'


@dataclass(frozen=True)
class Study:
    """The runs of a plan, and which twin each network's task is divided by."""

    plan: StudyPlan
    base: Recipe
    runs: tuple[Run, ...]
    twins: Mapping[str, Mapping[str, str]]  # network -> task -> label of the twin


def load_plan(path: Path) -> tuple[StudyPlan, Recipe]:
    """
    Read the file of a study and its base recipe.

    Raises
    ------
    TrainingError
        If either cannot be read or a field of it makes no sense.
    MetricError
        If the protocol is unknown.

    """
    plan = parse(StudyPlan, read_yaml(path, 'study'), path.name)
    base = load_recipe(path.parent / plan.recipe)
    return plan, _changed(base, plan.changes, f'{path.name}.changes')


def _changed(recipe: Recipe, changes: Mapping[str, Mapping[str, Any]], where: str) -> Recipe:
    values = plain_recipe(recipe)
    for section, fields in changes.items():
        if not isinstance(values.get(section), dict):
            msg = f'{where}.{section}: no such section of the recipe'
            raise TrainingError(msg)
        values[section] = {**values[section], **fields}
    return parse(Recipe, values, where)


def make_study(plan: StudyPlan, base: Recipe) -> Study:
    """
    Return every run that a plan needs: twins that come out equal are trained once.

    Raises
    ------
    TrainingError
        If the changes of a network make no recipe.

    """
    alone: dict[str, Recipe] = {}
    together: dict[str, Recipe] = {}
    twins: dict[str, dict[str, str]] = {}
    for name, changes in plan.networks.items():
        recipe = replace(_changed(base, changes, f'networks.{name}'), name=name)
        together[name], twins[name] = recipe, {}
        # Alone on the same backbone: the widths of its neck are the system's own matter.
        shared = {
            key: value for key, value in changes.get('network', {}).items() if key in _TWIN_FIELDS
        }
        root = _changed(base, {'network': shared}, f'networks.{name}')
        for task in recipe.task_list():
            twin = replace(root.single_task_twin(task.name), name=f'single_task_{task.name}')
            equal = [label for label, each in alone.items() if _same(each, twin)]
            label = equal[0] if equal else _free(twin.name, alone)
            alone[label] = replace(twin, name=label)
            twins[name][task.name] = label
    clash = sorted(set(alone) & set(together))
    if clash:
        msg = f'networks.{clash[0]}: is the name of a twin; give the network another'
        raise TrainingError(msg)
    runs = [
        Run(label, seed, replace(recipe, loop=replace(recipe.loop, seed=seed)))
        for seed in plan.seeds
        for label, recipe in {**alone, **together}.items()
    ]
    return Study(plan, base, tuple(runs), twins)


def _same(one: Recipe, other: Recipe) -> bool:
    return replace(one, name='same') == replace(other, name='same')


def _free(name: str, taken: Mapping[str, Any]) -> str:
    numbers = (f'{name}_{number}' for number in range(2, len(taken) + 3))
    return name if name not in taken else next(each for each in numbers if each not in taken)


def run_study(
    study: Study,
    train_frames: Dataset,
    validation_frames: Dataset,
    out: Path,
    *,
    device: str = 'cpu',
    provenance: Mapping[str, Any] | None = None,
    before: Callable[[int, Run, bool], None] = lambda index, run, is_done: None,
) -> dict[tuple[str, int], dict[str, Any]]:
    """
    Train and score what is not finished yet; return by (label, seed) what each run scored.

    A run that was stopped goes on at its last checkpoint. Each lies in runs/<label>_seed<n>
    with all that `train` writes, and evaluation.json.

    :param before: called with a run's index, the run, and whether it is finished already

    Raises
    ------
    TrainingError
        If a run in `out` was made with another recipe, or cannot be trained.

    """
    results = {}
    for index, run in enumerate(study.runs):
        folder = out / 'runs' / run.folder
        finished = folder / EVALUATION_FILE
        before(index, run, finished.exists())
        if (folder / RECIPE_FILE).exists():
            check_same_recipe(run.recipe, folder)
        if not finished.exists():
            train(
                run.recipe, train_frames, validation_frames, folder,
                resume=(folder / LAST_CHECKPOINT).exists(), device=device, provenance=provenance,
            )  # fmt: skip
            _score(study, run, folder, validation_frames)
        results[run.label, run.seed] = json.loads(finished.read_text(encoding='utf-8'))
    return results


def _score(study: Study, run: Run, folder: Path, frames: Dataset) -> None:
    bundle = folder / BUNDLE_DIRECTORY
    with open_engine(bundle, threads=run.recipe.loop.threads) as engine:
        result = evaluate(engine, frames, frames.tasks, study.plan.protocol)
        provenance = engine.manifest.provenance
    facts = {
        **result.to_json(),
        'parameters': _parameters(bundle),
        'steps': provenance.get('steps'),
        'seconds': provenance.get('seconds'),
    }
    write_json(folder / EVALUATION_FILE, facts)


def _parameters(bundle: Path) -> int:
    from mtl_perception.bundle import load_network

    network, _ = load_network(bundle)
    return sum(each.numel() for each in network.parameters())
