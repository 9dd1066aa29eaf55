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
from mtl_perception.training.recipe import Recipe
from mtl_perception.training.run import make_network
import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file
import torch
from torch import nn, Tensor
import yaml

# The names of a timm model, as `create_model(...).state_dict()` has them.
TIMM = 'timm'
# Where training scripts put the weights among their other state.
_WRAPPERS = ('state_dict', 'model_state_dict', 'model', 'net', 'weights')
_PARALLEL = 'module.'
_BACKBONE = 'encoder.backbone.net.'

Rules = tuple[tuple[re.Pattern[str], str | None], ...]


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


def read_rules(path: Path) -> Rules:
    r"""
    Return the renaming rules of a YAML file: a mapping of regular expressions to new names.

    The first expression that fits a whole name renames it; its groups are \1, \2, ... in the
    new name; null leaves the tensor out. Names that no rule fits stay.

    Raises
    ------
    TrainingError
        If the file cannot be read, is no such mapping, or an expression is wrong.

    """
    try:
        values = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        msg = f'name map {path} cannot be read: {" ".join(str(error).split())}'
        raise TrainingError(msg) from error
    if not isinstance(values, Mapping):
        msg = f'name map {path} should be a mapping of regular expressions to new names or null'
        raise TrainingError(msg)
    rules = []
    for pattern, name in values.items():
        if name is not None and not isinstance(name, str):
            msg = f'name map {path}: {pattern!r} becomes {name!r}; write a name or null'
            raise TrainingError(msg)
        try:
            rules.append((re.compile(str(pattern)), name))
        except re.error as error:
            msg = f'name map {path}: {pattern!r} is no regular expression: {error}'
            raise TrainingError(msg) from error
    return tuple(rules)


def renamed(weights: Mapping[str, Tensor], rules: Rules) -> dict[str, Tensor]:
    """
    Return the weights under their new names.

    Raises
    ------
    TrainingError
        If two tensors get one name, or a new name has a group that its expression lacks.

    """
    result: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    for name, tensor in weights.items():
        new: str | None = name
        for pattern, replacement in rules:
            if found := pattern.fullmatch(name):
                try:
                    new = None if replacement is None else found.expand(replacement)
                except (re.error, IndexError) as error:
                    msg = f'name map: {replacement!r} for {pattern.pattern!r}: {error}'
                    raise TrainingError(msg) from error
                break
        if new is None:
            continue
        if new in result:
            msg = f'name map: {origin[new]!r} and {name!r} both become {new!r}; keep one (null)'
            raise TrainingError(msg)
        result[new], origin[new] = tensor, name
    return result


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

    :param names: a YAML file of renaming rules (`read_rules`), or 'timm' for a timm model that
        becomes the backbone
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
        weights = renamed(weights, read_rules(Path(names)))
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
