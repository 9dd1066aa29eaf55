# SPDX-License-Identifier: Apache-2.0
"""The one door: sizes, batch independence, baselines, errors."""

from __future__ import annotations

from mtl_perception.networks import (
    build_network,
    demt,
    densemtl,
    mtl_segformer,
    NetworkError,
    pad_net,
    SYSTEMS,
)
from mtl_perception.tasks import Task
import pytest
import torch
from torch import nn

DEPTH = Task('depth', 'depth')
MULTI_TASK_SYSTEMS = [name for name in SYSTEMS if name != 'single_task']
CHANNELS = {'semantic': 5, 'depth': 1, 'normals': 3, 'edges': 1}


def test_baseline_sizes_equal_the_released_models(classes):
    """Compare with counts of the released code (MTI-Net repository, HRNet-18)."""
    for system, tasks, expected in [
        ('single_task', [classes(40)], 3.945), ('multi_task', [classes(40), DEPTH], 4.019),
    ]:
        network = build_network(system, tasks, backbone='hrnet_w18_small_v2', mode='published')
        count = sum(parameter.numel() for parameter in network.parameters()) / 1e6
        assert count == pytest.approx(expected, rel=5e-3)


@pytest.fixture(autouse=True)
def _narrow(monkeypatch):
    """Make the wide systems narrow: sizes and batches do not depend on width."""
    monkeypatch.setattr(pad_net, 'WIDTH', 32)
    monkeypatch.setattr(demt, 'WIDTH', 64)
    monkeypatch.setattr(mtl_segformer, 'WIDTH', 32)
    for name in ('WIDTHS', 'NECK_WITH_STEM'):
        monkeypatch.setattr(densemtl, name, (8, 12, 12, 16, 16))


