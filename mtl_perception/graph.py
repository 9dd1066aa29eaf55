# SPDX-License-Identifier: Apache-2.0
"""
The graph of the live node: an image goes in as the camera gives it, finished maps come out.

The same module runs eagerly, and is exported to ONNX with its weights left where they are:
in the safetensors file of the bundle.
"""

from __future__ import annotations

from collections.abc import Mapping
import json
from pathlib import Path
from typing import Any

from mtl_perception.manifest import BundleError, Manifest
from mtl_perception.networks.decoding import (
    decode_depth,
    decode_edges,
    decode_normals,
    decode_semantic,
)
from mtl_perception.tasks import Task
import torch
from torch import nn, Tensor
import torch.nn.functional as F

OPSET = 20
IMAGE_INPUT = 'image'
SCALE_INPUT = 'depth_scale'


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
            unit, optical frame; edges uint8 (B, H, W), probability times 255
        """
        # The cast comes first: compilers lack a permutation of bytes.
        pixels = image.to(torch.float32).permute(0, 3, 1, 2)
        raw = self.network(pixels * self._gain + self._offset).maps
        maps: list[Tensor] = []
        for task in self.tasks:
            maps.extend(self._finish(task, raw[task.name], depth_scale))
        return tuple(maps)

    def _finish(self, task: Task, raw: Tensor, depth_scale: Tensor) -> tuple[Tensor, ...]:
        size = self._label_size if task.kind == 'semantic' else self._size
        if tuple(raw.shape[-2:]) != size:
            raw = F.interpolate(raw.float(), size=size, mode='bilinear', align_corners=False)
        if task.kind == 'semantic':
            return decode_semantic(raw)
        if task.kind == 'depth':
            return (decode_depth(raw, self._depth_range_m, depth_scale),)
        if task.kind == 'normals':
            return (decode_normals(raw, depth_scale).permute(0, 2, 3, 1),)
        # 0.5 is added because the cast cuts off the fraction.
        return ((decode_edges(raw) * 255.0 + 0.5).to(torch.uint8),)


def export_onnx(graph: PerceptionGraph, manifest: Manifest, weights: Path) -> bytes:
    """
    Return the ONNX model of `graph`, its weights external data of the file `weights`.

    The batch is dynamic, the size fixed. Constants that are no weights stay in the model.

    :param weights: the safetensors file with the state dict of `graph.network`; the model names
        it without its directory, so both must lie side by side

    Raises
    ------
    BundleError
        If a weight of the graph is not in the file with the same type, shape and values.

    """
    height, width = manifest.network_size
    # Two images, or the exporter would take the batch for a constant 1.
    image = torch.zeros((2, height, width, 3), dtype=torch.uint8)
    scale = torch.ones((2,), dtype=torch.float32)
    batch = torch.export.Dim('batch', min=1)
    program = torch.onnx.export(
        graph,
        (image, scale),
        dynamo=True,
        opset_version=OPSET,
        # The optimiser would fold normalisation into new weights; engines fold it themselves.
        optimize=False,
        input_names=[IMAGE_INPUT, SCALE_INPUT],
        output_names=list(graph.output_names),
        dynamic_shapes={IMAGE_INPUT: {0: batch}, SCALE_INPUT: {0: batch}},
        verbose=False,
    )
    model = program.model_proto
    _forget_origin(model)
    _point_into(model, weights)
    return bytes(model.SerializeToString())


def safetensors_layout(path: Path) -> dict[str, dict[str, Any]]:
    """
    Read where each tensor lies in a safetensors file.

    :returns: by name: `dtype`, `shape`, `offset` from the start of the file, `length` in bytes

    Raises
    ------
    BundleError
        If the file is cut short or is no safetensors file.

    """
    size = path.stat().st_size
    with path.open('rb') as stream:
        length = int.from_bytes(stream.read(8), 'little')
        if size < 8 or length > size - 8:
            msg = f'{path}: the header reaches past the end of the file; it is cut short'
            raise BundleError(msg)
        try:
            header: Mapping[str, Any] = json.loads(stream.read(length))
        except ValueError as error:
            msg = f'{path}: the header is not JSON ({error}); this is no safetensors file'
            raise BundleError(msg) from error
    layout = {}
    for name, entry in header.items():
        if name == '__metadata__':
            continue
        begin, end = entry['data_offsets']
        layout[name] = {
            'dtype': entry['dtype'],
            'shape': tuple(entry['shape']),
            'offset': 8 + length + begin,
            'length': end - begin,
        }
    return layout


def _forget_origin(model: Any) -> None:
    """Drop the exporter's notes: they are a third of the file and hold paths of this machine."""
    del model.metadata_props[:]
    parts = (model.graph.node, model.graph.value_info, model.graph.initializer)
    for part in (*parts, model.graph.input, model.graph.output):
        for entry in part:
            entry.doc_string = ''
            del entry.metadata_props[:]


def _point_into(model: Any, weights: Path) -> None:
    """Replace the data of every weight by its place in the safetensors file."""
    from onnx import numpy_helper, TensorProto

    layout = safetensors_layout(weights)
    content = weights.read_bytes()
    prefix = 'network.'
    for tensor in model.graph.initializer:
        name = tensor.name.removeprefix(prefix)
        if name == tensor.name or name not in layout:
            continue
        place = layout[name]
        data = numpy_helper.to_array(tensor)
        stored = content[place['offset'] : place['offset'] + place['length']]
        if data.tobytes() != stored or tuple(tensor.dims) != place['shape']:
            msg = f'{weights}: tensor {name!r} differs from the graph; save both from one network'
            raise BundleError(msg)
        tensor.ClearField('raw_data')
        tensor.data_location = TensorProto.EXTERNAL
        del tensor.external_data[:]
        for key, value in (
            ('location', weights.name),
            ('offset', place['offset']),
            ('length', place['length']),
        ):
            tensor.external_data.add(key=key, value=str(value))
