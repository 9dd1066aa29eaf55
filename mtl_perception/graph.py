# SPDX-License-Identifier: Apache-2.0
"""
The graph of the live node: an image goes in as the camera gives it, finished maps come out.

The same module runs eagerly and is what gets exported (onnx_export.py), so that every engine
computes one and the same thing.
"""

from __future__ import annotations

from mtl_perception.manifest import Manifest
from mtl_perception.networks.decoding import (
    decode_depth,
    decode_normals,
    decode_probability,
    decode_semantic,
)
from mtl_perception.networks.layers.precision import promote
from mtl_perception.tasks import LABELLED_KINDS, Task
import torch
from torch import nn, Tensor
import torch.nn.functional as F


class PerceptionGraph(nn.Module):
    """
    Cast, normalise, run the network, enlarge, decode and correct for the focal length.

    :param network: gives `Outputs`, raw maps by task name at any resolution, from a normalised
        image (B, 3, H, W)
    :param manifest: tasks, network size, label scale, mean and std, depth range

    `depth_scale` is s = f / f_ref, the camera's focal length at network size over the one that
    depth was learned for: depth is multiplied by s, and normals become (nx, ny, nz / s), unit
    again, so that the cloud and its normals agree.
    """

    def __init__(self, network: nn.Module, manifest: Manifest) -> None:
        super().__init__()
        self.network = network
        self.tasks = manifest.tasks
        self.output_names = manifest.output_names
        self._size = manifest.network_size
        self._label_size = manifest.label_size
        self._depth_range_m = manifest.depth_range_m
        mean = torch.tensor(manifest.mean, dtype=torch.float32)
        std = torch.tensor(manifest.std, dtype=torch.float32)
        # (x / 255 - mean) / std as one multiplication and one addition.
        self.register_buffer('_gain', (1.0 / (255.0 * std)).view(1, 3, 1, 1), persistent=False)
        self.register_buffer('_offset', (-mean / std).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor, depth_scale: Tensor) -> tuple[Tensor, ...]:
        """
        Return the maps in the order of `output_names`.

        :param image: uint8 (B, H, W, 3) RGB at network size
        :param depth_scale: float32 (B,)
        :returns: per task: labels uint8 (B, h, w) and their confidence float32 (B, h, w) at
            label size; depth float32 (B, H, W) metres along Z; normals float32 (B, H, W, 3),
            unit, optical frame; edges and saliency uint8 (B, H, W), probability times 255
        """
        # The cast comes first: compilers lack a permutation of bytes.
        pixels = image.to(torch.float32).permute(0, 3, 1, 2)
        raw = self.network(pixels * self._gain + self._offset).maps
        maps: list[Tensor] = []
        for task in self.tasks:
            maps.extend(self._finish(task, raw[task.name], depth_scale))
        return tuple(maps)

    def _finish(self, task: Task, raw: Tensor, depth_scale: Tensor) -> tuple[Tensor, ...]:
        size = self._label_size if task.kind in LABELLED_KINDS else self._size
        if tuple(raw.shape[-2:]) != size:
            raw = F.interpolate(promote(raw), size=size, mode='bilinear', align_corners=False)
        if task.kind in LABELLED_KINDS:
            return decode_semantic(raw)
        if task.kind == 'depth':
            return (decode_depth(raw, self._depth_range_m, depth_scale),)
        if task.kind == 'normals':
            return (decode_normals(raw, depth_scale).permute(0, 2, 3, 1),)
        # 0.5 is added because the cast cuts off the fraction.
        return ((decode_probability(raw) * 255.0 + 0.5).to(torch.uint8),)
