# SPDX-License-Identifier: Apache-2.0
"""Atomic writes: what was there stays whole when a write fails."""

from __future__ import annotations

from pathlib import Path

from mtl_perception.files import atomic_directory, atomic_write
import pytest


def test_write_replaces_and_leaves_nothing_beside(tmp_path: Path):
    path = tmp_path / 'a.json'
    atomic_write(path, 'old')
    atomic_write(path, b'new')
    assert path.read_bytes() == b'new'
    assert [entry.name for entry in tmp_path.iterdir()] == ['a.json']
    assert path.stat().st_mode & 0o044, 'others must be able to read what we write'


def test_failed_write_keeps_the_old_content(tmp_path: Path, monkeypatch):
    path = tmp_path / 'a.json'
    atomic_write(path, 'old')

    def full_disk(descriptor: int) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('os.fsync', full_disk)
    with pytest.raises(OSError, match='No space'):
        atomic_write(path, 'new')
    assert path.read_text() == 'old'
    assert [entry.name for entry in tmp_path.iterdir()] == ['a.json']


def test_directory_takes_the_place_of_the_old_one_only_when_complete(tmp_path: Path):
    target = tmp_path / 'bundle'
    with atomic_directory(target) as directory:
        (directory / 'one').write_text('1')
    with pytest.raises(RuntimeError, match='half way'), atomic_directory(target) as directory:
        (directory / 'two').write_text('2')
        raise RuntimeError('half way')
    assert [entry.name for entry in target.iterdir()] == ['one']
    with atomic_directory(target) as directory:
        (directory / 'three').write_text('3')
    assert [entry.name for entry in target.iterdir()] == ['three']
    assert [entry.name for entry in tmp_path.iterdir()] == ['bundle']
