# SPDX-License-Identifier: Apache-2.0
"""`train`: from a recipe to a bundle."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
import os
from pathlib import Path

from mtl_perception.training.recipe import expand, load_recipe, Recipe

_EPILOG = """\
example:
  python3 -m mtl_perception rooms --frames 2000 --seed 0 --frames-per-world 8 \\
    --out runs/rooms/train
  python3 -m mtl_perception rooms --frames 200 --seed 900000 --frames-per-world 5 \\
    --out runs/rooms/validation
  python3 -m mtl_perception train --config config/train/rooms_small_start.yaml --data runs/rooms
  python3 -m mtl_perception train --config config/train/mti_net_nyud.yaml --dry-run

A run that was stopped goes on where its last checkpoint lies: repeat the command with --resume.
Four GPUs share each batch of the recipe:
  python3 -m mtl_perception train --config config/train/mti_net_nyud.yaml --devices 4
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
    parser.add_argument(
        '--target', type=Path,
        help="folder of the domain to adapt to, instead of the recipe's adaptation.target.root",
    )
    parser.add_argument('--out', type=Path, help='output directory (default: runs/<recipe name>)')
    parser.add_argument('--resume', action='store_true', help='continue the run in --out')
    parser.add_argument(
        '--max-steps', type=int, metavar='N', help="train N steps instead of the recipe's number"
    )
    parser.add_argument(
        '--single-task', metavar='TASK',
        help="train the recipe's single-task twin: a network for TASK alone, all else equal",
    )
    parser.add_argument(
        '--dry-run', action='store_true',
        help='build network, loss and optimiser, say what is missing, and stop',
    )
    parser.add_argument(
        '--device', default='auto', choices=('auto', 'cpu', 'cuda'),
        help='where to train (default: auto, a GPU where there is one)',
    )
    parser.add_argument(
        '--devices', type=int, metavar='N',
        help='processes on this machine, one a GPU, that share each batch (default: 1, or as '
        'torchrun started them)',
    )
    parser.add_argument(
        '--nodes', type=int, metavar='M',
        help='machines that train together, under SLURM or torchrun (default: 1)',
    )
    return parser


def _adjusted(recipe: Recipe, max_steps: int | None) -> Recipe:
    if max_steps is None:
        return recipe
    warmup = min(recipe.optimiser.warmup_steps, max_steps // 2)
    optimiser = replace(recipe.optimiser, steps=max_steps, warmup_steps=warmup)
    return replace(recipe, optimiser=optimiser)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 when the bundle is written."""
    parser = _parser()
    options = parser.parse_args(argv)
    for name in ('max_steps', 'devices', 'nodes'):
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error(f'--{name.replace("_", "-")} is {value}; it should be at least 1')
    # Before torch loads: waiting threads that spin take the core from the data loader.
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    recipe = load_recipe(options.config)
    if options.single_task is not None:
        recipe = recipe.single_task_twin(options.single_task)
    recipe = _adjusted(recipe, options.max_steps)
    if options.target is not None and recipe.adaptation is None:
        parser.error(f'--target: {options.config} has no section adaptation')
    if options.dry_run:
        return _dry_run(recipe, options.data, options.target)
    root = options.data or expand(recipe.data.root, 'data.root')

    from mtl_perception.training.run import train
    from mtl_perception.training.source import describe_data, open_frames
    from mtl_perception.training.trainer import Machines

    train_frames, validation_frames = open_frames(recipe, root)
    data = dict(describe_data(recipe, train_frames, validation_frames))
    target_frames = None
    if recipe.adaptation is not None:
        from mtl_perception.training.adaptation.frames import describe_target, open_target

        target_frames, target_validation = open_target(recipe, options.target)
        if target_validation is not None:
            validation_frames = target_validation
        data['target'] = describe_target(recipe)
    train(
        recipe,
        train_frames,
        validation_frames,
        options.out or Path('runs') / recipe.name,
        resume=options.resume,
        device=Machines.given(options.device, options.devices, options.nodes),
        provenance={'data': data},
        target_frames=target_frames,
    )
    return 0


def _dry_run(recipe: Recipe, root: Path | None, target: Path | None) -> int:
    from mtl_perception.training.dry_run import dry_run

    built, missing = dry_run(recipe, root, target)
    for line in (recipe.name, *built):
        print(line)
    for line in missing:
        print(f'missing: {line}')
    if not missing:
        print('nothing is missing')
    return 0
