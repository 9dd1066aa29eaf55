# SPDX-License-Identifier: Apache-2.0
"""The commands that help and documents show first can be typed as they stand, from a clone."""

from __future__ import annotations

from pathlib import Path
import re
import shlex

from mtl_perception.cli import main
import pytest

pytest.importorskip('torch')

ROOT = Path(__file__).parents[2]
PREFIX = 'python3 -m mtl_perception '


def help_text():
    from mtl_perception.training.command import _EPILOG

    return _EPILOG


def first_block(path, command):
    """Return the first block of commands of a document in which a command occurs."""
    blocks = re.findall(r'```\n(.*?)```', (ROOT / path).read_text(), re.DOTALL)
    return next(block for block in blocks if PREFIX + command in block)


def commands_of(text):
    lines = text.replace('\\\n', ' ').splitlines()
    return [shlex.split(line)[3:] for line in lines if line.strip().startswith(PREFIX)]


@pytest.mark.parametrize(
    'text',
    [help_text, lambda: first_block('docs/training.md', 'train'),
     lambda: first_block('README.md', 'train --config')],
    ids=['help', 'docs', 'readme'],
)
def test_the_first_example_lacks_nothing(text, tmp_path, monkeypatch, capsys):
    (tmp_path / 'config').symlink_to(ROOT / 'config')
    weights = tmp_path / 'samples' / 'weights'
    weights.mkdir(parents=True)
    (weights / 'mobilenetv2_100_imagenet.safetensors').touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('MTL_PERCEPTION_SAMPLE_DATA', str(tmp_path / 'samples'))
    monkeypatch.delenv('MTL_PERCEPTION_NYUD', raising=False)
    trained = 0
    for command in commands_of(text()):
        if command[0] == 'rooms':
            few = ['--frames', '2', '--frames-per-world', '2', '--size', '48x36']
            assert main([*command, *few]) == 0
        elif command[0] == 'train':
            # Of these only the dry run is expected to lack its data.
            assert main([*command, '--dry-run']) == 0
            output = capsys.readouterr().out
            missing = [line for line in output.splitlines() if line.startswith('missing: ')]
            if '--data' in command:
                trained += 1
                assert not missing
    assert trained
