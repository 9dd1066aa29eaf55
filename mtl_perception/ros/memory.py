# SPDX-License-Identifier: Apache-2.0
"""Keep the memory of one frame for the next one."""

from __future__ import annotations

import ctypes
import sys

# mallopt(3), malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
# The most that glibc takes on 64 bits; a cloud of 1280x720 points is 28 MiB.
_LARGEST_BLOCK = 32 << 20
_KEPT_AT_MOST = 128 << 20


def keep_freed_memory() -> bool:
    """
    Let malloc keep what is freed instead of handing it back to the system; return success.

    A frame's maps and messages are 30 MB. By default glibc unmaps them when they are freed, and
    the next frame pays for fresh pages, one fault per 4 KiB: half of the time outside the
    engine. Does nothing where the C library is not glibc.
    """
    if not sys.platform.startswith('linux'):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK) and mallopt(_M_TRIM_THRESHOLD, _KEPT_AT_MOST)
    )
