# SPDX-License-Identifier: Apache-2.0
"""The directory of a training run: begun with a recipe, resumed with the same one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mtl_perception.files import atomic_write
from mtl_perception.training.callbacks import LAST_CHECKPOINT
from mtl_perception.training.errors import TrainingError
from mtl_perception.training.parsing import parse
from mtl_perception.training.recipe import Recipe

RECIPE_FILE = 'recipe.json'
# What of a recipe decides what is learned: sections, or single fields of one.
_LEARNED = (
    'tasks', 'auxiliary', 'network', 'optimiser', 'augmentation', 'loss', 'adaptation',
    # The root may have moved.
    'data.kind', 'data.train', 'data.options', 'loop.seed',
)


def plain_recipe(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as JSON gives it back: lists for tuples."""
    values: dict[str, Any] = json.loads(json.dumps(recipe.to_json()))
    return values


def prepare_directory(recipe: Recipe, out: Path, *, resume: bool) -> Path | None:
    """
    Make the output directory and return the checkpoint to continue from, if any.

    Raises
    ------
    TrainingError
        If a run lies there and `resume` is not asked for, if there is none to resume, or if it
        was made with another recipe (how it is carried out may differ, what is learned not).

    """
    checkpoint = out / LAST_CHECKPOINT
    if not resume:
        if checkpoint.exists():
            msg = f'{out} holds a training run already; add --resume, or give another --out'
            raise TrainingError(msg)
        try:
            out.mkdir(parents=True, exist_ok=True)
            text = json.dumps(plain_recipe(recipe), indent=2) + '\n'
            atomic_write(out / RECIPE_FILE, text)
        except OSError as error:
            msg = f'{out} cannot be written: {error.strerror}; give another --out'
            raise TrainingError(msg) from error
        return None
    if not checkpoint.exists():
        msg = f'{out} holds no {LAST_CHECKPOINT} to resume from; start without --resume'
        raise TrainingError(msg)
    check_same_recipe(recipe, out)
    return checkpoint


def check_same_recipe(recipe: Recipe, out: Path) -> None:
    """
    Compare a recipe with the one that the run in `out` was begun with, in what is learned.

    Raises
    ------
    TrainingError
        If they differ; the message names the section and both values.

    """
    stored = json.loads((out / RECIPE_FILE).read_text(encoding='utf-8'))
    # Parsed, what an older version did not know has the value that it means.
    before, now = plain_recipe(parse(Recipe, stored, RECIPE_FILE)), plain_recipe(recipe)
    for name in _LEARNED:
        old, new = _entry(before, name), _entry(now, name)
        if old != new:
            msg = (
                f'{out} was trained with another recipe: {name} was {old}, is {new}; use the '
                'same recipe, or give another --out'
            )
            raise TrainingError(msg)


def _entry(values: dict[str, Any], name: str) -> Any:
    section, _, field = name.partition('.')
    return values[section][field] if field else values[section]
