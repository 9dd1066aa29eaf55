# SPDX-License-Identifier: Apache-2.0
"""No test of this room touches the user's own engine cache."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache_home(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Send the default cache of engines to a directory of the test's own; return it."""
    # Not tmp_path, whose name is the test's: one test looks for a word in the memory map.
    home = tmp_path_factory.mktemp('cache_home')
    monkeypatch.setenv('XDG_CACHE_HOME', str(home))
    return home
