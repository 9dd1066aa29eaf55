# SPDX-License-Identifier: Apache-2.0
"""
Save a network as a bundle and load it again.

A bundle is a directory: `bundle.json` (manifest.py), `weights.safetensors`, `graph.onnx` whose
weights are external data of weights.safetensors, so that they are stored once,
`check.safetensors` (a test frame and its fp32 maps) and a README.md. Nothing in it is code, and
loading it runs none: weights are plain numbers, the network is built by name from this package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mtl_perception.agreement import disagreement, FP32_TOLERANCE
from mtl_perception.bundle_card import write_card
from mtl_perception.errors import MtlPerceptionError
from mtl_perception.files import atomic_directory
from mtl_perception.graph import PerceptionGraph
from mtl_perception.manifest import (
    BundleError,
    CARD_FILE,
    CHECK_FILE,
    file_digest,
    GRAPH_FILE,
    load_manifest,
    Manifest,
    save_manifest,
    verify_files,
    WEIGHTS_FILE,
)
from mtl_perception.onnx_export import export_onnx
from mtl_perception.tasks import LABELLED_KINDS
import numpy as np
import numpy.typing as npt
import torch
from torch import nn, Tensor

# Not 1, so that an engine that ignores the focal correction fails the check.
CHECK_DEPTH_SCALE = 1.25


def save_bundle(
    network: nn.Module,
    manifest: Manifest,
    directory: Path | str,
    check_image: npt.NDArray[np.uint8],
) -> Manifest:
    """
    Write `network` as the bundle `directory`: the whole of it, or nothing.

    A bundle that stands there already is replaced. The network itself is left as it is.

    :param manifest: its `files` are filled in here
    :param check_image: uint8 (H, W, 3) RGB at network size, a frame the network is meant for
    :returns: the manifest as saved

    Raises
    ------
    BundleError
        If the check image has another shape or type, the network gives NaN on it, or the
        manifest does not build this network.

    """
    expected = (*manifest.network_size, 3)
    if check_image.shape != expected or check_image.dtype != np.uint8:
        msg = (
            f'check_image is {check_image.dtype} {check_image.shape}; '
            f'give uint8 {expected}, RGB at network size'
        )
        raise BundleError(msg)
    was_training = network.training
    state = {
        name: tensor.detach().to('cpu', copy=True).contiguous()
        for name, tensor in network.state_dict().items()
    }
    device = next(iter(network.parameters())).device
    try:
        graph = PerceptionGraph(network.cpu().eval(), manifest).eval()
        with atomic_directory(directory) as target:
            return _write(graph, state, manifest, target, check_image)
    finally:
        network.to(device).train(was_training)


def _write(
    graph: PerceptionGraph,
    state: Mapping[str, Tensor],
    manifest: Manifest,
    target: Path,
    check_image: npt.NDArray[np.uint8],
) -> Manifest:
    from safetensors.torch import save

    weights = target / WEIGHTS_FILE
    # Not save_file: it makes files that only their owner may read.
    weights.write_bytes(save(dict(state)))
    (target / GRAPH_FILE).write_bytes(export_onnx(graph, manifest, weights))
    inputs = {
        'input.image': torch.from_numpy(check_image[None].copy()),
        'input.depth_scale': torch.tensor([CHECK_DEPTH_SCALE]),
    }
    maps = _run(graph, inputs)
    for name, values in maps.items():
        if values.is_floating_point() and not bool(values.isfinite().all()):
            msg = f'the network gives NaN or infinity for {name!r} on the check image; not saved'
            raise BundleError(msg)
    outputs = {f'output.{name}': values.contiguous() for name, values in maps.items()}
    (target / CHECK_FILE).write_bytes(save({**inputs, **outputs}))
    cost = label_scale_cost(graph, manifest, inputs, maps)
    (target / CARD_FILE).write_text(write_card(manifest, cost), encoding='utf-8')
    files = (WEIGHTS_FILE, GRAPH_FILE, CHECK_FILE, CARD_FILE)
    manifest = replace(manifest, files={name: file_digest(target / name) for name in files})
    save_manifest(manifest, target)
    # A bundle whose own manifest does not rebuild its network is never put in place.
    load_network(target)
    return manifest


def _run(graph: PerceptionGraph, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    with torch.no_grad():
        maps = graph(inputs['input.image'], inputs['input.depth_scale'])
    return dict(zip(graph.output_names, maps))


def label_scale_cost(
    graph: PerceptionGraph,
    manifest: Manifest,
    inputs: Mapping[str, Tensor],
    maps: Mapping[str, Tensor],
) -> float | None:
    """
    Return the share of labels that differ from those decided at full network size.

    Where labels have full size already: the share that would differ at half of it.

    :param inputs: the check frame, `maps` what the graph gives for it
    :returns: the largest share of the tasks; None without labels or where nothing can be halved
    """
    tasks = [task for task in manifest.tasks if task.kind in LABELLED_KINDS]
    step = max(manifest.label_step, 2)
    if not tasks or any(side % step for side in manifest.network_size):
        return None
    other = replace(manifest, label_scale=1 / step if manifest.label_step == 1 else 1.0)
    others = _run(PerceptionGraph(graph.network, other), inputs)
    small, full = (maps, others) if manifest.label_step > 1 else (others, maps)
    return max(
        (small[task.name].repeat_interleave(step, 1).repeat_interleave(step, 2) != full[task.name])
        .float()
        .mean()
        .item()
        for task in tasks
    )


def load_network(directory: Path | str) -> tuple[nn.Module, Manifest]:
    """
    Build the network of a bundle and load its weights.

    :returns: the network on the CPU in evaluation mode, and its manifest

    Raises
    ------
    BundleError
        If a file is missing, cut short, changed, foreign or of a newer format, or the weights
        do not fit the network that the manifest names.

    """
    from mtl_perception.networks.build import build_network

    directory = Path(directory)
    manifest = load_manifest(directory)
    verify_files(manifest, directory, (WEIGHTS_FILE,))
    try:
        network: nn.Module = build_network(
            manifest.system,
            manifest.tasks,
            backbone=manifest.backbone,
            auxiliary=manifest.auxiliary,
            mode=manifest.mode,
            neck=manifest.neck,
            pretrained=None,
        )
    except MtlPerceptionError as error:
        msg = f"{directory}: fields 'system', 'mode', 'backbone', 'neck' build no network: {error}"
        raise BundleError(msg) from error
    state = _read_tensors(directory / WEIGHTS_FILE)
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as error:
        msg = (
            f'{directory / WEIGHTS_FILE}: the weights do not fit {manifest.system} on '
            f'{manifest.backbone} as this version builds it: {error}'
        )
        raise BundleError(msg) from error
    return network.eval(), manifest


def _read_tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        msg = f'{path}: not readable as safetensors ({error}); copy the bundle again'
        raise BundleError(msg) from error
    return tensors


def verify_bundle(directory: Path | str) -> dict[str, float]:
    """
    Check every file of a bundle, rebuild its network and run the test frame.

    :returns: by task name how far today's maps are from the stored ones (`disagreement`)

    Raises
    ------
    BundleError
        If a file is damaged, or a map differs by more than two fp32 engines may.

    """
    directory = Path(directory)
    manifest = load_manifest(directory)
    verify_files(manifest, directory)
    network, _ = load_network(directory)
    check = _read_tensors(directory / CHECK_FILE)
    maps = _run(PerceptionGraph(network, manifest).eval(), check)
    reference: dict[str, Any] = {
        name: check[f'output.{name}'].numpy() for name in manifest.output_names
    }
    errors = disagreement(
        manifest.tasks, reference, {name: values.numpy() for name, values in maps.items()}
    )
    for task in manifest.tasks:
        tolerance = FP32_TOLERANCE[task.kind]
        if not errors[task.name] <= tolerance:
            msg = (
                f'{directory / CHECK_FILE}: {task.name!r} is {errors[task.name]:.3g} away from '
                f'its stored map, over {tolerance:.3g}; the bundle or this torch is defective'
            )
            raise BundleError(msg)
    return errors
