# SPDX-License-Identifier: Apache-2.0
"""The weighted sum over tasks and supervised scales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mtl_perception.losses.task_loss import loss_for, LossError, LOSSES, task_loss
from mtl_perception.networks.layers.precision import promote
from mtl_perception.networks.outputs import Outputs
from mtl_perception.tasks import LABELLED_KINDS, PROBABILITY_KINDS, Task
from mtl_perception.values import UNLABELLED
import torch
from torch import nn, Tensor
import torch.nn.functional as F

# At equal weights the losses differ by orders of magnitude; these are the weights of the
# PAD-Net, MTI-Net and DeMT configurations.
PUBLISHED_WEIGHTS = {
    'semantic': 1.0,
    'parts': 2.0,
    'depth': 1.0,
    'normals': 10.0,
    'edges': 50.0,
    'saliency': 5.0,
}
AUXILIARY_AT = ('label', 'prediction')
BALANCINGS = ('fixed', 'uncertainty')
SCALES = ('sum', 'mean')
# Kinds with a likelihood of classes; the others have one of a continuous value, whose loss
# stands with 1 / (2 sigma^2).
_CLASSIFIED = (*LABELLED_KINDS, *PROBABILITY_KINDS)


@dataclass(frozen=True)
class MultiTaskLossValue:
    """The total to descend, and the unweighted loss of each task's final map to log."""

    total: Tensor  # scalar
    by_task: dict[str, Tensor]  # scalars, detached


def shrink_target(task: Task, target: Tensor, size: tuple[int, int]) -> Tensor:
    """
    Bring a target down to the size of a coarse prediction.

    Labels, depth and normals take the nearest pixel (a mean would invent classes and surfaces
    between two objects). Edges and saliency become the share of such pixels in the cell: with it
    the loss equals the mean over the cell's pixels, where the nearest pixel would miss thin
    lines.

    :param target: (B, H, W), for normals (B, 3, H, W)
    :param size: (h, w)
    :returns: the target at (h, w)
    """
    if tuple(target.shape[-2:]) == size:
        return target
    if task.kind in PROBABILITY_KINDS:
        annotated = (target != UNLABELLED).float()[:, None]
        share = F.adaptive_avg_pool2d((target == 1).float()[:, None], size)
        covered = F.adaptive_avg_pool2d(annotated, size)
        cell = torch.where(covered > 0, share / covered.clamp(min=1e-6), float(UNLABELLED))
        return cell[:, 0]
    height, width = target.shape[-2:]
    rows = ((torch.arange(size[0], device=target.device) + 0.5) * height / size[0]).long()
    columns = ((torch.arange(size[1], device=target.device) + 0.5) * width / size[1]).long()
    return target[..., rows[:, None], columns[None, :]]


