# SPDX-License-Identifier: Apache-2.0
"""What a network costs: counted from the network itself, without running it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtl_perception.networks.build import build_network
from mtl_perception.networks.errors import NetworkError
import torch
from torch.utils.flop_counter import FlopCounterMode

if TYPE_CHECKING:
    from mtl_perception.tasks import Task

SMALLEST_SIDE = 64


@dataclass(frozen=True)
class NetworkCost:
    """Counts of one network for one image; a multiplication and its addition are two FLOPs."""

    system: str
    backbone: str
    mode: str
    tasks: tuple[str, ...]
    neck_widths: tuple[int, ...]
    size: tuple[int, int]  # height, width
    parameters: int
    backbone_parameters: int
    flops: int


def network_cost(
    system: str,
    tasks: Sequence[Task],
    *,
    backbone: str,
    size: tuple[int, int],
    auxiliary: Sequence[Task] = (),
    mode: str = 'corrected',
    neck: Sequence[int] | None = None,
) -> NetworkCost:
    """
    Build a network without memory for its weights and count what one image of ``size`` needs.

    ``size`` is (height, width), at least 64 each; the rest is what `build_network` takes.
    Convolutions, matrix products and attention are counted, norms and resizing are not.
    Raises `NetworkError` like `build_network`, and for a smaller image.
    """
    if min(size) < SMALLEST_SIDE:
        raise NetworkError(
            f'image size {size[0]}x{size[1]} is too small; every side needs {SMALLEST_SIDE} pixels'
        )
    with torch.device('meta'):  # shapes without values: nothing is allocated or computed
        network = build_network(
            system, tasks, backbone=backbone, auxiliary=auxiliary, mode=mode, neck=neck
        )
    network.to('meta').eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, *size, device='meta'))
    return NetworkCost(
        system=system,
        backbone=backbone,
        mode=mode,
        tasks=tuple(task.name for task in network.tasks),
        neck_widths=network.encoder.neck_widths,
        size=size,
        parameters=sum(weight.numel() for weight in network.parameters()),
        backbone_parameters=sum(w.numel() for w in network.encoder.backbone.parameters()),
        flops=counter.get_total_flops(),
    )
