"""A full disk: decisions go on, recording stops, the alarm is heard, and it goes on by itself."""

from __future__ import annotations

import json
import os

import pytest
from helpers.patience import until
from helpers.running_line import LONGEST_STOP, RunningLine, save_film, save_line_bundle
from helpers.small_disk import mounted_tmpfs

from hvq_edge.stream.sinks.files.retention import RESERVE_BYTES

DISK_BYTES = RESERVE_BYTES + 8 * 2**20


@pytest.fixture
def small_disk(tmp_path):
    with mounted_tmpfs(tmp_path / "disk", DISK_BYTES) as folder:
        yield folder


def test_a_full_disk_stops_the_recording_and_nothing_else(tmp_path, small_disk):
    bundle = save_line_bundle(tmp_path / "bundle")
    film = save_film(tmp_path / "film.avi", 100)
    arguments = ["--bundle", bundle.path, "--camera", film, "--play", "--page-port", 0]
    filler = small_disk / "somebody else's"
    with RunningLine(tmp_path, *arguments, out=small_disk / "out") as line:
        line.wait_for(2, "reject")
        assert line.get("healthz")[0] == 200
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, DISK_BYTES - RESERVE_BYTES)
        line.wait_for_message("Warning: log: cannot record")
        line.wait_for_message("Warning: rejects: cannot record")
        before = len(list((line.out / "rejects").glob("*.png")))
        line.wait_for(3, "reject")
        status, health = line.get("healthz")
        assert status == 200, "starting it again would not help"
        assert "are kept free" in json.dumps(json.loads(health)["degraded"])
        assert len(list((line.out / "rejects").glob("*.png"))) == before, "nothing is recorded"
        filler.unlink()
        until(lambda: not json.loads(line.get("healthz")[1])["degraded"], "all is well again")
        line.wait_for(2, "reject")
        assert line.stop() < LONGEST_STOP
    counts = line.assert_it_fits()
    (gap,) = line.events("not_recorded")
    assert gap["decisions"] > 3
    assert counts["rejected"] >= 7
    assert line.said.count("Warning: log:") == 1, "said once"
    saved = len(list((line.out / "rejects").glob("*.png")))
    assert before < saved < counts["rejected"]
    assert not list(line.out.rglob(".*.tmp"))
