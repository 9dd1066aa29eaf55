# SPDX-License-Identifier: Apache-2.0
"""Frames become tensors with the right meaning, in an order that a resumed run repeats."""

from __future__ import annotations

from dataclasses import replace
import math

from mtl_perception.datasets.errors import DatasetError
from mtl_perception.training.data import collate, TrainingFrames, ValidationFrames
from mtl_perception.training.errors import TrainingError
from mtl_perception.training.loading import (
    Shard,
    StepSampler,
    training_loader,
    validation_loader,
)
from mtl_perception.training.reading import LONGEST_GAP
from mtl_perception.training.recipe import (
    AugmentationRecipe,
    DataRecipe,
    NetworkRecipe,
    OptimiserRecipe,
    Recipe,
)
import numpy as np
import pytest
import torch

RECIPE = Recipe(
    name='test',
    tasks='rooms',
    network=NetworkRecipe('mti_net', 'mobilenetv2_100', (72, 96), 40.0),
    data=DataRecipe('nowhere', workers=0),
    optimiser=OptimiserRecipe(steps=10, batch_size=2, learning_rate=1e-3),
    augmentation=AugmentationRecipe(flip=0.0),
)
TASKS = RECIPE.task_list()


def test_training_targets_are_those_of_the_reference_focal_length(box_frames):
    image, scale, targets, name, _ = TrainingFrames(box_frames, TASKS, RECIPE)[(0, 1)]
    frame = box_frames[1]
    s = math.sqrt(80.0 * 80.0 * 1.02) / 40.0
    assert scale == pytest.approx(s)
    assert name == 'box_1'
    assert torch.equal(image, torch.tensor(frame.image))
    np.testing.assert_allclose(targets['depth'], frame.targets['depth'] / s, rtol=1e-6)
    n = frame.targets['normals'] * (1, 1, s)
    n /= np.linalg.norm(n, axis=-1, keepdims=True)
    np.testing.assert_allclose(targets['normals'].permute(1, 2, 0), n, atol=1e-6)


def test_validation_targets_are_metric(box_frames):
    _, scale, targets, _, _ = ValidationFrames(box_frames, TASKS, RECIPE.network)[1]
    assert scale == pytest.approx(math.sqrt(80.0 * 80.0 * 1.02) / 40.0)
    np.testing.assert_array_equal(targets['depth'], box_frames[1].targets['depth'])
    np.testing.assert_allclose(
        targets['normals'].permute(1, 2, 0), box_frames[1].targets['normals'], atol=1e-6
    )


def test_early_draws_are_smaller(box_frames):
    augmentation = AugmentationRecipe(early_size=(36, 48), early_share=0.5)
    frames = TrainingFrames(box_frames, TASKS, replace(RECIPE, augmentation=augmentation))
    assert frames[(9, 0)][0].shape == (36, 48, 3)
    assert frames[(10, 0)][0].shape == (72, 96, 3)
    # Half the focal length in pixels: the surfaces look, and are learned as, twice as far.
    assert frames[(9, 0)][1] == pytest.approx(frames[(10, 0)][1] / 2)


def test_a_missing_task_is_filled_as_invalid(box_frames):
    poor = replace(box_frames[0], targets={'depth': box_frames[0].targets['depth']})
    frames = ValidationFrames([poor, box_frames[1]], TASKS, RECIPE.network)
    batch = collate([frames[0], frames[1]])
    assert (batch.targets['semantic'][0] == 255).all()
    assert (batch.targets['edges'][0] == 255).all()
    assert batch.targets['normals'][0].isnan().all()
    assert torch.equal(batch.targets['depth'][0], torch.tensor(poor.targets['depth']))
    assert (batch.targets['semantic'][1] != 255).all()
    assert 'semantic' not in collate([frames[0]]).targets


def test_a_label_out_of_range_is_named(box_frames):
    labels = box_frames[0].targets['semantic'].copy()
    labels[3, 4] = 77
    wrong = replace(box_frames[0], targets={'semantic': labels})
    with pytest.raises(TrainingError, match=r"box_0: target 'semantic' .* label 77.*18 classes"):
        ValidationFrames([wrong], TASKS, RECIPE.network)[0]


def test_every_pass_takes_each_frame_once_and_its_own_order():
    sampler = StepSampler(frames=7, batch_size=3, steps=14, seed=4)
    keys = [key for batch in sampler for key in batch]
    assert [draw for draw, _ in keys] == list(range(42))
    passes = [[index for _, index in keys[start : start + 7]] for start in range(0, 42, 7)]
    assert all(sorted(each) == list(range(7)) for each in passes)
    assert len({tuple(each) for each in passes}) > 1


