# SPDX-License-Identifier: Apache-2.0
"""
Every recipe of the package: three steps, kill -9, resume, bundle, the same maps in ONNX Runtime.

`make matrix` runs it. Networks and trees are small; what a recipe learns, and how, is its own.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from mtl_perception.datasets import vkitti2
import numpy as np
import pytest
import yaml

pytest.importorskip('torch')

_spec = importlib.util.spec_from_file_location(
    'full_cycle', Path(__file__).with_name('test_full_cycle.py')
)
cycles = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cycles)
processes, short_tables = cycles.processes, cycles.short_tables  # fixtures

RECIPES = sorted((Path(__file__).parents[2] / 'config' / 'train').glob('*.yaml'))


def write_frames(root, part, names):
    """Write the tree that a recipe's section `data` or `target` reads, its splits so named."""
    kind, options = part['kind'], part.get('options', {})
    root.mkdir()
    if kind == 'rosbag':
        for split, count in zip(names, (6, 3)):
            cycles.writer('rosbag').write_bag(root / split, count)
    elif kind == 'rooms':
        cycles.rooms(root, names)
    elif kind == 'vkitti2':
        cycles.writer('vkitti2').write_tree(root, options.get('variations', vkitti2.VARIATIONS))
    elif kind == 'synthia':
        cycles.writer('synthia').write_tree(root, range(3), 'Depth/Depth', channels=3)
    elif kind == 'nyud':
        cycles.writer('nyud').write_tree(root, 'npy')
    elif kind == 'folder':
        write_street_frames(root)
    else:
        cycles.writer(kind).write_tree(root)
    part['root'] = str(root)


def write_street_frames(root):
    """Write frames of the 11 classes that config/camvid_tasks.yaml makes two tasks of."""
    write = cycles.writer('folder').write
    labels = np.append(np.arange(11), 255).astype(np.uint8).reshape(3, 4)
    for split, count in (('train', 2), ('val', 1)):
        for number in range(count):
            write(root / f'images/{split}/{number}.png', np.full((3, 4, 3), 90, np.uint8))
            write(root / f'labels/semantic/{split}/{number}.png', labels)


def shrunk(recipe):
    """
    Make a recipe of the package small in place; what it learns, and how, stays.

    Size (with what is measured in it), backbone, weights to start from and steps change, and
    how often the loop saves.
    """
    network, optimiser, loop = recipe['network'], recipe['optimiser'], recipe.get('loop', {})
    smaller = 96 / network['size'][1]
    network.update(size=[64, 96], backbone='mobilenetv2_100')
    network['reference_focal_px'] *= smaller
    network.pop('pretrained', None)
    network.pop('initial', None)
    optimiser.update(steps=3)
    for name in {'warmup_steps', 'drop_at', 'epoch_steps'} & set(optimiser):
        optimiser[name] = 2
    if 'early_size' in recipe.get('augmentation', {}):
        recipe['augmentation']['early_size'] = [64, 64]
    recipe['loop'] = {**loop, **cycles.LOOP}
    recipe['data']['workers'] = 0


@pytest.mark.matrix
@pytest.mark.timeout(900)
@pytest.mark.usefixtures('short_tables')
@pytest.mark.parametrize('path', RECIPES, ids=lambda path: path.stem)
def test_every_recipe_has_its_cycle(path, processes, tmp_path, monkeypatch):
    # The folder recipe names a file of the repository.
    monkeypatch.chdir(path.parents[2])
    recipe = yaml.safe_load(path.read_text())
    data = recipe['data']
    data.setdefault('kind', 'rooms')
    write_frames(tmp_path / 'data', data, (data['train'], data['validation']))
    shrunk(recipe)
    if 'adaptation' in recipe:
        target = recipe['adaptation']['target']
        write_frames(tmp_path / 'target', target, (target['train'], target['validation']))
    manifest, checkpoint = cycles.cycle(recipe, processes, tmp_path)
    assert manifest.name == path.stem
    assert manifest.system == recipe['network']['system']
    assert [task.name for task in manifest.auxiliary] == [
        task['name'] for task in recipe.get('auxiliary', ())
    ]
    adapted = any('discriminator' in name for name in checkpoint['state_dict'])
    assert adapted == ('adaptation' in recipe)
