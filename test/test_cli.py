# SPDX-License-Identifier: Apache-2.0
"""The command line: exit codes, one-line errors, help with an example for every command."""

from __future__ import annotations

import subprocess
import sys

from mtl_perception import cli
from mtl_perception.errors import MtlPerceptionError
import pytest


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
    return subprocess.run(
        [sys.executable, '-m', 'mtl_perception', *arguments],
        capture_output=True, text=True, timeout=120, check=False,
    )


def test_no_command_is_wrong_usage_and_lists_all():
    result = run()
    assert result.returncode == 2
    for name in cli.COMMANDS:
        assert f'  {name} ' in result.stdout


def test_unknown_command_is_named():
    result = run('perceive')
    assert result.returncode == 2
    assert "'perceive'" in result.stderr


@pytest.mark.parametrize('name', sorted(cli.COMMANDS))
def test_every_command_has_help_with_an_example(name):
    result = run(name, '--help')
    assert result.returncode == 0, result.stderr
    assert f'python3 -m mtl_perception {name}' in result.stdout, 'an example to copy'
    assert run(name, '--no-such-option').returncode == 2


def test_a_missing_package_is_named_with_its_extra(monkeypatch, capsys):
    def missing(module: str) -> None:
        raise ModuleNotFoundError("No module named 'rclpy'", name='rclpy')

    monkeypatch.setattr(cli, 'import_module', missing)
    assert cli.main(['live']) == 1
    message = capsys.readouterr().err
    assert 'mtl_perception[ros]' in message
    assert message.count('\n') == 1


def test_our_own_error_is_one_line_and_exit_code_one(monkeypatch, capsys):
    class Module:
        @staticmethod
        def main(argv: list[str]) -> int:
            raise MtlPerceptionError(f'bundle {argv[0]}: no such directory')

    monkeypatch.setattr(cli, 'import_module', lambda module: Module)
    assert cli.main(['live', 'x']) == 1
    assert capsys.readouterr().err == 'mtl_perception live: bundle x: no such directory\n'
    assert cli.live.__module__ == 'mtl_perception.cli'


def test_help_does_not_import_heavy_libraries():
    code = (
        'import sys; from mtl_perception import cli; cli.main([]);'
        "print([m for m in ('numpy', 'torch', 'cv2', 'rclpy') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout.strip().endswith('[]')
