# SPDX-License-Identifier: Apache-2.0
"""The graph as ONNX, with its weights left where they are: in the bundle's safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
import json
from pathlib import Path
from typing import Any
import warnings

from mtl_perception.graph import PerceptionGraph
from mtl_perception.manifest import BundleError, Manifest
import torch

OPSET = 20
_WEIGHT_PREFIX = 'network.'  # where PerceptionGraph keeps the network


def export_onnx(graph: PerceptionGraph, manifest: Manifest, weights: Path) -> bytes:
    """
    Return the ONNX model of `graph`, its weights external data of the file `weights`.

    The inputs are `image` and `depth_scale`, the outputs `graph.output_names`; the batch is
    dynamic, the size fixed. Constants that are no weights stay in the model.

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
    with warnings.catch_warnings():
        # It warns that the batch of the second input is the batch of the first.
        warnings.filterwarnings('ignore', message='# The axis name', category=UserWarning)
        program: Any = torch.onnx.export(
            graph,
            (image, scale),
            dynamo=True,
            opset_version=OPSET,
            # The full optimiser would fold BatchNorm into new weights: see _simplify.
            optimize=False,
            input_names=['image', 'depth_scale'],
            output_names=list(graph.output_names),
            dynamic_shapes={'image': {0: batch}, 'depth_scale': {0: batch}},
            verbose=False,
        )
    model = program.model
    _simplify(model)
    _point_into(model, weights)
    import onnx_ir

    proto = onnx_ir.serde.serialize_model(model)
    # Shapes between the nodes: engines infer them, and they are half of the file.
    del proto.graph.value_info[:]
    return bytes(proto.SerializeToString())


def _is_weight(value: Any) -> bool:
    return value is not None and str(value.name).startswith(_WEIGHT_PREFIX)


def _simplify(model: Any) -> None:
    """
    Fold what the exporter left to run time, without making new weights.

    Convolutions without bias come out with a bias of zeros computed from the weight's shape,
    which keeps ONNX Runtime from folding BatchNorm into them (a third of the time of a small
    network), and splits come out as sequences, which TensorRT does not read.
    """
    from onnx_ir.passes import common as passes
    from onnxscript.optimizer import fold_constants_ir

    def foldable(node: Any) -> bool | None:
        reads_shape_only = node.op_type in ('Shape', 'Size')
        # None leaves the choice to the folder; a folded weight would be stored twice.
        return None if reads_shape_only or not any(map(_is_weight, node.inputs)) else False

    fold_constants_ir(model, onnx_shape_inference=True, should_fold=foldable)
    for node in model.graph:
        if node.op_type == 'Conv' and len(node.inputs) == 3 and not _is_weight(node.inputs[2]):
            bias = node.inputs[2].const_value
            if bias is not None and not bias.numpy().any():
                node.replace_input_with(2, None)
    passes.RemoveUnusedNodesPass()(model)
    # The exporter's notes hold paths of the machine it ran on.
    passes.ClearMetadataAndDocStringPass()(model)


def _point_into(model: Any, weights: Path) -> None:
    """Replace the data of every weight by its place in the safetensors file."""
    import onnx_ir

    layout = safetensors_layout(weights)
    content = weights.read_bytes()
    for name, value in model.graph.initializers.items():
        place = layout.get(name.removeprefix(_WEIGHT_PREFIX))
        if not _is_weight(value) or place is None:
            continue
        tensor = value.const_value
        stored = content[place['offset'] : place['offset'] + place['length']]
        if tensor.tobytes() != stored or tuple(tensor.shape) != place['shape']:
            msg = f'{weights}: tensor {name!r} differs from the graph; save both from one network'
            raise BundleError(msg)
        value.const_value = onnx_ir.ExternalTensor(
            weights.name,
            place['offset'],
            place['length'],
            tensor.dtype,
            shape=tensor.shape,
            name=name,
        )


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