def test_a_resumed_sampler_draws_the_rest():
    whole = list(StepSampler(frames=5, batch_size=2, steps=12, seed=1))
    assert list(StepSampler(frames=5, batch_size=2, steps=12, seed=1, first_step=7)) == whole[7:]


def test_no_frames_is_an_error():
    with pytest.raises(TrainingError, match='no frames'):
        StepSampler(frames=0, batch_size=1, steps=1, seed=0)


def test_workers_give_the_same_batches_as_none(box_frames):
    augmentation = AugmentationRecipe(flip=0.5, zoom=(0.8, 1.5), photometric=1.0)
    frames = TrainingFrames(box_frames, TASKS, replace(RECIPE, augmentation=augmentation))
    sampler = StepSampler(len(box_frames), 2, 3, seed=0)
    ours, theirs = (
        list(training_loader(frames, sampler, workers, pin=False)) for workers in (0, 2)
    )
    for a, b in zip(ours, theirs):
        assert a.names == b.names
        assert torch.equal(a.image, b.image)
        for name, target in a.targets.items():
            torch.testing.assert_close(target, b.targets[name], rtol=0, atol=0, equal_nan=True)


def test_a_limited_validation_is_spread_over_all(box_frames):
    frames = ValidationFrames(box_frames, TASKS, RECIPE.network)
    names = [name for batch in validation_loader(frames, 2, 3) for name in batch.names]
    assert names == ['box_0', 'box_4', 'box_7']


class Torn:
    """A dataset some of whose files are damaged."""

    tasks = TASKS

    def __init__(self, frames, damaged):
        self._frames, self._damaged = frames, damaged

    def __len__(self):
        return len(self._frames)

    def __getitem__(self, index):
        if index in self._damaged:
            raise DatasetError(f'images/{index}.jpg: no image')
        return self._frames[index]


def test_a_damaged_frame_stops_or_is_passed_over_as_the_recipe_says(box_frames):
    torn = Torn(box_frames, (2, 3))
    with pytest.raises(DatasetError, match=r'images/2\.jpg'):
        TrainingFrames(torn, TASKS, RECIPE)[(0, 2)]
    skipping = replace(RECIPE, data=DataRecipe('nowhere', workers=0, corrupt='skip'))
    frames = TrainingFrames(torn, TASKS, skipping)
    batch = collate([frames[(0, 1)], frames[(1, 2)]])
    assert batch.names == ['box_1', 'box_4']
    assert batch.damaged == ('images/2.jpg: no image', 'images/3.jpg: no image')
    assert frames[(5, 4)][3] == 'box_4'
    unvaried = frames.unaugmented()
    batch = collate([unvaried[3], unvaried[5]])
    assert batch.damaged == ('images/3.jpg: no image',)
    assert (batch.targets['semantic'][0] == 255).all()
    assert batch.targets['depth'][0].isnan().all()
    assert not batch.image[0].any()


def test_a_folder_of_damaged_frames_is_not_skipped_for_ever(box_frames):
    many = Torn(list(box_frames) * 4, range(1, 30))
    skipping = replace(RECIPE, data=DataRecipe('nowhere', workers=0, corrupt='skip'))
    frames = TrainingFrames(many, TASKS, skipping)
    assert frames[(0, 30)][3] == 'box_6'
    with pytest.raises(TrainingError, match=rf'{LONGEST_GAP} frames in a row.*images/20\.jpg'):
        frames[(0, 1)]


def test_processes_share_every_batch():
    whole = list(StepSampler(frames=7, batch_size=4, steps=5, seed=3))
    halves = [list(StepSampler(7, 4, 5, 3, shard=Shard(index, 2))) for index in range(2)]
    assert [left + right for left, right in zip(*halves)] == whole
    with pytest.raises(TrainingError, match=r'batch_size is 4, which 3 processes'):
        StepSampler(7, 4, 5, 3, shard=Shard(0, 3))


def test_processes_share_the_validation_frames_without_doubles(box_frames):
    frames = ValidationFrames(box_frames[:5], TASKS, RECIPE.network)
    names = [
        [name for batch in validation_loader(frames, 2, shard=Shard(index, 2))
         for name in batch.names]
        for index in range(2)
    ]
    assert names == [['box_0', 'box_2', 'box_4'], ['box_1', 'box_3']]
