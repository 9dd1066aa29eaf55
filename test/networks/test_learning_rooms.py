# SPDX-License-Identifier: Apache-2.0
"""Every system, at its real width, learns four rendered rooms by heart."""

from __future__ import annotations

from mtl_perception.losses.multi_task import MultiTaskLoss
from mtl_perception.networks import build_network, SYSTEMS
from mtl_perception.simulation.rooms import rooms_frames
from mtl_perception.tasks import standard_tasks
import numpy as np
import pytest
import torch
from torch.nn import functional

HEIGHT, WIDTH, STEPS = 96, 128, 300
# DenseMTL's decoders have no norms: a rate of 3e-3 throws their normals off, and they stay there.
RATES = {'densemtl': 1e-3}
WEIGHTS = {'semantic': 1.0, 'depth': 1.0, 'normals': 5.0, 'edges': 1.0}


@pytest.fixture(scope='module')
def rooms():
    """Return four rendered frames (4, 3, H, W) and their targets."""
    pytest.importorskip('embreex')
    samples = list(rooms_frames(5, 4, size=(WIDTH, HEIGHT), frames_per_world=4))
    image = np.stack([sample.image for sample in samples]).astype(np.float32) / 255
    targets = {}
    for name in WEIGHTS:
        stacked = np.stack([sample.targets[name] for sample in samples])
        tensor = torch.from_numpy(stacked)
        targets[name] = tensor.movedim(-1, 1) if name == 'normals' else tensor
    return torch.from_numpy((image - 0.45) / 0.225).movedim(-1, 1), targets


def scores(network, image, targets):
    """
    Return mIoU over classes of at least 20 pixels, AbsRel and the mean angle in degrees.

    Pixels near label borders do not count, and of a class of which fewer than 20 pixels are left
    in four frames, two stray pixels would decide: they weigh as much as a whole wall.
    """
    network.eval()
    with torch.no_grad():
        maps = {name: functional.interpolate(raw, (HEIGHT, WIDTH), mode='bilinear')
                for name, raw in network(image).maps.items()}
    labels = targets['semantic'].long()
    borders = torch.zeros(labels.shape)
    borders[:, :, 1:] += labels[:, :, 1:] != labels[:, :, :-1]
    borders[:, 1:] += labels[:, 1:] != labels[:, :-1]
    near = functional.max_pool2d(borders[:, None], 9, 1, 4)[:, 0] > 0
    inside = ~near & (labels != 255)
    found, truth = maps['semantic'].argmax(1)[inside], labels[inside]
    overlaps = [float(((found == c) & (truth == c)).sum() / ((found == c) | (truth == c)).sum())
                for c in truth.unique() if (truth == c).sum() >= 20]
    result = {'miou': float(np.mean(overlaps))}
    if 'depth' in maps:
        depth, true_depth = maps['depth'][:, 0].exp(), targets['depth']
        ratio = (depth - true_depth).abs() / true_depth
        result['abs_rel'] = float(ratio[true_depth.isfinite()].mean())
        normals = targets['normals']
        cosine = functional.cosine_similarity(maps['normals'], normals)
        angle = cosine.clamp(-1, 1).arccos().rad2deg()
        result['degrees'] = float(angle[normals.isfinite().all(1)].mean())
    return result


@pytest.mark.matrix
@pytest.mark.timeout(7200)
@pytest.mark.parametrize('system', SYSTEMS)
def test_four_rooms_are_learned_by_heart(system, rooms):
    image, targets = rooms
    tasks = standard_tasks('rooms')[: 1 if system == 'single_task' else 4]
    network = build_network(system, tasks, backbone='mobilenetv2_100').train()
    loss = MultiTaskLoss(tasks, losses={'depth': 'log_l1'} if len(tasks) > 1 else None,
                         weights={task.name: WEIGHTS[task.name] for task in tasks})
    rate = RATES.get(system, 3e-3)
    optimiser = torch.optim.AdamW(network.parameters(), rate, weight_decay=0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=STEPS)
    for step in range(STEPS):
        optimiser.zero_grad()
        total = loss(network(image), targets).total
        total.backward()
        if step % 50 == 0:
            print(f'{system} step {step}: loss {float(total):.3f}', flush=True)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimiser.step()
        schedule.step()
    reached = scores(network, image, targets)
    print(system, reached)
    assert reached['miou'] > 0.95, reached
    assert reached.get('abs_rel', 0) < 0.05, reached
    assert reached.get('degrees', 0) < 10, reached
