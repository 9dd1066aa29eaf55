# SPDX-License-Identifier: Apache-2.0
"""The example of CONTRIBUTING.md works as it stands there."""

from __future__ import annotations

from pathlib import Path
import re

from mtl_perception.networks import build, build_network, SYSTEMS
from mtl_perception.networks.backbones import BACKBONES
from mtl_perception.networks.describe import network_cost
import torch

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / 'CONTRIBUTING.md'
PAGE = ROOT / 'docs' / 'systems.md'


def test_the_example_is_a_system(four_tasks, monkeypatch):
    blocks = re.findall(r'```python\n(.*?)```', GUIDE.read_text(), re.DOTALL)
    source = next(block for block in blocks if 'class ColumnNet' in block)
    namespace: dict = {'__name__': 'column_net'}
    exec(compile(source, str(GUIDE), 'exec'), namespace)
    monkeypatch.setitem(build.SYSTEMS, 'column_net', namespace['ColumnNet'])
    network = build_network('column_net', four_tasks, backbone='mobilenetv2_100').eval()
    with torch.no_grad():
        maps = network(torch.randn(1, 3, 75, 101)).maps
    assert {name: tuple(raw.shape[1:]) for name, raw in maps.items()} == {
        'semantic': (5, 19, 26), 'depth': (1, 19, 26), 'normals': (3, 19, 26),
        'edges': (1, 19, 26),
    }
    cost = network_cost('column_net', four_tasks, backbone='mobilenetv2_100', size=(64, 64))
    assert cost.parameters == sum(weight.numel() for weight in network.parameters())


def test_the_page_names_every_system_and_backbone():
    text = PAGE.read_text()
    for name in (*SYSTEMS, *BACKBONES):
        assert f'`{name}`' in text, name
