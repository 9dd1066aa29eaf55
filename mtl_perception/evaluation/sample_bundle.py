# SPDX-License-Identifier: Apache-2.0
"""A bundle of any system that nobody has trained: for timing and building, not for looking."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mtl_perception.manifest import default_label_scale, Manifest, MANIFEST_FILE
from mtl_perception.tasks import standard_tasks, Task
import numpy as np

if TYPE_CHECKING:
    from mtl_perception.networks.network import Network

_BATCHES = 3
_DEPTH_RANGE_M = (0.2, 20.0)


def untrained_network(
    system: str, tasks: Sequence[Task], backbone: str, size: tuple[int, int], mode: str
) -> Network:
    """
    Return a network with random weights, always the same ones.

    The statistics of BatchNorm are those of noise: without them the values inside would grow or
    vanish from layer to layer, and vanishing ones (denormal numbers) are slow.

    :param size: (height, width) of the network's input
    :param mode: see `build_network`

    Raises
    ------
    NetworkError
        If the system, backbone or mode is unknown.

    """
    from mtl_perception.networks.build import build_network
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(system, tasks, backbone=backbone, mode=mode).train()
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None  # the mean over the few batches
        with torch.no_grad():
            for _ in range(_BATCHES):
                network(torch.randn(2, 3, *size))
    return network


def sample_bundle(
    system: str,
    backbone: str,
    size: tuple[int, int],
    directory: Path,
    mode: str = 'corrected',
) -> Path:
    """
    Return the bundle of a system with random weights, written to `directory` unless it is there.

    :param size: (height, width) of the network's input
    :param mode: see `build_network`

    Raises
    ------
    NetworkError
        If the system, backbone or mode is unknown.
    BundleError
        If the network cannot have that size.

    """
    height, width = size
    suffix = '' if mode == 'corrected' else f'_{mode}'
    target = directory / f'{system}_{backbone}_{height}x{width}{suffix}'
    if (target / MANIFEST_FILE).exists():
        return target
    from mtl_perception.bundle import save_bundle

    tasks: tuple[Task, ...] = standard_tasks('rooms')
    if system == 'single_task':
        tasks = tasks[:1]
    network = untrained_network(system, tasks, backbone, size, mode)
    manifest = Manifest(
        name=target.name, system=system, backbone=backbone, mode=mode, tasks=tasks,
        network_size=size, label_scale=default_label_scale(size),
        reference_focal_px=0.9 * width, depth_range_m=_DEPTH_RANGE_M,
    )  # fmt: skip
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    directory.mkdir(parents=True, exist_ok=True)
    save_bundle(network, manifest, target, image)
    return target
