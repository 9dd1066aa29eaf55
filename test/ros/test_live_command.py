# SPDX-License-Identifier: Apache-2.0
"""What `live` settles before any library is loaded."""

from __future__ import annotations

import os

from mtl_perception.ros import live_command
import pytest


@pytest.mark.parametrize(('before', 'after'), [('', 'PASSIVE'), ('ACTIVE', 'ACTIVE')])
def test_threads_of_openmp_sleep_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, before: str, after: str
) -> None:
    # Set first, so that it is put back whatever happens.
    monkeypatch.setenv('OMP_WAIT_POLICY', before)
    if not before:
        monkeypatch.delenv('OMP_WAIT_POLICY')

    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(live_command, 'use_large_message_profile', stop)
    with pytest.raises(KeyboardInterrupt):
        live_command.main([])
    assert os.environ['OMP_WAIT_POLICY'] == after
