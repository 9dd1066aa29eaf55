# SPDX-License-Identifier: Apache-2.0
"""Starting from a bundle: what fits is loaded, the rest is named."""

from __future__ import annotations

from pathlib import Path

from mtl_perception.bundle import load_network
from mtl_perception.manifest import default_bundle
from mtl_perception.networks.build import build_network
from mtl_perception.tasks import standard_tasks
from mtl_perception.training.dry_run import dry_run
from mtl_perception.training.errors import TrainingError
from mtl_perception.training.initial import initial_directory, load_matching, start_from_bundle
from mtl_perception.training.recipe import load_recipe
import pytest
import torch
from torch import nn

CONFIG = Path(__file__).parents[2] / 'config' / 'train'


def test_names_and_shapes_decide():
    """One tensor fits, one has another shape, one is only here, one only there."""
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1, bias=False))
    kept = network[1].weight.detach().clone()
    matched = load_matching(network, {
        '0.weight': torch.full((3, 2), 7.0), '1.weight': torch.zeros(5, 3), 'x': torch.zeros(1),
    })
    assert matched.loaded == ('0.weight',)
    assert matched.other_shape == ('1.weight',)
    assert matched.absent == ('0.bias',)
    assert matched.unused == ('x',)
    assert torch.equal(network[0].weight, torch.full((3, 2), 7.0))
    assert torch.equal(network[1].weight, kept)
    assert '1 tensors loaded; 1 not found (0.bias)' in str(matched)


def test_the_shipped_bundle_starts_a_network_of_fewer_tasks():
    """Everything up to the task heads carries over to depth, normals and edges alone."""
    source, manifest = load_network(default_bundle())
    tasks = standard_tasks('rooms')[1:]
    torch.manual_seed(0)
    network = build_network(
        manifest.system, tasks, backbone=manifest.backbone, neck=manifest.neck)
    matched = start_from_bundle(network, initial_directory('default'))
    state, given = network.state_dict(), source.state_dict()
    assert all(torch.equal(state[name], given[name]) for name in matched.loaded)
    backbone = {name for name in state if name.startswith('encoder.')}
    assert backbone <= set(matched.loaded)
    assert any('semantic' in name for name in matched.unused)


def test_a_bundle_of_something_else_is_refused():
    """Nothing fits a network with other names."""
    with pytest.raises(TrainingError, match=r'network\.initial: nothing in .* fits'):
        start_from_bundle(nn.Linear(2, 2), default_bundle())


def test_a_missing_bundle_is_named_before_training(tmp_path, monkeypatch):
    """The dry run of the default bundle's recipe says that what it goes on from is not there."""
    monkeypatch.chdir(tmp_path)
    _, missing = dry_run(load_recipe(CONFIG / 'rooms_small.yaml'), tmp_path)
    assert any(line.startswith('network.initial: ') and 'rooms_small_formats' in line
               for line in missing)
