# SPDX-License-Identifier: Apache-2.0
"""A run that something outside stops says so in one line and keeps what it had saved."""

from __future__ import annotations

from dataclasses import replace
import errno
import json
import os

from mtl_perception.datasets.errors import DatasetError
from mtl_perception.datasets.label_map import make_label_map
from mtl_perception.tasks import LabelSet
from mtl_perception.training.damage import DamagedFrames
from mtl_perception.training.errors import TrainingError
from mtl_perception.training.failures import told_plainly
from mtl_perception.training.recipe import (
    DataRecipe,
    LoopRecipe,
    NetworkRecipe,
    OptimiserRecipe,
    Recipe,
)
from mtl_perception.training.run import fit, train
from mtl_perception.training.task_recipe import TaskRecipe
import numpy as np
import pytest
from rich.console import Console
import torch

RECIPE = Recipe(
    name='tiny',
    tasks=(TaskRecipe('depth', 'depth'),),
    network=NetworkRecipe('single_task', 'mobilenetv2_100', (48, 64), 60.0, neck=(8, 8, 8, 8)),
    data=DataRecipe('nowhere', workers=1),
    optimiser=OptimiserRecipe(steps=4, batch_size=2, learning_rate=1e-3),
    loop=LoopRecipe(
        checkpoint_every_steps=1, validate_every_steps=4, threads=1, picture_rows=1
    ),
)


class Torn:
    """Frames of which one is damaged."""

    def __init__(self, frames, damaged, error=None):
        self._frames, self._damaged = frames, damaged
        self._error = error or DatasetError('/data/images/1.jpg: no image')

    def __len__(self):
        return len(self._frames)

    def __getitem__(self, index):
        if index == self._damaged:
            raise self._error
        return self._frames[index]


def test_a_damaged_frame_in_a_worker_stops_the_run_with_one_line(box_frames, tmp_path):
    with pytest.raises(DatasetError) as caught:
        fit(RECIPE, Torn(box_frames[:3], 1), box_frames[:1], tmp_path)
    assert str(caught.value) == '/data/images/1.jpg: no image'


def test_damaged_frames_are_skipped_named_once_and_counted(box_frames, tmp_path, capsys):
    recipe = replace(RECIPE, data=replace(RECIPE.data, corrupt='skip'))
    manifest = train(recipe, Torn(box_frames[:3], 1), box_frames[:1], tmp_path)
    assert manifest.provenance['frames'] == {'train': 3, 'validation': 1, 'skipped': 1}
    printed = capsys.readouterr().out
    assert printed.count('skipped: /data/images/1.jpg: no image') == 1
    # What was skipped before a resume is not forgotten.
    callbacks = torch.load(tmp_path / 'last.ckpt', weights_only=True)['callbacks']
    assert callbacks['DamagedFrames']['messages'] == ['/data/images/1.jpg: no image']


@pytest.mark.parametrize('which', ['train', 'validation'])
def test_labels_out_of_range_are_never_skipped(box_frames, tmp_path, which):
    """What a file holds decides, not which error class the test makes up."""
    label_set = LabelSet('two', ('a', 'b'), ((1, 1, 1), (2, 2, 2)))
    labels = make_label_map(label_set, {'a': 0, 'b': 1}, {}, 'here')
    with pytest.raises(DatasetError) as caught:
        labels.apply(np.array([[0, 41]]), '/data/labels/1.png')
    recipe = replace(RECIPE, data=replace(RECIPE.data, corrupt='skip'))
    torn = Torn(box_frames[:3], 1, caught.value)
    train_frames, held_out = (
        (torn, box_frames[:1]) if which == 'train' else (box_frames[:3], torn)
    )
    with pytest.raises(DatasetError, match=r'^/data/labels/1\.png: holds label 41 in 1 pixels'):
        fit(recipe, train_frames, held_out, tmp_path)


def _checkpoint_steps(path):
    return torch.load(path / 'last.ckpt', weights_only=True)['global_step']


