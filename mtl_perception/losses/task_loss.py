# SPDX-License-Identifier: Apache-2.0
"""Which loss belongs to which task kind, under the names that recipes use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from mtl_perception.errors import MtlPerceptionError
from mtl_perception.losses.depth import (
    depth_inverse_berhu_loss,
    depth_l1_loss,
    depth_log_gradient_loss,
    depth_log_l1_loss,
)
from mtl_perception.losses.edges import edges_balanced_loss, edges_balanced_mean_loss
from mtl_perception.losses.normals import normals_cosine_loss, normals_l1_loss
from mtl_perception.losses.saliency import saliency_balanced_loss
from mtl_perception.losses.semantic import semantic_loss
from mtl_perception.networks.layers.precision import promote
from mtl_perception.tasks import Task
from torch import Tensor
import torch.nn.functional as F

LossFunction = Callable[[Tensor, Tensor], Tensor]

# kind -> name -> loss; the first name of a kind is what the MTI-Net code uses.
LOSSES: Mapping[str, Mapping[str, LossFunction]] = {
    'semantic': {'cross_entropy': semantic_loss},
    'parts': {'cross_entropy': semantic_loss},
    'depth': {
        'l1': depth_l1_loss,
        'log_l1': depth_log_l1_loss,
        'log_gradient': depth_log_gradient_loss,
        'inverse_berhu': depth_inverse_berhu_loss,
    },
    'normals': {'l1': normals_l1_loss, 'cosine': normals_cosine_loss},
    'edges': {
        'balanced': edges_balanced_loss,
        # DeMT's weight of edge pixels on NYUD-v2.
        'balanced_0.8': partial(edges_balanced_loss, positive_weight=0.8),
        'balanced_mean': edges_balanced_mean_loss,
    },
    'saliency': {'balanced': saliency_balanced_loss},
}


class LossError(MtlPerceptionError):
    """A loss that does not exist or does not fit its task or target."""


def loss_for(task: Task, name: str | None = None) -> LossFunction:
    """
    Return the loss called `name` for the kind of `task`; None is the published one.

    Raises
    ------
    LossError
        If the kind has no loss of that name.

    """
    choices = LOSSES.get(task.kind)
    if choices is None:
        msg = f'task {task.name!r} is of kind {task.kind!r}, which has no loss'
        raise LossError(msg)
    name = next(iter(choices)) if name is None else name
    if name not in choices:
        msg = (
            f'task {task.name!r} of kind {task.kind!r} has no loss {name!r}; '
            f'use one of {", ".join(choices)}'
        )
        raise LossError(msg)
    return choices[name]


def task_loss(
    task: Task,
    raw: Tensor,
    target: Tensor,
    name: str | None = None,
    *,
    align_corners: bool = False,
) -> Tensor:
    """
    Compare raw maps with a target at the target's size.

    The raw map is enlarged bilinearly to the size of the target, in single precision at
    least, whatever the network ran in.

    :param raw: raw map (B, C, h, w) of `task`
    :param target: (B, H, W), for normals (B, 3, H, W)
    :param name: a name in LOSSES of the task's kind; None is the published loss
    :param align_corners: of the enlargement: whether corner pixels meet by their centres
    :returns: scalar, float32 at least; zero, with a gradient, where nothing is annotated
    :raises LossError: if the target does not fit the raw map
    """
    shape = (raw.shape[0], *target.shape[-2:])
    expected = (shape[0], 3, *shape[1:]) if task.kind == 'normals' else shape
    if tuple(target.shape) != expected:
        msg = (
            f'the target of task {task.name!r} has shape {tuple(target.shape)} for raw maps of '
            f'shape {tuple(raw.shape)}; expected (B, {"3, " * (task.kind == "normals")}H, W)'
        )
        raise LossError(msg)
    raw = promote(raw)
    if raw.shape[-2:] != target.shape[-2:]:
        raw = F.interpolate(
            raw, target.shape[-2:], mode='bilinear', align_corners=align_corners
        )
    return loss_for(task, name)(raw, target)
