# SPDX-License-Identifier: Apache-2.0
"""Parts and saliency on their way through augmentation, batches, means and pictures."""

from __future__ import annotations

from dataclasses import replace

from mtl_perception.manifest import Manifest
from mtl_perception.tasks import load_label_set, Task
from mtl_perception.training.data import Batch, collate, ValidationFrames
from mtl_perception.training.errors import TrainingError
from mtl_perception.training.geometry_augmentation import flipped, window
from mtl_perception.training.picture_grid import prediction_grid
from mtl_perception.training.recipe import NetworkRecipe
from mtl_perception.training.scoring import finished_maps, score, TrainingMean
from mtl_perception.values import Sample
import numpy as np
import pytest
import torch

PARTS = Task('parts', 'parts', label_set=load_label_set('pascal_parts7'))
SALIENCY = Task('saliency', 'saliency')
TASKS = (PARTS, SALIENCY)
NETWORK = NetworkRecipe('multi_task', 'mobilenetv2_100', (32, 48), 40.0)


def _sample() -> Sample:
    rng = np.random.default_rng(9)
    return Sample(
        image=rng.integers(0, 256, (32, 48, 3), dtype=np.uint8),
        targets={
            'parts': rng.integers(0, 7, (32, 48), dtype=np.uint8),
            'saliency': rng.integers(0, 2, (32, 48), dtype=np.uint8),
        },
        camera=None,
        name='frame',
        pose=None,
    )


def test_a_mirror_and_a_window_move_them_and_mark_what_lies_outside():
    sample = _sample()
    mirrored = flipped(sample, TASKS)
    moved = window(mirrored, TASKS, (64, 96), (-5, -3), (40, 60), (0, 0, 0))
    for name, target in sample.targets.items():
        for y, x in ((0, 0), (2, 30), (3, 5), (10, 20), (39, 59)):
            inside = y >= 3 and x >= 5
            # Twice the size: pixel (y, x) of the resized frame comes from (y // 2, x // 2).
            expected = target[(y - 3) // 2, 47 - (x - 5) // 2] if inside else 255
            assert moved.targets[name][y, x] == expected, (name, y, x)


def test_a_part_beyond_the_label_set_is_named():
    sample = _sample()
    sample.targets['parts'][4, 4] = 7
    with pytest.raises(TrainingError, match=r"frame: target 'parts' holds label 7"):
        ValidationFrames([sample], TASKS, NETWORK)[0]


class _Fixed(torch.nn.Module):
    def forward(self, image: torch.Tensor):
        from mtl_perception.networks.outputs import Outputs

        parts = torch.zeros(1, 7, 32, 48)
        parts[:, 3] = 1.0
        return Outputs({'parts': parts, 'saliency': torch.full((1, 1, 32, 48), 1.0986123)})


def _batch() -> Batch:
    return collate([ValidationFrames([_sample()], TASKS, NETWORK)[0]])


def test_finished_maps_are_labels_and_probability():
    manifest = Manifest(
        name='fixed', system='multi_task', backbone='mobilenetv2_100', tasks=TASKS,
        network_size=(32, 48), label_scale=0.5, reference_focal_px=40.0, depth_range_m=(0.2, 20.0),
    )  # fmt: skip
    from mtl_perception.graph import PerceptionGraph

    maps = finished_maps(PerceptionGraph(_Fixed(), manifest), manifest, _batch())
    assert maps['parts'].shape == (1, 32, 48)
    assert set(maps['parts'].flatten().tolist()) == {3}
    # Log odds ln 3 are a probability of 3/4, stored as a byte.
    assert float(maps['saliency'].mean()) == pytest.approx(191 / 255)
    picture = prediction_grid(_Fixed(), replace(manifest, label_scale=1.0), _batch())
    colours = {tuple(colour) for colour in picture.reshape(-1, 3).tolist()}
    assert PARTS.label_set is not None
    assert PARTS.label_set.colours[3] in colours
    assert (191, 191, 191) in colours


def test_the_training_mean_votes_for_parts_and_averages_saliency():
    batch = _batch()
    mean = TrainingMean(TASKS, (32, 48))
    mean.update(batch)
    maps = mean.predictor('pixel')(batch)
    np.testing.assert_array_equal(maps['parts'][0], batch.targets['parts'][0])
    np.testing.assert_array_equal(maps['saliency'][0], batch.targets['saliency'][0])
    scores = score(mean.predictor('pixel'), [batch], TASKS)
    assert scores['parts.miou'] == 1
    assert scores['saliency.max_f_pooled'] == pytest.approx(1)