class MultiTaskLoss(nn.Module):
    """
    Deep supervision: final maps plus auxiliary maps, each with its task's weight.

    total = sum over scales and auxiliary tasks of w_t L_t + sum over main tasks of w_t L_t,
    every coefficient 1 (MTI-Net); with `scales` 'mean' each task's terms are averaged (DenseMTL).

    `balancing` 'uncertainty' learns a variance s = log sigma^2 for each task: its loss stands
    with exp(-s) (half of it for depth and normals) and s / 2 is added, so that no task can be
    switched off (Kendall et al., CVPR 2018). The variances are this module's parameters.

    `auxiliary_at` says where auxiliary maps meet their targets: 'label' enlarges the map to
    the label's size, as published; 'prediction' brings the target down to the map, which costs
    a small part of the time (the coarsest maps are 1/32: enlarging them multiplies their
    pixels by 1024 and adds no information).
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        weights: Mapping[str, float] | None = None,
        losses: Mapping[str, str] | None = None,
        auxiliary_at: str = 'label',
        scales: str = 'sum',
        balancing: str = 'fixed',
        align_corners: bool = False,
    ) -> None:
        """
        Fix tasks, weights and losses.

        :param tasks: all tasks, main and auxiliary
        :param weights: by task name; absent = the published weight of the kind, and 1 where the
            uncertainty balances
        :param losses: loss name by task name; absent = the published loss of the kind
        :param auxiliary_at: 'label' or 'prediction'
        :param scales: 'sum' or 'mean'
        :param balancing: 'fixed' or 'uncertainty'
        :param align_corners: as `task_loss`
        :raises LossError: if a name is unknown or a weight is negative
        """
        super().__init__()
        self._tasks = {task.name: task for task in tasks}
        for given, label in ((weights, 'weight'), (losses, 'loss')):
            unknown = sorted(set(given or ()) - set(self._tasks))
            if unknown:
                msg = f'a {label} is given for {unknown}, but the tasks are {list(self._tasks)}'
                raise LossError(msg)
        for name, value, choices in (
            ('auxiliary_at', auxiliary_at, AUXILIARY_AT),
            ('scales', scales, SCALES),
            ('balancing', balancing, BALANCINGS),
        ):
            if value not in choices:
                msg = f'{name} is {value!r}; use one of {choices}'
                raise LossError(msg)
        self._losses = dict(losses or {})
        for task in tasks:
            loss_for(task, self._losses.get(task.name))
        learned = balancing == 'uncertainty'
        self._weights = {
            task.name: float(
                (weights or {}).get(task.name, 1.0 if learned else PUBLISHED_WEIGHTS[task.kind])
            )
            for task in tasks
        }
        self.log_variances = nn.ParameterDict(
            {task.name: nn.Parameter(torch.zeros(())) for task in tasks} if learned else {}
        )
        self._averages = scales == 'mean'
        negative = {name: value for name, value in self._weights.items() if not value >= 0}
        if negative:
            msg = f'task weights must not be negative: {negative}'
            raise LossError(msg)
        self._auxiliary_at = auxiliary_at
        self._align_corners = align_corners

    def forward(self, outputs: Outputs, targets: Mapping[str, Tensor]) -> MultiTaskLossValue:
        """
        Sum the losses of `outputs` against `targets`.

        :param outputs: a network's raw maps; a task without target adds zero, with a gradient
        :param targets: by task name, (B, H, W), for normals (B, 3, H, W)
        """
        by_task: dict[str, Tensor] = {}
        terms: dict[str, list[Tensor]] = {}
        with torch.autocast(self._device(outputs), enabled=False):
            for name, raw in outputs.maps.items():
                value = self._task_value(name, raw, targets.get(name))
                by_task[name] = value.detach()
                terms.setdefault(name, []).append(value)
            for scale in outputs.auxiliary:
                for name, raw in scale.items():
                    target = targets.get(name)
                    if target is not None and self._auxiliary_at == 'prediction':
                        target = shrink_target(self._tasks[name], target, _size(raw))
                    terms.setdefault(name, []).append(self._task_value(name, raw, target))
            total = torch.stack([self._weighted(name, each) for name, each in terms.items()])
        return MultiTaskLossValue(total=total.sum(), by_task=by_task)

    def _weighted(self, name: str, terms: list[Tensor]) -> Tensor:
        value = torch.stack(terms).sum() / (len(terms) if self._averages else 1)
        value = self._weights[name] * value
        if name not in self.log_variances:
            return value
        s = self.log_variances[name]
        share = 1.0 if self._tasks[name].kind in _CLASSIFIED else 0.5
        # A task without annotation in this batch says nothing about its uncertainty.
        return (share * torch.exp(-s) * value + 0.5 * s) * (value.detach() > 0)

    def describe(self) -> str:
        """Return each task's loss and weight in words."""
        return ', '.join(
            f'{self._weights[name]:g} x {name} '
            f'{self._losses.get(name) or next(iter(LOSSES[task.kind]))}'
            for name, task in self._tasks.items()
        )

    def _task_value(self, name: str, raw: Tensor, target: Tensor | None) -> Tensor:
        if target is None:
            return promote(raw).sum() * 0.0
        return task_loss(
            self._tasks[name], raw, target, self._losses.get(name),
            align_corners=self._align_corners,
        )

    @staticmethod
    def _device(outputs: Outputs) -> str:
        return next(iter(outputs.maps.values())).device.type


def _size(raw: Tensor) -> tuple[int, int]:
    return int(raw.shape[-2]), int(raw.shape[-1])
