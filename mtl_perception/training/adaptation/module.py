# SPDX-License-Identifier: Apache-2.0
"""The training step of domain adaptation: learn, fool, and learn to tell apart."""

from __future__ import annotations

from typing import Any

from mtl_perception.manifest import Manifest
from mtl_perception.networks.network import Network
from mtl_perception.training.adaptation.discriminators import (
    Discriminators,
    domain_loss,
    SOURCE,
    TARGET,
)
from mtl_perception.training.adaptation.frames import DomainBatch
from mtl_perception.training.errors import TrainingError
from mtl_perception.training.module import MultiTaskModule
from mtl_perception.training.recipe import Recipe
import torch
from torch import Tensor


class AdaptationModule(MultiTaskModule):
    """
    Learns from a labelled domain, and to answer alike in one without labels.

    One step, after DenseMTL's multi-task UDA: the network's supervised loss on source frames;
    its loss for maps of target frames that the discriminators, held still, tell from source
    maps; the discriminators' loss on both, the network held still; then both optimisers step.
    Source and target frames pass the network apart from each other.
    """

    def __init__(self, network: Network, manifest: Manifest, recipe: Recipe) -> None:
        super().__init__(network, manifest, recipe)
        assert recipe.adaptation is not None
        self.adaptation = recipe.adaptation
        self.discriminators = Discriminators(network, recipe)
        # Two optimisers in one step are beyond Lightning's own loop.
        self.automatic_optimization = False

    def on_fit_start(self) -> None:
        """
        Look at the processes that train.

        :raises TrainingError: if there are several
        """
        if self.trainer.world_size > 1:
            msg = (
                f'adaptation trains in one process, not in {self.trainer.world_size}; start one, '
                'with a larger optimiser.batch_size'
            )
            raise TrainingError(msg)

    def training_step(self, batch: Any, _: int) -> Tensor:
        """Do the whole step on a `DomainBatch`; return the supervised loss."""
        network_optimiser, discriminator_optimiser = self.optimizers()
        network_optimiser.zero_grad()
        discriminator_optimiser.zero_grad()
        loss, source_maps, target_maps = self.learn_and_fool(batch)
        self.learn_to_tell_apart(batch, source_maps, target_maps)
        clip = self.recipe.optimiser.gradient_clip
        if clip:
            self.clip_gradients(
                network_optimiser, gradient_clip_val=clip, gradient_clip_algorithm='norm'
            )
        network_optimiser.step()
        # Past Lightning's wrapper, which would count it as another step of the run.
        discriminator_optimiser.optimizer.step()
        for schedule in self.lr_schedulers():
            schedule.step()
        return loss

    def learn_and_fool(
        self, batch: DomainBatch
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """
        Add the network's gradients; the discriminators get none.

        :returns: the supervised loss, and what the discriminators see of source and of target
            frames; all without a graph
        """
        self.discriminators.requires_grad_(False)
        loss, outputs = self.supervised(batch.source)
        self.manual_backward(loss)
        size = (batch.source.image.shape[1], batch.source.image.shape[2])
        ranges = self.discriminators.inverse_depths(batch.source.targets)
        with torch.no_grad():
            source_maps = self.discriminators.domain_maps(outputs, size, ranges)
        outputs = self._forward[0](self.normalised(batch.target.image))
        target_maps = self.discriminators.domain_maps(outputs, size, ranges)
        losses = domain_loss(self.discriminators(target_maps), SOURCE)
        fooling = self.discriminators.fooling_loss(losses)
        self._check(fooling, 'of fooling the discriminators', batch)
        self.manual_backward(fooling)
        self.discriminators.requires_grad_(True)
        self.log('loss/fooling', fooling.detach(), batch_size=len(batch.target.names))
        return (
            loss.detach(), source_maps, {key: each.detach() for key, each in target_maps.items()}
        )

    def learn_to_tell_apart(
        self, batch: DomainBatch, source_maps: dict[str, Tensor], target_maps: dict[str, Tensor]
    ) -> None:
        """Add the discriminators' gradients; the network gets none."""
        for domain, maps, answer in (
            ('source', source_maps, SOURCE), ('target', target_maps, TARGET)
        ):
            losses = domain_loss(self.discriminators(maps), answer)
            loss = torch.stack(list(losses.values())).mean()
            self._check(loss, f'of the discriminators on {domain} frames', batch)
            self.manual_backward(loss)
            self.log(f'discriminators/{domain}', loss.detach(), batch_size=len(batch.names))

    def _check(self, loss: Tensor, which: str, batch: DomainBatch) -> None:
        if not bool(torch.isfinite(loss)):
            msg = (
                f'the loss {which} is {float(loss.detach())} at step {self.global_step}; frames: '
                f'{", ".join(batch.names)}; lower a learning rate or look at these frames. The '
                'last checkpoint is untouched'
            )
            raise TrainingError(msg)

    def configure_optimizers(self) -> Any:
        """Return the optimisers of the network and of the discriminators, and their schedules."""
        own = super().configure_optimizers()
        part, steps = self.adaptation, self.recipe.optimiser.steps
        optimiser = torch.optim.Adam(
            self.discriminators.parameters(), lr=part.learning_rate, betas=part.betas
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: (1 - min(step, steps) / steps) ** part.power
        )
        return [own['optimizer'], optimiser], [own['lr_scheduler']['scheduler'], schedule]
