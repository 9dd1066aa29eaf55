# SPDX-License-Identifier: Apache-2.0
"""Build all that a run needs but its data, and say what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mtl_perception.errors import MtlPerceptionError
from mtl_perception.manifest import load_manifest
from mtl_perception.training.adaptation.discriminators import Discriminators
from mtl_perception.training.adaptation.frames import open_target
from mtl_perception.training.initial import initial_directory
from mtl_perception.training.module import make_loss, make_optimiser
from mtl_perception.training.recipe import expand, IMAGENET, Recipe
from mtl_perception.training.run import make_network
from mtl_perception.training.source import open_frames
import torch


def dry_run(
    recipe: Recipe, root: Path | None = None, target: Path | None = None
) -> tuple[list[str], list[str]]:
    """
    Build network, loss and optimiser of a recipe; nothing is read but folders, nothing written.

    The network has no weights in memory, so that the largest takes no longer than the smallest.

    :param root: data folder instead of the recipe's
    :param target: that of the domain to adapt to, likewise
    :returns: lines about what was built, and lines about what is missing

    Raises
    ------
    MtlPerceptionError
        If the recipe's parts do not go together: no run could start from it.

    """
    bare = replace(recipe, network=replace(recipe.network, pretrained=None, initial=None))
    with torch.device('meta'):
        network, manifest = make_network(bare)
        loss = make_loss(network, recipe)
        adapted = None if recipe.adaptation is None else Discriminators(network, recipe)
    optimiser = make_optimiser(network, loss, recipe.optimiser)
    part, plan = recipe.network, recipe.optimiser
    count = sum(parameter.numel() for parameter in network.parameters())
    height, width = part.size
    built = [
        f'network: {part.system} ({part.mode}) on {part.backbone}, {width}x{height}, '
        f'{count / 1e6:.3f} M parameters',
        f'tasks: {", ".join(f"{task.name} ({task.kind})" for task in manifest.tasks)}',
    ]
    if manifest.auxiliary:
        built.append(f'auxiliary tasks: {", ".join(task.name for task in manifest.auxiliary)}')
    built.append(f'loss: {recipe.loss.balancing} balancing; {loss.describe()}')
    rates = sorted({f'{group["lr"]:g}' for group in optimiser.param_groups})
    built.append(
        f'optimiser: {plan.name}, learning rate {" and ".join(rates)}, {plan.schedule}, '
        f'{plan.steps} steps of {plan.batch_size}'
    )
    if adapted is not None and recipe.adaptation is not None:
        other = recipe.adaptation
        built.append(f'adaptation: {adapted.describe()}')
        built.append(
            f'optimiser of the discriminators: adam, learning rate {other.learning_rate:g}, '
            f'poly {other.power:g}'
        )
    return built, [*_missing(recipe, root), *_missing_target(recipe, target)]


def _missing_target(recipe: Recipe, root: Path | None) -> Iterator[str]:
    if recipe.adaptation is None:
        return
    try:
        train, validation = open_target(recipe, root)
    except MtlPerceptionError as error:
        yield f'adaptation.target: {error}'
        return
    for name, frames in (('train', train), ('validation', validation)):
        if frames is not None and not len(frames):
            yield f'adaptation.target: {name} has no frame'


def _missing(recipe: Recipe, root: Path | None) -> Iterator[str]:
    # Whether the hub can be reached shows when the run fetches from it.
    if recipe.network.pretrained not in (None, IMAGENET):
        try:
            weights = expand(str(recipe.network.pretrained), 'network.pretrained')
            if not weights.is_file():
                yield f'network.pretrained: there is no file {weights}'
        except MtlPerceptionError as error:
            yield str(error)
    if recipe.network.initial is not None:
        try:
            load_manifest(initial_directory(recipe.network.initial))
        except MtlPerceptionError as error:
            yield f'network.initial: {error}'
    try:
        train, validation = open_frames(recipe, root or expand(recipe.data.root, 'data.root'))
    except MtlPerceptionError as error:
        yield f'data: {error}'
        return
    for name, frames in (('train', train), ('validation', validation)):
        if not len(frames):
            yield f'data: {name} has no frame'
