# SPDX-License-Identifier: Apache-2.0
"""Start a network from the weights of a bundle, as far as names and shapes agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mtl_perception.bundle import load_network
from mtl_perception.manifest import default_bundle
from mtl_perception.training.errors import TrainingError
from mtl_perception.training.recipe import expand
import torch
from torch import nn, Tensor

DEFAULT = 'default'


@dataclass(frozen=True)
class Matched:
    """What of a network was found in given weights, by the names of its state."""

    loaded: tuple[str, ...]
    absent: tuple[str, ...]  # of the network, not among the weights
    other_shape: tuple[str, ...]  # in both, but not alike
    unused: tuple[str, ...]  # among the weights, not of the network

    def __str__(self) -> str:
        """Return one sentence with the counts and the first names of what was left."""
        parts = [f'{len(self.loaded)} tensors loaded']
        for count, names, what in (
            (len(self.absent), self.absent, 'not found'),
            (len(self.other_shape), self.other_shape, 'of another shape'),
            (len(self.unused), self.unused, 'given but not used'),
        ):
            if count:
                shown = ', '.join(names[:3]) + (', ...' if count > 3 else '')
                parts.append(f'{count} {what} ({shown})')
        return '; '.join(parts)


@torch.no_grad()
def load_matching(network: nn.Module, weights: Mapping[str, Tensor]) -> Matched:
    """Copy every tensor whose name and shape `network` has; say what happened to the rest."""
    own = network.state_dict()
    loaded, other_shape = [], []
    for name, tensor in weights.items():
        if name not in own:
            continue
        if own[name].shape == tensor.shape:
            own[name].copy_(tensor)
            loaded.append(name)
        else:
            other_shape.append(name)
    return Matched(
        loaded=tuple(loaded),
        absent=tuple(name for name in own if name not in weights),
        other_shape=tuple(other_shape),
        unused=tuple(name for name in weights if name not in own),
    )


def initial_directory(initial: str) -> Path:
    """Return the bundle that a recipe's `network.initial` names: 'default' is the shipped one."""
    return default_bundle() if initial == DEFAULT else expand(initial, 'network.initial')


def start_from_bundle(network: nn.Module, directory: Path) -> Matched:
    """
    Load what fits from the bundle in a directory.

    Raises
    ------
    TrainingError
        If nothing in the bundle fits the network.
    BundleError
        If the bundle cannot be loaded.

    """
    source, manifest = load_network(directory)
    matched = load_matching(network, source.state_dict())
    if not matched.loaded:
        msg = (
            f'network.initial: nothing in {directory} ({manifest.system} on {manifest.backbone}) '
            'fits this network; name a bundle of the same system or backbone'
        )
        raise TrainingError(msg)
    return matched
