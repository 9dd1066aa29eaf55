# SPDX-License-Identifier: Apache-2.0
"""What does not look at the image scores as its definition says."""

from __future__ import annotations

from unittest import mock

from mtl_perception.manifest import Manifest
from mtl_perception.networks.outputs import Outputs
from mtl_perception.tasks import standard_tasks
from mtl_perception.training import picture_grid
from mtl_perception.training.data import Batch, collate, ValidationFrames
from mtl_perception.training.recipe import NetworkRecipe
from mtl_perception.training.scoring import describe, rounded, score, TrainingMean
import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

TASKS = standard_tasks('rooms')


@pytest.fixture(scope='module')
def batches(box_frames):
    network = NetworkRecipe('mti_net', 'mobilenetv2_100', (72, 96), 80.0)
    frames = ValidationFrames(box_frames, TASKS, network)
    return [collate([frames[index] for index in range(start, start + 4)]) for start in (0, 4)]


def _mean(batches, per):
    mean = TrainingMean(TASKS, (72, 96))
    for batch in batches:
        mean.update(batch)
    return mean.predictor(per)


@pytest.mark.parametrize(('per', 'axes'), [('pixel', 0), ('row', (0, 2)), ('frame', (0, 1, 2))])
def test_means_against_numpy(batches, box_frames, per, axes):
    maps = _mean(batches, per)(batches[0])
    stacked = {
        task.name: np.stack([frame.targets[task.name] for frame in box_frames]) for task in TASKS
    }
    depth = np.broadcast_to(stacked['depth'].astype(float).mean(axes, keepdims=True)[0], (72, 96))
    np.testing.assert_allclose(maps['depth'][1], depth, rtol=1e-6)
    edges = np.broadcast_to(stacked['edges'].mean(axes, keepdims=True)[0], (72, 96))
    np.testing.assert_allclose(maps['edges'][3], edges, rtol=1e-6)
    normals = stacked['normals'].astype(float).sum(axes, keepdims=True)[0]
    normals = np.broadcast_to(normals, (72, 96, 3))
    found = maps['normals'][0].permute(1, 2, 0).numpy()
    cosine = (found * normals).sum(-1) / np.linalg.norm(found, axis=-1)
    np.testing.assert_allclose(cosine, np.linalg.norm(normals, axis=-1), rtol=1e-6)
    hits = [stacked['semantic'] == label for label in range(18)]
    votes = np.stack([each.sum(axes, keepdims=True)[0] for each in hits])
    expected = np.broadcast_to(votes.argmax(0), (72, 96))
    np.testing.assert_array_equal(maps['semantic'][2], expected)


class Repeating(torch.nn.Module):
    """A network without weights."""

    def forward(self, image):
        return Outputs({task.name: image[:, :1].repeat(1, task.channels, 1, 1) for task in TASKS})


def test_maps_are_computed_on_the_device_of_their_batch():
    """A GPU is made up: torch compares devices as it does on one, and computes no values."""
    manifest = Manifest(
        name='x', system='multi_task', backbone='mobilenetv2_100', tasks=TASKS,
        network_size=(64, 96), reference_focal_px=60.0, depth_range_m=(0.2, 20.0),
    )  # fmt: skip
    with FakeTensorMode():
        images = torch.zeros((1, 64, 96, 3), dtype=torch.uint8)
        batch = Batch(images, torch.ones(1), {}, ['a']).to('cuda')
        shown = [TrainingMean(TASKS, (64, 96)).predictor('frame')(batch)]
        with mock.patch.object(
            picture_grid, 'comparison_grid', lambda maps, *_: shown.append(maps)
        ):
            picture_grid.prediction_grid(Repeating(), manifest, batch)
    for maps in shown:
        devices = {name: each.device.type for name, each in maps.items()}
        assert devices == dict.fromkeys((task.name for task in TASKS), 'cuda')


class Elsewhere:
    """A batch that is of no use before it is brought to a device."""

    def __init__(self, batch, brought):
        self._batch, self._brought = batch, brought

    def to(self, device):
        self._brought.append(device)
        return self._batch


def test_every_batch_is_brought_to_the_device(batches):
    brought = []
    given = [Elsewhere(batch, brought) for batch in batches]
    found = score(lambda batch: batch.targets, given, TASKS, device=torch.device('cpu'))
    assert found['semantic.miou'] == 1.0
    assert brought == [torch.device('cpu')] * 2


def test_the_truth_scores_perfectly_and_the_constant_as_computed(batches):
    perfect = score(lambda batch: batch.targets, batches, TASKS)
    assert perfect['semantic.miou'] == 1.0
    assert perfect['depth.abs_rel'] == 0.0
    assert perfect['normals.mean_deg'] == pytest.approx(0, abs=0.05)
    assert perfect['edges.f_best_tolerance'] == 1.0
    constant = score(_mean(batches, 'frame'), batches, TASKS)
    depth = np.concatenate([batch.targets['depth'].numpy() for batch in batches]).astype(float)
    assert constant['depth.rmse_m'] == pytest.approx(depth.std(), rel=1e-5)
    labels = np.concatenate([batch.targets['semantic'].numpy() for batch in batches])
    share = np.bincount(labels.ravel()).max() / labels.size
    assert constant['semantic.pixel_accuracy'] == pytest.approx(share)


def test_scores_become_json_and_words():
    scores = {'depth.abs_rel': 0.1234567, 'semantic.miou': float('nan')}
    assert rounded(scores) == {'depth.abs_rel': 0.12346, 'semantic.miou': None}
    assert describe(rounded(scores), TASKS) == 'depth abs_rel 0.1235'
