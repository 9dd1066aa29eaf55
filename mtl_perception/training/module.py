# SPDX-License-Identifier: Apache-2.0
"""The Lightning module: one training step, the optimiser, averaged weights, validation."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
from mtl_perception.graph import PerceptionGraph
from mtl_perception.losses.multi_task import MultiTaskLoss
from mtl_perception.manifest import Manifest
from mtl_perception.metrics.task_metric import metric_for
from mtl_perception.networks.network import Network
from mtl_perception.networks.outputs import Outputs
from mtl_perception.training.data import Batch
from mtl_perception.training.errors import TrainingError
from mtl_perception.training.recipe import OptimiserRecipe, Recipe
from mtl_perception.training.scoring import finished_maps, flat_scores, update_metrics
import torch
from torch import nn, Tensor
from torch.optim.swa_utils import AveragedModel


def learning_rate_factor(step: int, recipe: OptimiserRecipe) -> float:
    """Return the share of the full learning rate at `step`: warm-up, then the schedule."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    if recipe.schedule == 'constant':
        return 1.0
    if recipe.drop_at is not None:
        return 1.0 if step < recipe.drop_at else 0.1
    remaining = max(1, recipe.steps - recipe.warmup_steps)
    done = step - recipe.warmup_steps
    if recipe.schedule == 'poly':
        done -= done % recipe.epoch_steps
        return (1 - min(1.0, done / remaining)) ** recipe.power
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done / remaining)))


