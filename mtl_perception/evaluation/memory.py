# SPDX-License-Identifier: Apache-2.0
"""The memory of a process, as the kernel counts it."""

from __future__ import annotations

from pathlib import Path

# proc(5): forget the most that was resident so far.
_RESET_PEAK = '5'


def resident_mib() -> float:
    """Return what lies in physical memory now, MiB."""
    return _status('self', 'VmRSS')


def peak_mib(process: int | str = 'self') -> float:
    """
    Return the most of a process that lay in physical memory since `reset_peak`, MiB.

    Raises
    ------
    OSError
        If there is no such process.

    """
    # Not getrusage: its maximum is inherited from the process that started this one.
    return _status(process, 'VmHWM')


def reset_peak() -> None:
    """Let `peak_mib` of this process begin with what is resident now, where the kernel lets us."""
    try:
        Path('/proc/self/clear_refs').write_text(_RESET_PEAK, encoding='ascii')
    except OSError:
        pass  # a container may forbid it: the peak is then that since the process began


def _status(process: int | str, name: str) -> float:
    lines = Path(f'/proc/{process}/status').read_text(encoding='ascii').splitlines()
    found = [line for line in lines if line.startswith(f'{name}:')]
    if not found:
        msg = f'process {process} has ended'
        raise ProcessLookupError(msg)
    return int(found[0].split()[1]) / 1024