def test_a_full_disk_stops_the_run_and_the_last_checkpoint_goes_on(
    box_frames, tmp_path, monkeypatch
):
    real, writes = os.fsync, []

    def fsync(descriptor):
        writes.append(descriptor)
        # recipe.json and its directory, then a checkpoint and its directory, twice.
        if len(writes) > 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    frames = box_frames[:3]
    monkeypatch.setattr(os, 'fsync', fsync)
    with pytest.raises(TrainingError, match=r'No space left on device.*intact.*--resume --out'):
        fit(RECIPE, frames, frames, tmp_path)
    assert _checkpoint_steps(tmp_path) == 2
    assert not [each for each in tmp_path.iterdir() if each.name.startswith('.last')]
    monkeypatch.setattr(os, 'fsync', real)
    assert fit(RECIPE, frames, frames, tmp_path, resume=True).steps == 4


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write everywhere')
def test_a_folder_without_rights_is_named(box_frames, tmp_path):
    (tmp_path / 'locked').mkdir(mode=0o500)
    with pytest.raises(TrainingError, match=r'locked.*cannot be written: Permission denied'):
        fit(RECIPE, box_frames[:2], box_frames[:1], tmp_path / 'locked' / 'run')


def test_a_file_where_the_run_shall_be_is_named(box_frames, tmp_path):
    (tmp_path / 'run').write_text('')
    with pytest.raises(TrainingError, match=r'run cannot be written: .*give another --out'):
        fit(RECIPE, box_frames[:2], box_frames[:1], tmp_path / 'run')


def test_a_bundle_that_cannot_be_written_leaves_scores_and_checkpoint(
    box_frames, tmp_path, monkeypatch
):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), '/data/run/bundle')

    monkeypatch.setattr('mtl_perception.training.finish.save_bundle', full)
    frames = box_frames[:2]
    with pytest.raises(TrainingError, match=r'/data/run/bundle cannot be written: No space'):
        train(RECIPE, frames, frames, tmp_path)
    assert _checkpoint_steps(tmp_path) == 4
    assert 'this network' in json.loads((tmp_path / 'scores.json').read_text())
    monkeypatch.undo()
    train(RECIPE, frames, frames, tmp_path, resume=True)
    assert (tmp_path / 'bundle' / 'bundle.json').exists()


@pytest.mark.parametrize(('error', 'message'), [
    (OSError(errno.EROFS, 'Read-only file system', '/run/last.ckpt'),
     r'^/run/last\.ckpt cannot be written: Read-only file system\..*make room'),
    (OSError(errno.EMFILE, 'Too many open files', '/data/7.png'),
     r'^/data/7\.png cannot be read or written: Too many open files\.'),
    (OSError(errno.ENOMEM, 'Cannot allocate memory'),
     r'^a file cannot be read or written: Cannot allocate'),
    # As a data loader hands on what happened in a worker.
    (OSError('Caught OSError in worker.\nTraceback:\n  File "x"\nOSError: [Errno 5] I/O error'),
     r'^a file cannot be read or written: OSError: \[Errno 5\] I/O error\.'),
])
def test_only_a_disk_that_takes_nothing_is_told_to_make_room(tmp_path, error, message):
    with pytest.raises(TrainingError, match=message) as caught, told_plainly(tmp_path):
        raise error
    text = str(caught.value)
    assert ('make room' in text) == (error.errno == errno.EROFS)
    assert f'--resume --out {tmp_path}' in text
    assert '\n' not in text


def test_a_checkpoint_remembers_what_every_process_skipped(monkeypatch):
    def gather(into, own):
        into[:] = [own, ['2.jpg is cut', '1.jpg is cut']]

    damage = DamagedFrames(Console(quiet=True))
    damage.messages = ['1.jpg is cut']
    assert damage.state_dict() == {'messages': ['1.jpg is cut']}
    monkeypatch.setattr(torch.distributed, 'is_initialized', lambda: True)
    monkeypatch.setattr(torch.distributed, 'get_world_size', lambda: 2)
    monkeypatch.setattr(torch.distributed, 'all_gather_object', gather)
    state = damage.state_dict()
    assert state == {'messages': ['1.jpg is cut', '2.jpg is cut']}
    resumed = DamagedFrames(Console(quiet=True))
    resumed.load_state_dict(state)
    assert resumed.messages == state['messages']


def test_our_own_messages_pass_unchanged(tmp_path):
    with pytest.raises(TrainingError, match=r'^one line: of ours$'), told_plainly(tmp_path):
        raise TrainingError('one line: of ours')
