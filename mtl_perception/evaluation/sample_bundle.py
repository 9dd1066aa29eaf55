# SPDX-License-Identifier: Apache-2.0
"""A bundle of any system that nobody has trained: for timing and building, not for looking."""

from __future__ import annotations

from pathlib import Path

from mtl_perception.manifest import Manifest, MANIFEST_FILE
from mtl_perception.tasks import standard_tasks, Task
import numpy as np

_BATCHES = 3
_DEPTH_RANGE_M = (0.2, 20.0)


def sample_bundle(system: str, backbone: str, size: tuple[int, int], directory: Path) -> Path:
    """
    Return the bundle of a system with random weights, written to `directory` unless it is there.

    The statistics of BatchNorm are those of noise: without them the values inside would grow or
    vanish from layer to layer, and vanishing ones (denormal numbers) are slow.

    :param size: (height, width) of the network's input

    Raises
    ------
    NetworkError
        If the system or backbone is unknown.
    BundleError
        If the network cannot have that size.

    """
    height, width = size
    target = directory / f'{system}_{backbone}_{height}x{width}'
    if (target / MANIFEST_FILE).exists():
        return target
    from mtl_perception.bundle import save_bundle
    from mtl_perception.networks.build import build_network
    import torch

    tasks: tuple[Task, ...] = standard_tasks('rooms')
    if system == 'single_task':
        tasks = tasks[:1]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(system, tasks, backbone=backbone).train()
        with torch.no_grad():
            for _ in range(_BATCHES):
                network(torch.randn(2, 3, height, width))
    manifest = Manifest(
        name=target.name, system=system, backbone=backbone, tasks=tasks, network_size=size,
        reference_focal_px=0.9 * width, depth_range_m=_DEPTH_RANGE_M,
    )  # fmt: skip
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    directory.mkdir(parents=True, exist_ok=True)
    save_bundle(network, manifest, target, image)
    return target
