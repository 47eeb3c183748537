"""The clock jumps a day back and a year ahead while the command runs (libfaketime)."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.patience import until
from helpers.running_line import (
    LONGEST_STOP,
    RunningLine,
    frames_in_order,
    save_film,
    save_line_bundle,
)

from hvq_edge.stream.sinks.files.retention import SteadyClock

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
YEAR = 365 * 86_400.0
SETTINGS = """
[sinks.log]
file_megabytes = 0.02
keep_days = 30.0

[sinks.rejects]
keep_days = 30.0
"""


@pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed (Debian: faketime)")
def test_a_clock_that_jumps_disturbs_nothing(tmp_path):
    bundle = save_line_bundle(tmp_path / "bundle")
    film = save_film(tmp_path / "film.avi", 100)
    settings, offset = tmp_path / "stream.toml", tmp_path / "offset"
    settings.write_text(SETTINGS)
    offset.write_text("+0\n")
    environment = {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }

    def jump(seconds: float) -> None:
        other = offset.with_suffix(".new")
        other.write_text(f"{seconds:+.0f}\n")
        other.replace(offset)

    arguments = ["--config", settings, "--bundle", bundle.path, "--camera", film, "--play"]
    with RunningLine(tmp_path, *arguments, environment=environment) as line:
        line.wait_for(3, "reject")
        now = line.decisions()[-1]["time"]
        for seconds in (-86_400.0, 0.0, YEAR):  # old files are looked for at the end
            jump(seconds)
            until(
                lambda: abs(line.decisions()[-1]["time"] - now - seconds) < 3600,  # noqa: B023
                "the clock jumps",
            )
            line.wait_for(2, "reject")
        assert line.stop() < LONGEST_STOP
    counts = line.assert_it_fits()
    decisions = line.decisions()
    assert frames_in_order(decisions)
    assert min(one["latency_ms"] for one in decisions) >= 0.0
    assert max(one["latency_ms"] for one in decisions) < 3_600_000.0, "no clock that jumps is in it"
    rows = line.rows()
    assert [row["id"] for row in rows] == list(range(1, len(rows) + 1)), "no old file was removed"
    times = [row["time"] for row in rows]
    assert max(times) - min(times) > YEAR, "it did jump"
    saved = len(list((line.out / "rejects").glob("*.png")))
    assert saved == counts["rejected"] >= 9, "a year ahead removes no reject"


def test_ages_are_counted_in_real_time():
    wall, steady = [1000.0], [5.0]
    clock = SteadyClock(lambda: wall[0], lambda: steady[0])
    wall[0], steady[0] = 1060.0, 65.0
    assert clock() == 1060.0
    wall[0], steady[0] = 1060.0 + YEAR, 75.0
    assert clock() == 1070.0, "ten seconds have gone by, not a year"
    wall[0] = 500.0
    assert clock() == 500.0, "younger is safe"