def make_optimiser(network: Network, loss: nn.Module, recipe: OptimiserRecipe) -> Any:
    """
    Return the optimiser of a network and of what its loss learns.

    The backbone has its own rate. Only convolution and linear weights decay, or all of the
    network's; what the loss learns never does.
    """
    backbone = {id(each) for each in network.encoder.backbone.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        key = (id(parameter) in backbone, recipe.decay_all or parameter.ndim > 1)
        groups.setdefault(key, []).append(parameter)
    groups.setdefault((False, False), []).extend(loss.parameters())
    options = [
        {
            'params': parameters,
            'lr': recipe.learning_rate * (recipe.backbone_factor if is_backbone else 1),
            'weight_decay': recipe.weight_decay if decays else 0.0,
        }
        for (is_backbone, decays), parameters in groups.items()
        if parameters
    ]
    rate = recipe.learning_rate
    if recipe.name == 'sgd':
        return torch.optim.SGD(options, lr=rate, momentum=recipe.momentum)
    if recipe.name == 'adam':
        return torch.optim.Adam(options, lr=rate, betas=recipe.betas)
    return torch.optim.AdamW(options, lr=rate, betas=recipe.betas)


def make_loss(network: Network, recipe: Recipe) -> MultiTaskLoss:
    """Return the loss that a recipe asks for, for all tasks of a network."""
    part = recipe.loss
    return MultiTaskLoss(
        network.all_tasks,
        weights=part.weights,
        losses=part.kinds,
        auxiliary_at=part.auxiliary_at,
        scales=part.scales,
        balancing=part.balancing,
        align_corners=part.align_corners,
    )


def _averaging(decay: float) -> Any:
    @torch.no_grad()
    def update(averaged: list[Tensor], current: list[Tensor], count: Tensor) -> None:
        # Early on the average follows quickly: the first weights are not worth remembering.
        weight = max(1 - decay, 9 / (10 + float(count)))
        for mean, value in zip(averaged, current):
            if mean.is_floating_point():
                mean.lerp_(value, weight)
            else:
                mean.copy_(value)

    return update


class MultiTaskModule(L.LightningModule):
    """Learns the tasks of a manifest with a recipe; validates what the bundle would compute."""

    def __init__(self, network: Network, manifest: Manifest, recipe: Recipe) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.manifest = manifest
        self.recipe = recipe
        self.criterion = make_loss(network, recipe)
        decay = recipe.optimiser.average_decay
        self.average = (
            AveragedModel(network, multi_avg_fn=_averaging(decay), use_buffers=True)
            if decay > 0
            else None
        )
        if self.average is not None:
            # It follows by hand: gradients are nothing to wait for.
            self.average.requires_grad_(False)
        # In a tuple, out of sight of nn.Module: the state keeps the names that it has without.
        self._forward = (torch.compile(network) if recipe.loop.compile else network,)
        self.metrics = nn.ModuleDict({task.name: metric_for(task) for task in manifest.tasks})
        mean, std = torch.tensor(manifest.mean), torch.tensor(manifest.std)
        self.register_buffer('_mean', 255 * mean.view(1, 3, 1, 1), persistent=False)
        self.register_buffer('_std', 255 * std.view(1, 3, 1, 1), persistent=False)

    @property
    def averaged_network(self) -> nn.Module:
        """The network to score and keep: the averaged one where the recipe averages."""
        return self.network if self.average is None else self.average.module

    def on_train_batch_start(self, *_: Any) -> None:
        """Seed what is random in the network, so that a resumed run continues the same way."""
        seed = self.recipe.loop.seed + 1000003 * self.global_step
        torch.manual_seed(seed + 7919 * self.trainer.global_rank)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Return the total loss of a batch."""
        return self.supervised(batch)[0]

    def supervised(self, batch: Batch) -> tuple[Tensor, Outputs]:
        """
        Return the total loss of a batch, which it logs, and the network's outputs.

        Raises
        ------
        TrainingError
            If the loss is not finite.

        """
        outputs = self._forward[0](self.normalised(batch.image))
        value = self.criterion(outputs, batch.targets)
        if not self.finite_everywhere(value.total):
            losses = {name: float(each) for name, each in value.by_task.items()}
            msg = (
                f'the loss is {float(value.total.detach())} at step {self.global_step} '
                f'({losses}); frames: {", ".join(batch.names)}; lower the learning rate or look '
                'at these frames. The last checkpoint is untouched'
            )
            raise TrainingError(msg)
        shared = self.trainer.world_size > 1
        self.log('loss', value.total, batch_size=len(batch.names), sync_dist=shared)
        for name, each in value.by_task.items():
            self.log(f'loss/{name}', each, batch_size=len(batch.names), sync_dist=shared)
        return value.total, outputs

    def finite_everywhere(self, loss: Tensor) -> bool:
        """Return whether the loss is finite here and in every other process that trains."""
        finite = torch.isfinite(loss.detach())
        if self.trainer.world_size > 1:
            # One that stopped alone would leave the others waiting for it.
            finite = finite.float()
            torch.distributed.all_reduce(finite, torch.distributed.ReduceOp.MIN)
        return bool(finite)

    def normalised(self, image: Tensor) -> Tensor:
        """Return images (B, H, W, 3) uint8 as the network takes them, (B, 3, H, W)."""
        # Bytes in memory order (H, W, 3) are a channels-last image already.
        return (image.permute(0, 3, 1, 2).float() - self._mean) / self._std

    def on_validation_epoch_start(self) -> None:
        """Make the graph whose maps are scored, the same in all processes."""
        if self.trainer.world_size > 1:
            # Batch norm's statistics are each process' own until here.
            for buffer in self.averaged_network.buffers():
                torch.distributed.broadcast(buffer, 0)
        self._graph = PerceptionGraph(self.averaged_network, self.manifest).eval().to(self.device)

    def validation_step(self, batch: Batch, _: int) -> None:
        """Score finished maps in metric units, in single precision as the bundle ships."""
        with torch.autocast(self.device.type, enabled=False):
            maps = finished_maps(self._graph, self.manifest, batch)
        update_metrics(self.metrics, maps, batch.targets)

    def on_validation_epoch_end(self) -> None:
        """Log the scores of all validation frames and forget them."""
        scores = flat_scores(self.metrics)
        # Every process has the same: the metrics have counted the frames of all.
        self.log_dict({f'validation/{name}': value for name, value in scores.items()})
        for metric in self.metrics.values():
            metric.reset()
        del self._graph

    def configure_optimizers(self) -> Any:
        """Return the optimiser and its schedule."""
        recipe = self.recipe.optimiser
        optimiser = make_optimiser(self.network, self.criterion, recipe)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: learning_rate_factor(step, recipe)
        )
        return {
            'optimizer': optimiser,
            'lr_scheduler': {'scheduler': schedule, 'interval': 'step'},
        }
