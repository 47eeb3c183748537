"""SIGKILL of the whole inspector at random moments: see killed_inspector.py."""

from __future__ import annotations

import json
import subprocess
import sys

from helpers.paths import with_helpers

KILLS = 6


def test_kills_at_random_moments_break_nothing(tmp_path):
    command = [sys.executable, "-m", "helpers.killed_inspector", tmp_path / "line", str(KILLS)]
    done = subprocess.run(command, capture_output=True, text=True, env=with_helpers())
    assert done.returncode == 0, done.stderr
    counted = json.loads(done.stdout)
    assert counted["kills"] == KILLS
    assert 1 <= counted["sessions killed"] <= KILLS
    assert counted["rejects delivered"] == counted["rejects"] >= 2
    assert counted["rejects on disk"] >= 1
