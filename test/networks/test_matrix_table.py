# SPDX-License-Identifier: Apache-2.0
"""The table of `make matrix`: what it says, and that it comes whatever failed."""

from __future__ import annotations

import os
from pathlib import Path
import shutil
import subprocess
import sys

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / 'test' / 'networks' / 'matrix_table.py'
REPORT = """\
<testsuites><testsuite>
<testcase name="test_onnx_equals_eager[demt-swin_tiny-corrected]"><properties>
<property name="size" value="75x101"/><property name="onnx_error" value="2.0e-06"/>
</properties></testcase>
<testcase name="test_half_precision_builds_one_tensorrt_rtx_engine[demt-swin_tiny-corrected]">
<failure>no engine</failure></testcase>
<testcase name="test_of_something_else[demt-swin_tiny-corrected]"><failure/></testcase>
</testsuite></testsuites>
"""


def test_each_row_says_what_was_measured_or_that_it_failed(tmp_path: Path) -> None:
    (tmp_path / 'matrix.xml').write_text(REPORT)
    command = [sys.executable, str(SCRIPT), str(tmp_path / 'matrix.xml')]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert text.splitlines()[-1] == (
        '| demt | swin_tiny | corrected | 75x101 |  | 2.0e-06 | failed |  |'
    )


@pytest.mark.parametrize(('status', 'writes'), [(0, True), (1, True), (4, False)])
def test_make_matrix_prints_the_table_and_ends_like_pytest(
    status: int, writes: bool, tmp_path: Path
) -> None:
    if shutil.which('make') is None:
        pytest.skip('make is not installed')
    for part in ('Makefile', 'setup.py'):
        shutil.copy(ROOT / part, tmp_path / part)
    # stands in for the environment: pytest ends as told, everything else is real
    python = tmp_path / 'venv' / 'bin' / 'python'
    python.parent.mkdir(parents=True)
    python.write_text(
        '#!/bin/sh\n'
        f'test "$2" != pytest && exec {sys.executable} "$@"\n'
        + ('cp report.xml matrix.xml\n' if writes else '')
        + f'exit {status}\n'
    )
    python.chmod(0o755)
    (tmp_path / 'venv' / '.test').touch()
    (tmp_path / 'report.xml').write_text(REPORT)
    (tmp_path / 'matrix.xml').write_text('left from the last time')
    (tmp_path / 'test' / 'networks').mkdir(parents=True)
    shutil.copy(SCRIPT, tmp_path / 'test' / 'networks')
    environment = {key: value for key, value in os.environ.items() if not key.startswith('MAKE')}
    run = subprocess.run(
        ['make', 'matrix', 'VENV=venv'], cwd=tmp_path, env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    # make itself ends with 2 and names the status of what it ran
    assert run.returncode == (2 if status else 0), run.stderr
    assert f'Error {status}' in run.stderr or not status
    assert 'test/networks/test_network_export.py' in run.stdout.splitlines()[0]
    assert ('| demt | swin_tiny |' in run.stdout) == writes
