# SPDX-License-Identifier: Apache-2.0
"""The discriminators: which of two domains does a map come from."""

from __future__ import annotations

from collections.abc import Mapping

from mtl_perception.networks.network import Network
from mtl_perception.networks.outputs import Outputs
from mtl_perception.tasks import Task
from mtl_perception.training.adaptation.domain_maps import (
    domain_map,
    inverse_depth_range,
    map_channels,
)
from mtl_perception.training.errors import TrainingError
from mtl_perception.training.recipe import Recipe
import torch
from torch import nn, Tensor
import torch.nn.functional as F
from torch.nn.utils.parametrizations import spectral_norm

# What a discriminator should answer.
SOURCE, TARGET = 0.0, 1.0
# Of the loss for fooling a discriminator, for every task (DenseMTL).
PUBLISHED_WEIGHT = 0.005
_WIDTHS = (64, 128, 256, 512, 1)


class Discriminator(nn.Module):
    """
    Five 4x4 convolutions of stride 2 with spectral norm, LeakyReLU 0.2 between (DenseMTL).

    (B, C, H, W) -> logits (B, 1, about H / 32, about W / 32), above 0 for the target domain. The
    whole batch is mirrored in half of the cases: which side a thing stands on is no domain.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in _WIDTHS:
            layers.append(spectral_norm(nn.Conv2d(channels, width, 4, stride=2, padding=1)))
            layers.append(nn.LeakyReLU(0.2))
            channels = width
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, domain_map: Tensor) -> Tensor:
        """Return the logits."""
        if bool(torch.rand(()) < 0.5):
            domain_map = domain_map.flip(-1)
        logits: Tensor = self.layers(domain_map)
        return logits


def domain_loss(logits: Mapping[str, Tensor], answer: float) -> dict[str, Tensor]:
    """
    Return, by key, the mean binary cross-entropy of logits against one answer for all pixels.

    :param answer: `SOURCE` or `TARGET`
    """
    return {
        key: F.binary_cross_entropy_with_logits(
            each.float(), torch.full_like(each, answer, dtype=torch.float32)
        )
        for key, each in logits.items()
    }


class Discriminators(nn.Module):
    """
    One discriminator for every adapted task and supervised scale.

    A key is the task's name, '@', and 'final' or the number of the auxiliary scale.
    """

    def __init__(self, network: Network, recipe: Recipe) -> None:
        """
        Find out which maps the network makes while training.

        :raises TrainingError: if no task is to be adapted
        """
        super().__init__()
        assert recipe.adaptation is not None
        self._depth_range_m = recipe.network.depth_range_m
        self._auxiliary = recipe.adaptation.auxiliary
        weights = recipe.adaptation.weights
        self._tasks = {task.name: task for task in network.all_tasks}
        self._weights = {name: weights.get(name, PUBLISHED_WEIGHT) for name in self._tasks}
        keys = self._raw_maps(_without_values(network, recipe.network.size))
        if not keys:
            msg = 'adaptation.weights: every task has weight 0; leave one of them above 0'
            raise TrainingError(msg)
        self.by_key = nn.ModuleDict(
            {key: Discriminator(map_channels(self._task(key))) for key in keys}
        )

    def inverse_depths(self, targets: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the range of inverse depth of a source batch's targets, by depth task."""
        nothing = next(self.parameters()).new_empty(0)
        return {
            task.name: inverse_depth_range(targets.get(task.name, nothing), self._depth_range_m)
            for task in self._tasks.values()
            if task.kind == 'depth'
        }

    def domain_maps(
        self,
        outputs: Outputs,
        size: tuple[int, int],
        inverse_depths: Mapping[str, tuple[Tensor, Tensor]],
    ) -> dict[str, Tensor]:
        """Return what the discriminators see of a network's outputs, by key, at `size`."""
        device = next(self.parameters()).device.type
        with torch.autocast(device, enabled=False):
            return {
                key: domain_map(self._task(key), raw, size, inverse_depths)
                for key, raw in self._raw_maps(outputs).items()
            }

    def forward(self, domain_maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the logits by key."""
        return {key: self.by_key[key](each) for key, each in domain_maps.items()}

    def fooling_loss(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Return the mean over all keys of each task's weight times its loss."""
        return torch.stack(
            [self._weights[self._task(key).name] * loss for key, loss in losses.items()]
        ).mean()

    def describe(self) -> str:
        """Return what is discriminated, at which weight, in words."""
        weights = {self._task(key).name: 0.0 for key in self.by_key}
        parts = (f'{self._weights[name]:g} x {name}' for name in weights)
        count = sum(parameter.numel() for parameter in self.parameters())
        return (
            f'{len(self.by_key)} discriminators ({", ".join(self.by_key)}), '
            f'{count / 1e6:.3f} M parameters; weights {", ".join(parts)}'
        )

    def _task(self, key: str) -> Task:
        return self._tasks[key.rpartition('@')[0]]

    def _raw_maps(self, outputs: Outputs) -> dict[str, Tensor]:
        scales = {'final': outputs.maps}
        if self._auxiliary:
            scales |= {str(number): maps for number, maps in enumerate(outputs.auxiliary)}
        return {
            f'{name}@{scale}': raw
            for scale, maps in scales.items()
            for name, raw in maps.items()
            if self._weights[name] > 0
        }


def _without_values(network: Network, size: tuple[int, int]) -> Outputs:
    """Return the outputs of a training step without their values, at no cost."""
    state = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    bare = {name: each.detach().to('meta') for name, each in state.items()}
    was_training = network.training
    network.train()
    image = torch.empty((2, 3, *size), device='meta')
    outputs: Outputs = torch.func.functional_call(network, bare, (image,))
    network.train(was_training)
    return outputs