@pytest.mark.parametrize('system', MULTI_TASK_SYSTEMS)
@pytest.mark.parametrize('size', [(64, 64), (75, 101)])
def test_any_image_size_gives_maps_in_task_order(system, size, four_tasks):
    network = build_network(system, four_tasks, backbone='mobilenetv2_100').eval()
    with torch.no_grad():
        maps = network(torch.randn(1, 3, *size)).maps
    # DenseMTL's own decoder ends at the size of the image, all others at a quarter
    expected = size if system == 'densemtl' else (-(-size[0] // 4), -(-size[1] // 4))
    assert list(maps) == list(CHANNELS)
    for name, channels in CHANNELS.items():
        assert maps[name].shape == (1, channels, *expected)


@pytest.mark.parametrize(('system', 'mode'), [
    (system, mode) for system in MULTI_TASK_SYSTEMS for mode in SYSTEMS[system].modes
])
def test_batch_mates_change_nothing(system, mode, four_tasks, randomise):
    network = build_network(system, four_tasks, backbone='mobilenetv2_100', mode=mode)
    randomise(network.eval())
    image = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        together = network(image).maps
        for index in range(3):
            alone = network(image[index : index + 1]).maps
            for name in together:
                scale = max(1, float(together[name].abs().max()))
                torch.testing.assert_close(together[name][index], alone[name][0],
                                           rtol=0, atol=1e-4 * scale)


@pytest.mark.parametrize('system', MULTI_TASK_SYSTEMS)
@pytest.mark.parametrize('count', [1, 6])
def test_one_to_six_tasks_with_several_of_a_kind(system, count, classes):
    tasks = [Task('depth', 'depth'), classes(3, 'crop_rows'), classes(2, 'gaps'),
             Task('normals', 'normals'), Task('far_depth', 'depth'),
             Task('edges', 'edges', edge_meaning='contours')][:count]
    network = build_network(system, tasks, backbone='mobilenetv2_100').train()
    outputs = network(torch.randn(2, 3, 64, 64))
    assert [raw.shape[1] for raw in outputs.maps.values()] == [1, 3, 2, 3, 1, 1][:count]
    total = sum(raw.square().mean() for raw in outputs.maps.values())
    for scale in outputs.auxiliary:
        total = total + sum(raw.square().mean() for raw in scale.values())
    total.backward()
    without = [name for name, p in network.named_parameters() if p.grad is None]
    assert not without


@pytest.mark.parametrize(('backbone', 'stride'), [('resnet18', 8), ('resnet101', 16)])
def test_published_baselines_on_resnets_are_dilated(backbone, stride, four_tasks, randomise):
    network = build_network('multi_task', four_tasks[:2], backbone=backbone, mode='published')
    randomise(network.eval())
    image = torch.randn(1, 3, 75, 101)
    with torch.no_grad():
        before = network(image).maps
        assert before['depth'].shape == (1, 1, -(-75 // stride), -(-101 // stride))
        for parameter in network.heads['depth'].pyramid.dilated[2].parameters():
            parameter.zero_()
        after = network(image).maps
    assert torch.equal(before['semantic'], after['semantic'])
    assert (before['depth'] - after['depth']).abs().max() > 1e-5


@pytest.mark.slow
@pytest.mark.parametrize('system', ['single_task', 'multi_task'])
def test_baselines_overfit_four_frames(system, four_tasks, overfit):
    tasks = four_tasks[:1] if system == 'single_task' else four_tasks
    scores = overfit(build_network(system, tasks, backbone='mobilenetv2_100'), steps=120)
    assert scores['miou'] > 0.95, scores
    assert scores.get('abs_rel', 0) < 0.05, scores
    assert scores.get('degrees', 0) < 10, scores


def test_tasks_of_the_baseline_do_not_see_each_other(four_tasks, randomise):
    network = randomise(build_network('multi_task', four_tasks, backbone='mobilenetv2_100').eval())
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = network(image).maps
        for parameter in network.heads['depth'].parameters():
            parameter.zero_()
        after = network(image).maps
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {'depth'}


def test_untrained_maps_start_where_losses_are_tame(four_tasks):
    network = build_network('mti_net', four_tasks, backbone='mobilenetv2_100').eval()
    with torch.no_grad():
        maps = network(torch.randn(1, 3, 64, 64)).maps
    assert maps['semantic'].softmax(1).max() < 0.5
    assert 1 < maps['depth'].exp().mean() < 6
    assert (maps['normals'][:, 2] < -0.5).all()


@pytest.mark.parametrize(('system', 'mode', 'momentum'), [
    ('single_task', 'published', 0.01), ('multi_task', 'published', 0.01),
    ('pad_net', 'published', 0.01), ('mti_net', 'published', 0.01), ('demt', 'published', 0.1),
    ('mti_net', 'corrected', 0.01), ('demt', 'corrected', 0.1),
])
def test_statistics_of_hrnet_move_as_in_the_released_code(system, mode, momentum):
    """MTI-Net's repository has 0.01 in its HRNet, with and without weights; DeMT's has 0.1."""
    with torch.device('meta'):
        network = build_network(system, [DEPTH], backbone='hrnet_w18_small_v2', mode=mode)
    norms = [part for part in network.encoder.modules() if isinstance(part, nn.BatchNorm2d)]
    assert len(norms) > 50
    assert {norm.momentum for norm in norms} == {momentum}


def test_neck_defaults_to_none_on_the_narrow_hrnet_and_in_published_mode(four_tasks):
    def widths(backbone, **options):
        return build_network('mti_net', four_tasks, backbone=backbone, **options).encoder

    assert widths('mobilenetv2_100').neck_widths == (24, 32, 48, 64)
    assert widths('mobilenetv2_100', neck=()).channels == (24, 32, 96, 320)
    assert widths('mobilenetv2_100', neck=(8, 8, 8, 8)).channels == (8, 8, 8, 8)
    assert widths('hrnet_w18_small_v2').channels == (18, 36, 72, 144)
    assert widths('hrnet_w48').neck_widths == (24, 32, 48, 64)
    assert widths('hrnet_w48', mode='published').channels == (48, 96, 192, 384)
    assert widths('mobilenetv2_100', mode='published').neck_widths == ()


@pytest.mark.parametrize(('change', 'message'), [
    ({'system': 'mtinet'}, "unknown system 'mtinet'.*mti_net"),
    ({'backbone': 'vgg'}, "unknown backbone 'vgg'.*mobilenetv2_100"),
    ({'mode': 'fast'}, "unknown mode 'fast'.*corrected, published"),
    ({'tasks': []}, 'at least one task'),
    ({'tasks': [DEPTH, DEPTH]}, "'depth' is given twice"),
    ({'tasks': [Task('values', 'depth')]}, "'values' cannot name"),
    ({'neck': (24, 32)}, 'neck .24, 32. does not fit'),
    ({'neck': (24, 32, 48, 0)}, 'does not fit'),
    ({'system': 'single_task', 'auxiliary': [Task('normals', 'normals')]}, 'exactly one task'),
    ({'pretrained': '/nowhere.safetensors'}, 'cannot read backbone weights /nowhere'),
])
def test_bad_requests_name_the_value_and_the_remedy(change, message):
    request = {'system': 'mti_net', 'tasks': [DEPTH], 'backbone': 'mobilenetv2_100', **change}
    with pytest.raises(NetworkError, match=message):
        build_network(request.pop('system'), request.pop('tasks'), **request)
