# SPDX-License-Identifier: Apache-2.0
"""The one door: a network from the names of its system, tasks and backbone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mtl_perception.networks.backbones import build_backbone
from mtl_perception.networks.baselines import MultiTaskBaseline, SingleTaskBaseline
from mtl_perception.networks.demt import DeMT, DeMTGlobal
from mtl_perception.networks.densemtl import DenseMTL
from mtl_perception.networks.errors import NetworkError
from mtl_perception.networks.mti_net import MTINet
from mtl_perception.networks.mtl_segformer import MTLSegFormer
from mtl_perception.networks.network import Encoder, MODES, Network
from mtl_perception.networks.pad_net import PADNet
from torch import nn

if TYPE_CHECKING:
    from mtl_perception.tasks import Task

SYSTEMS: dict[str, type[Network]] = {
    'single_task': SingleTaskBaseline,
    'multi_task': MultiTaskBaseline,
    'pad_net': PADNet,
    'mti_net': MTINet,
    'demt': DeMT,
    'demt_global': DeMTGlobal,
    'densemtl': DenseMTL,
    'mtl_segformer': MTLSegFormer,
}


def build_network(
    system: str,
    tasks: Sequence[Task],
    *,
    backbone: str,
    auxiliary: Sequence[Task] = (),
    mode: str = 'corrected',
    neck: Sequence[int] | None = None,
    pretrained: bool | str | Path | None = None,
) -> Network:
    """
    Build a network.

    ``system``: a key of `SYSTEMS`. ``tasks``: the tasks with a final map each. ``auxiliary``:
    tasks that are only supervised inside (a main task named here again is simply main).
    ``mode``: 'corrected' is what the paper means, 'published' what the released code computes.
    ``neck``: the four widths of the 1x1 projections between backbone and system; None takes the
    system's default for this backbone, () has no neck. ``pretrained``: see `build_backbone`.

    Raises `NetworkError` for anything unknown, duplicated or of the wrong length.
    """
    if system not in SYSTEMS:
        raise NetworkError(f'unknown system {system!r}; known are {", ".join(SYSTEMS)}')
    if mode not in MODES:
        raise NetworkError(f'unknown mode {mode!r}; known are {", ".join(MODES)}')
    if not tasks:
        raise NetworkError('a network needs at least one task, got none')
    main = {task.name for task in tasks}
    extra = [task for task in auxiliary if task.name not in main]
    _check_names([task.name for task in (*tasks, *extra)])
    cls = SYSTEMS[system]
    if mode not in cls.modes:
        raise NetworkError(
            f'system {system!r} has no released code to follow, so mode {mode!r} does not exist; '
            f'use {", ".join(cls.modes)}'
        )
    widths = cls.neck_for(backbone, mode) if neck is None else tuple(neck)
    features = build_backbone(backbone, pretrained, **cls.backbone_options(backbone, mode))
    if widths and (len(widths) != len(features.channels) or min(widths) < 1):
        raise NetworkError(
            f'neck {widths} does not fit: {backbone} gives {len(features.channels)} levels, '
            'so the neck needs as many positive widths'
        )
    return cls(Encoder(features, widths), tasks, extra, mode)


def _check_names(names: Sequence[str]) -> None:
    """Refuse task names that repeat or that cannot name a submodule."""
    for index, name in enumerate(names):
        if name in names[:index]:
            raise NetworkError(f'task {name!r} is given twice; names must be unique')
        if not name or '.' in name or hasattr(nn.ModuleDict, name) or name == 'training':
            raise NetworkError(f'task name {name!r} cannot name a part of a network; rename it')
