# SPDX-License-Identifier: Apache-2.0
"""Memory that is freed serves the next frame: counted in page faults."""

from __future__ import annotations

import subprocess
import sys

import pytest

_PROGRAM = """
import resource, sys
import numpy as np
from mtl_perception.ros.memory import keep_freed_memory
if sys.argv[1] == 'keep':
    assert keep_freed_memory()
def frame():
    maps = [np.ones(size, np.uint8) for size in [10 << 20] * 2 + [4 << 20] * 3]
    return sum(int(values[0]) for values in maps)
for _ in range(3):
    frame()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    frame()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='mallopt is glibc')
def test_kept_memory_is_not_faulted_in_again():
    faults = {
        how: int(subprocess.run(
            [sys.executable, '-c', _PROGRAM, how],
            capture_output=True, text=True, timeout=60, check=True,
        ).stdout)
        for how in ('keep', 'default')
    }  # fmt: skip
    # 20 frames of 32 MB are 164,000 pages of 4 KiB, fewer where the system gives huge ones.
    assert faults['keep'] < 100, faults
    assert faults['default'] > 10 * max(1, faults['keep']), faults
