# SPDX-License-Identifier: Apache-2.0
"""`train`: from a recipe to a bundle."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
import os
from pathlib import Path
from typing import Any

from mtl_perception.training.errors import TrainingError
from mtl_perception.training.recipe import expand, load_recipe, Recipe

_EPILOG = """\
example:
  python3 -m mtl_perception rooms --frames 2400 --seed 0 --out runs/rooms/train
  python3 -m mtl_perception rooms --frames 200 --seed 900000 --out runs/rooms/validation
  python3 -m mtl_perception train --config config/train/rooms_small.yaml --data runs/rooms

A run that was stopped goes on where its last checkpoint lies: repeat the command with --resume.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python3 -m mtl_perception train',
        description='Train a network from a recipe; write a bundle with its scores.',
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--config', type=Path, required=True, help='the recipe, a YAML file')
    parser.add_argument('--data', type=Path, help="data folder, instead of the recipe's data.root")
    parser.add_argument('--out', type=Path, help='output directory (default: runs/<recipe name>)')
    parser.add_argument('--resume', action='store_true', help='continue the run in --out')
    parser.add_argument(
        '--max-steps', type=int, metavar='N', help="train N steps instead of the recipe's number"
    )
    parser.add_argument(
        '--device', default='auto', choices=('auto', 'cpu', 'cuda'),
        help='where to train (default: auto, a GPU where there is one)',
    )
    return parser


def _adjusted(recipe: Recipe, max_steps: int | None) -> Recipe:
    if max_steps is None:
        return recipe
    warmup = min(recipe.optimiser.warmup_steps, max_steps // 2)
    optimiser = replace(recipe.optimiser, steps=max_steps, warmup_steps=warmup)
    return replace(recipe, optimiser=optimiser)


def _describe(train: Mapping[str, Any], validation: Mapping[str, Any]) -> dict[str, Any]:
    if train['seed'] == validation['seed']:
        msg = (
            f'training and validation rooms were rendered with the same seed, {train["seed"]}: '
            'they show the same worlds; render one of them with another --seed'
        )
        raise TrainingError(msg)
    return {
        'source': 'rendered rooms (python3 -m mtl_perception rooms)',
        'train': dict(train),
        'validation': dict(validation),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 when the bundle is written."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.max_steps is not None and options.max_steps < 1:
        parser.error(f'--max-steps is {options.max_steps}; it should be at least 1')
    # Before torch loads: waiting threads that spin take the core from the data loader.
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    recipe = _adjusted(load_recipe(options.config), options.max_steps)
    root = options.data or expand(recipe.data.root, 'data.root')

    from mtl_perception.datasets.rooms import RoomsDataset
    from mtl_perception.training.run import train

    train_frames = RoomsDataset(root / recipe.data.train)
    validation_frames = RoomsDataset(root / recipe.data.validation)
    train(
        recipe,
        train_frames,
        validation_frames,
        options.out or Path('runs') / recipe.name,
        resume=options.resume,
        device=options.device,
        provenance={'data': _describe(train_frames.settings, validation_frames.settings)},
    )
    return 0
