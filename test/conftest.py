# SPDX-License-Identifier: Apache-2.0
"""Fixtures that every room's tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope='session')
def sample_data() -> Path:
    """Return the folder of real recordings, or skip with the reason."""
    value = os.environ.get('MTL_PERCEPTION_SAMPLE_DATA')
    if not value:
        pytest.skip('MTL_PERCEPTION_SAMPLE_DATA is not set: no real recordings to test against')
    path = Path(value).resolve()
    if not path.is_dir():
        pytest.skip(f'MTL_PERCEPTION_SAMPLE_DATA={value} is not a folder')
    return path
