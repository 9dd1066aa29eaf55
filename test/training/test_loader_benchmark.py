# SPDX-License-Identifier: Apache-2.0
"""`benchmark loader` tells a loader that keeps up from one that does not."""

from __future__ import annotations

import json
import time

import pytest

torch = pytest.importorskip('torch')
from mtl_perception.cli import main  # noqa: E402
from mtl_perception.datasets.dataset import open_dataset  # noqa: E402
from mtl_perception.datasets.rooms_command import main as render  # noqa: E402
from mtl_perception.training.loader_benchmark import LoaderTimes, write_nyud_like  # noqa: E402
import numpy as np  # noqa: E402
import yaml  # noqa: E402


@pytest.fixture(scope='module')
def rooms(tmp_path_factory):
    """Return a folder with four rendered frames to train on."""
    root = tmp_path_factory.mktemp('rooms')
    size = ['--frames', '4', '--frames-per-world', '2', '--size', '64x48']
    assert render([*size, '--seed', '3', '--out', str(root / 'train')]) == 0
    return root


def test_the_ratio_is_of_speeds():
    times = LoaderTimes('rooms', 4, (80.0, 100.0, 90.0), (100.0, 110.0, 90.0))
    assert times.to_json() == {
        'data': 'rooms', 'frames': 4, 'steps': 3, 'speed_ratio': pytest.approx(0.9),
        'memory_ms': {'median': 90.0}, 'loader_ms': {'median': 100.0},
    }


def test_a_slow_loader_is_seen_and_nyud_is_loaded_too(rooms, tmp_path, monkeypatch, capsys):
    from mtl_perception.training.data import TrainingFrames

    recipe = {
        'name': 'timed', 'tasks': 'rooms',
        'network': {
            'system': 'multi_task', 'backbone': 'mobilenetv2_100', 'size': [48, 64],
            'reference_focal_px': 60.0, 'neck': [8, 8, 8, 8],
        },
        'data': {'root': 'nowhere', 'workers': 1},
        'optimiser': {'steps': 9, 'batch_size': 2, 'learning_rate': 1e-3},
        'loop': {'threads': 1},
    }
    (tmp_path / 'recipe.yaml').write_text(yaml.safe_dump(recipe))
    read = TrainingFrames.__getitem__

    def slowly(self, key):
        time.sleep(0.25)
        return read(self, key)

    # The worker is forked: it reads as slowly.
    monkeypatch.setattr(TrainingFrames, '__getitem__', slowly)
    arguments = [
        'benchmark', 'loader', '--config', str(tmp_path / 'recipe.yaml'), '--data', str(rooms),
        '--turns', '1', '--steps', '2', '--json', str(tmp_path / 'loader.json'),
    ]  # fmt: skip
    assert main(arguments) == 0
    document = json.loads((tmp_path / 'loader.json').read_text())
    assert [row['data'] for row in document['rows']] == ['rooms', 'nyud']
    for row in document['rows']:
        assert row['frames'] == 4
        # A batch takes half a second to make, however fast the network is.
        assert row['loader_ms']['median'] > 450
        assert row['speed_ratio'] < 0.8
    assert 'nyud: ' in capsys.readouterr().out


def test_frames_written_as_nyud_are_the_same_frames(rooms, tmp_path):
    frames = open_dataset({'kind': 'rooms', 'path': str(rooms / 'train')}, 'all')
    write_nyud_like(frames, 3, tmp_path / 'nyud')
    found = open_dataset(f'nyud:{tmp_path}/nyud', 'train')
    assert len(found) == 3
    here, there = frames[1].targets, found[1].targets
    # 48x64 becomes 480x640: every tenth pixel from the fifth.
    for name in ('depth', 'normals'):
        np.testing.assert_allclose(there[name][5::10, 5::10], here[name], atol=2e-3)
    np.testing.assert_array_equal(there['semantic'][5::10, 5::10], here['semantic'])
    np.testing.assert_array_equal(there['edges'][5::10, 5::10], here['edges'] == 1)
