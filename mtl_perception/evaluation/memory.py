# SPDX-License-Identifier: Apache-2.0
"""The memory of this process, as the kernel counts it."""

from __future__ import annotations

from pathlib import Path


def resident_mib() -> float:
    """Return what lies in physical memory now, MiB."""
    return _status('VmRSS')


def peak_mib() -> float:
    """Return the most that lay in physical memory so far, MiB."""
    # Not getrusage: its maximum is inherited from the process that started this one.
    return _status('VmHWM')


def _status(name: str) -> float:
    lines = Path('/proc/self/status').read_text(encoding='ascii').splitlines()
    kibibytes = next(line for line in lines if line.startswith(f'{name}:')).split()[1]
    return int(kibibytes) / 1024
