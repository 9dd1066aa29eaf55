# SPDX-License-Identifier: Apache-2.0
"""What installs, what imports what, and that the documents name what the code declares."""

from __future__ import annotations

from pathlib import Path
import re
import subprocess
import sys
from xml.etree import ElementTree
import zipfile

from mtl_perception import __version__
import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_the_wheel_holds_every_subpackage_and_its_data(tmp_path: Path):
    # Built from a copy: a build leaves folders behind in its source tree.
    files = subprocess.run(
        ['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    source = tmp_path / 'source'
    for name in files:
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(
        [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '-w', str(tmp_path), '.'],
        cwd=source, check=True, timeout=240,
    )
    (wheel,) = tmp_path.glob('*.whl')
    packed = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        name for name in files
        if name.startswith('mtl_perception/') and (ROOT / name).is_file()
    }
    assert wanted <= packed, sorted(wanted - packed)
    shared = {re.sub(r'^.*\.data/data/', '', name) for name in packed if '.data/data/' in name}
    assert 'share/ament_index/resource_index/packages/mtl_perception' in shared
    for name in files:
        if name.startswith(('launch/', 'config/')):
            assert f'share/mtl_perception/{name}' in shared


def test_package_xml_agrees_with_setup():
    root = ElementTree.parse(ROOT / 'package.xml').getroot()
    assert root.get('format') == '3'
    assert root.findtext('name') == 'mtl_perception'
    assert root.findtext('version') == __version__
    assert f"version='{__version__}'" in (ROOT / 'setup.py').read_text()
    assert root.findtext('export/build_type') == 'ament_python'


@pytest.mark.parametrize('room', ['inference', 'geometry', 'simulation', 'tasks', 'manifest'])
def test_rooms_of_a_robot_do_not_import_torch(room):
    _assert_no_torch(f'import mtl_perception.{room}')


@pytest.mark.ros
@pytest.mark.parametrize('module', [
    'perception_node', 'camera_node', 'live_command', 'camera_command', 'demo_command', 'observer',
])
def test_nodes_do_not_import_torch(module):
    pytest.importorskip('rclpy')
    _assert_no_torch(f'import mtl_perception.ros.{module}')


def _assert_no_torch(statement: str) -> None:
    code = f"{statement}; import sys; print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.stdout.strip() == 'False', result.stderr


def test_nothing_speaks_of_a_machine_or_a_person():
    forbidden = re.compile(r'/work/|/root/|/home/\w')
    files = subprocess.run(
        ['git', 'ls-files', '*.py', '*.md', '*.yaml', '*.xml', 'Makefile', '*.toml'],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()
    for name in files:
        if (ROOT / name).is_file() and name != 'test/test_package.py':
            found = forbidden.search((ROOT / name).read_text(encoding='utf-8'))
            assert found is None, f'{name}: {found}'


@pytest.mark.ros
def test_readme_names_every_topic_and_parameter():
    pytest.importorskip('rclpy')
    from mtl_perception.ros.observer import OUTPUTS
    from mtl_perception.ros.perception_parameters import PARAMETERS

    readme = (ROOT / 'README.md').read_text()
    for name in (*OUTPUTS, *(spec.name for spec in PARAMETERS)):
        assert f'`{name}`' in readme, f'README.md does not name `{name}`'
