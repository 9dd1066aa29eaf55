# SPDX-License-Identifier: Apache-2.0
"""Weights that others trained, brought into a bundle by their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
import pickle
import re
from typing import Any

import cv2
from mtl_perception.bundle import save_bundle
from mtl_perception.manifest import file_digest, Manifest
from mtl_perception.training.errors import TrainingError
from mtl_perception.training.initial import load_matching, Matched
from mtl_perception.training.name_maps import find_map, read_rules, renamed
from mtl_perception.training.recipe import Recipe
from mtl_perception.training.run import make_network
import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file
import torch
from torch import nn, Tensor

# The names of a timm model, as `create_model(...).state_dict()` has them.
TIMM = 'timm'
# Where training scripts put the weights among their other state.
_WRAPPERS = ('state_dict', 'model_state_dict', 'model', 'net', 'weights')
_PARALLEL = 'module.'
_BACKBONE = 'encoder.backbone.net.'
# Training scripts keep their scores beside the weights, as numbers of NumPy: data like tensors,
# but PyTorch wants them named.
_SCALAR = np.float64(0).__reduce__()[0]
_NUMBERS: list[Any] = [
    np.dtype,
    *(type(np.dtype(kind)) for kind in ('bool', 'int32', 'int64', 'float32', 'float64')),
    (_SCALAR, 'numpy.core.multiarray.scalar'),
    (_SCALAR, 'numpy._core.multiarray.scalar'),
]


def read_weights(path: Path) -> dict[str, Tensor]:
    """
    Return the tensors of a safetensors file or a PyTorch checkpoint, by name.

    A checkpoint is read with `weights_only`: nothing in it runs. Weights one level down under a
    usual name (`state_dict`, `model`, ...) are found, DataParallel's `module.` is cut off.

    Raises
    ------
    TrainingError
        If the file cannot be read or holds no tensors by name.

    """
    try:
        if path.suffix == '.safetensors':
            return dict(load_file(path))
        with torch.serialization.safe_globals(_NUMBERS):
            content = torch.load(path, map_location='cpu', weights_only=True)
    except (OSError, SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()
        msg = (
            f'{path} cannot be read as safetensors or as a PyTorch checkpoint of plain tensors: '
            f'{reason[0] if reason else type(error).__name__}'
        )
        raise TrainingError(msg) from error
    while isinstance(content, Mapping):
        inner = next((name for name in _WRAPPERS if isinstance(content.get(name), Mapping)), None)
        if inner is None:
            break
        content = content[inner]
    tensors = {
        str(name): value
        for name, value in (content.items() if isinstance(content, Mapping) else ())
        if isinstance(value, Tensor)
    }
    if not tensors:
        msg = f'{path} holds no tensors by name; give the state dictionary of a network'
        raise TrainingError(msg)
    if all(name.startswith(_PARALLEL) for name in tensors):
        return {name[len(_PARALLEL) :]: value for name, value in tensors.items()}
    return tensors


def with_backbone_names(network: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a timm model under the names of a network's backbone."""
    own = {}
    for name in network.state_dict():
        if name.startswith(_BACKBONE):
            inner = name[len(_BACKBONE) :]
            # timm's feature extractors flatten the first level of names: layers_0 for layers.0.
            own[re.sub(r'^([a-z]+)_(\d+)\.', r'\1.\2.', inner)] = name
    return {own.get(name, name): tensor for name, tensor in weights.items()}


def describe_match(matched: Matched) -> list[str]:
    """Return lines about what was loaded and what was not, by the parts of the network."""
    lines = []
    for title, names in (
        ('loaded', matched.loaded),
        ('not in the file, left as initialised', matched.absent),
        ('of another shape, left as initialised', matched.other_shape),
        ('in the file, not of this network', matched.unused),
    ):
        lines.append(f'{len(names)} tensors {title}{":" if names else ""}')
        lines.extend(f'  {part} {count}' for part, count in _parts(names).items())
    return lines


def _parts(names: Iterable[str]) -> Counter[str]:
    return Counter('.'.join(name.split('.')[:2]) for name in names)


def import_weights(
    file: Path, recipe: Recipe, directory: Path, names: Path | str | None = None
) -> tuple[Manifest, Matched]:
    """
    Write the bundle of a recipe's network with the weights of a file, as far as names agree.

    :param names: a name map (`read_rules`), a file or the name of a shipped one, or 'timm' for a
        timm model that becomes the backbone
    :returns: the manifest as written, and what was matched

    Raises
    ------
    TrainingError
        If file or rules cannot be read, or nothing in the file fits.
    BundleError
        If the network gives no finite maps.

    """
    weights = read_weights(file)
    bare = replace(recipe, network=replace(recipe.network, pretrained=None, initial=None))
    network, manifest = make_network(bare)
    if names == TIMM:
        weights = with_backbone_names(network, weights)
    elif names is not None:
        weights = renamed(weights, read_rules(find_map(names)), network)
    matched = load_matching(network, weights)
    if not matched.loaded:
        msg = (
            f'nothing in {file} fits this network: it holds {", ".join(list(weights)[:3])}, ...; '
            f'the network has {", ".join(matched.absent[:3])}, ...; rename with --map'
        )
        raise TrainingError(msg)
    provenance: dict[str, Any] = {
        'imported': {
            'file': file.name,
            'sha256': file_digest(file),
            'loaded': len(matched.loaded),
            'absent': list(matched.absent),
            'other_shape': list(matched.other_shape),
        },
    }
    manifest = replace(manifest, provenance=provenance)
    return save_bundle(network, manifest, directory, _check_image(recipe.network.size)), matched


def _check_image(size: tuple[int, int]) -> Any:
    """Return a picture of soft blots: there is no data to take a frame from."""
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (size[1], size[0]), interpolation=cv2.INTER_CUBIC)
