# SPDX-License-Identifier: Apache-2.0
"""On a GPU a run learns what it learns on the CPU, in every precision and compiled."""

from __future__ import annotations

from dataclasses import replace
import math

import pytest

torch = pytest.importorskip('torch')
import lightning as L  # noqa: E402
from mtl_perception.bundle import verify_bundle  # noqa: E402
from mtl_perception.training import finish as ending  # noqa: E402
from mtl_perception.training.recipe import (  # noqa: E402
    AugmentationRecipe,
    DataRecipe,
    LoopRecipe,
    LossRecipe,
    NetworkRecipe,
    OptimiserRecipe,
    Recipe,
)
from mtl_perception.training.run import fit, train  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU'),
]

RECIPE = Recipe(
    name='gpu',
    tasks='rooms',
    network=NetworkRecipe('mti_net', 'mobilenetv2_100', (64, 96), 80.0, neck=(8, 8, 8, 8)),
    data=DataRecipe('nowhere', workers=1),
    optimiser=OptimiserRecipe(steps=4, batch_size=4, learning_rate=1e-3, average_decay=0.5),
    augmentation=AugmentationRecipe(flip=0.5),
    loss=LossRecipe(kinds={'depth': 'log_l1'}),
    loop=LoopRecipe(
        checkpoint_every_steps=2, validate_every_steps=2, threads=2, picture_rows=1
    ),
)


class Watch(L.Callback):
    """Notes each step's loss, and how the backbone's first convolution gets its images."""

    def __init__(self):
        self.losses = []
        self.layouts = []

    def on_train_start(self, trainer, module):
        first = next(
            part for part in module.network.modules() if isinstance(part, torch.nn.Conv2d)
        )
        if not module.recipe.loop.compile:
            first.register_forward_pre_hook(lambda _, given: self.layouts.append(
                (given[0].device.type,
                 given[0].is_contiguous(memory_format=torch.channels_last))
            ))

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        self.losses.append(float(outputs['loss']))


@pytest.fixture(scope='module')
def on_cpu(box_frames, tmp_path_factory):
    """Return the losses of the same steps on the CPU."""
    watch = Watch()
    fit(RECIPE, box_frames, box_frames[:2], tmp_path_factory.mktemp('cpu'), callbacks=(watch,))
    return watch.losses


@pytest.mark.parametrize(
    ('precision', 'compiled', 'tolerance'),
    [('float32', False, 0.01), ('bfloat16', False, 0.05), ('float16', False, 0.02),
     ('bfloat16', True, 0.05)],
)
def test_the_losses_are_those_of_the_cpu(
    box_frames, tmp_path, on_cpu, precision, compiled, tolerance
):
    recipe = replace(RECIPE, loop=replace(RECIPE.loop, precision=precision, compile=compiled))
    watch = Watch()
    fitted = fit(recipe, box_frames, box_frames[:2], tmp_path, device='cuda', callbacks=(watch,))
    # In half precision the first steps only find the scale of the losses.
    same = 1 if precision == 'float16' else 4
    assert watch.losses[:same] == pytest.approx(on_cpu[:same], rel=tolerance)
    assert len(watch.losses) == 4
    assert all(map(math.isfinite, watch.losses))
    assert set(watch.layouts) <= {('cuda', True)}
    assert bool(watch.layouts) != compiled
    assert fitted.device.type == 'cuda'
    assert (tmp_path / 'pictures' / 'step_0000004.png').is_file()


def test_the_last_scores_are_computed_there_and_the_bundle_works_here(
    box_frames, tmp_path, monkeypatch
):
    scored, maps_of = set(), ending.finished_maps

    def watched(graph, manifest, batch):
        maps = maps_of(graph, manifest, batch)
        scored.update(each.device.type for each in maps.values())
        return maps

    monkeypatch.setattr(ending, 'finished_maps', watched)
    manifest = train(RECIPE, box_frames, box_frames[:3], tmp_path, device='cuda')
    assert scored == {'cuda'}
    assert set(verify_bundle(tmp_path / 'bundle')) == {task.name for task in manifest.tasks}
