# SPDX-License-Identifier: Apache-2.0
"""
The table of every system on every backbone, from the reports of `make matrix`.

    python3 test/networks/matrix_table.py matrix.xml [MORE.xml ...]

prints Markdown: image size, parameters, the largest error of ONNX Runtime against PyTorch (of the
map's largest value), and size and build time of the fp16 TensorRT-RTX engine for three GPU
generations, built from the graph of a bundle as `compile` does it.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
import re
import sys
from xml.etree import ElementTree

_CASE = re.compile(r'(test_onnx\w+|test_half\w+)\[(\w+)-(\w+)-(\w+)\]')
_COLUMNS = ('size', 'parameters_m', 'onnx_error', 'engine_mb', 'build_s')
_HEAD = """\
Tasks: semantic, depth, normals and edges; single_task the first alone. The parameters and engines
are those with the classes of the rooms, the ONNX errors those with 5 classes.

| system | backbone | mode | size | parameters, M | ONNX error | engine, MB | build, s |
|---|---|---|---|---|---|---|---|"""


def rows(paths: list[Path]) -> dict[tuple[str, str, str], dict[str, str]]:
    """Return what was recorded, by (system, backbone, mode); a failed test leaves 'failed'."""
    found: dict[tuple[str, str, str], dict[str, str]] = defaultdict(dict)
    for path in paths:
        for case in ElementTree.parse(path).iter('testcase'):
            match = _CASE.fullmatch(case.get('name', ''))
            if match is None:
                continue
            test, *key = match.groups()
            row = found[key[0], key[1], key[2]]
            for entry in case.iter('property'):
                row[entry.get('name', '')] = entry.get('value', '')
            if case.find('failure') is not None or case.find('error') is not None:
                row['onnx_error' if test.startswith('test_onnx') else 'engine_mb'] = 'failed'
    return found


def main(arguments: list[str]) -> int:
    """Print the table; return 0, or 2 when no report is named."""
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    print(_HEAD)
    for key, row in sorted(rows([Path(each) for each in arguments]).items()):
        cells = [*key, *(row.get(column, '') for column in _COLUMNS)]
        print(f'| {" | ".join(cells)} |')
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
