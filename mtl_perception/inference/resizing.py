# SPDX-License-Identifier: Apache-2.0
"""A bundle's network at another input size, as a bundle of its own; this needs torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mtl_perception.manifest import CHECK_FILE, default_label_scale, load_manifest


def resized_bundle(model: Path, size: tuple[int, int], directory: Path) -> Path:
    """
    Write the bundle `model` at `size` (height, width) into `directory`; return where it lies.

    The weights are the same and the scores are left out: they were measured at the old size.

    Raises
    ------
    BundleError
        If the bundle is damaged, or its network cannot have that size.

    """
    manifest = load_manifest(model)
    if manifest.network_size == size:
        return model
    import cv2
    from mtl_perception.bundle import load_network, save_bundle
    from safetensors.numpy import load_file

    network, _ = load_network(model)
    image = load_file(model / CHECK_FILE)['input.image'][0]
    height, width = size
    name = f'{manifest.name}_{height}x{width}'
    # Depth is learned for a focal length in pixels: that of the network's input, at any size.
    resized = replace(
        manifest, name=name, network_size=size, label_scale=default_label_scale(size), scores={},
        files={},
    )  # fmt: skip
    target = directory / name
    save_bundle(network, resized, target, cv2.resize(image, (width, height)))
    return target
