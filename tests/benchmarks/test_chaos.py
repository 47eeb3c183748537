"""The chaos suite: a short form of it, and that it sees what does not hold."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.patience import PATIENCE_SECONDS

from benchmarks.chaos import small_disk
from benchmarks.chaotic_line import invariants
from benchmarks.chaotic_line.faults import KINDS, plan
from benchmarks.chaotic_line.invariants import Accepted
from benchmarks.chaotic_line.line import POLL_SECONDS, Poll, Session
from benchmarks.chaotic_line.peers import Deliveries
from benchmarks.chaotic_line.run import Run

SHORT = tuple(
    kind
    for kind in KINDS
    if kind.name
    in (
        "webhook refuses connections",
        "webhook hangs",
        "webhook answers 503",
        "webhook takes and does not answer",
        "broker gone",
        "broker frozen",
        "controller gone",
        "controller hangs",
        "controller refuses the heartbeat",
        "disk full",
        "clock step",
        "SIGTERM and a start",
        "SIGKILL and a start",
    )
)
SEED = 838
"""Its first three rounds have a fault of every resource."""


@pytest.mark.long
def test_nothing_is_violated_in_a_short_run(tmp_path):
    with ExitStack() as closing:
        disk = small_disk(tmp_path / "disk", closing)
        run = Run(tmp_path, SEED, disk=disk, patience=PATIENCE_SECONDS, video=False)
        result = run.rounds(iter(range(3)), SHORT, longest=2.0)
    assert result.violations == []
    assert sum(result.faults.values()) >= 4
    assert result.counts["rejects accepted"] >= 6
    assert result.counts["webhook: different ids"] == result.counts["rejects accepted"]


def test_a_round_is_drawn_from_its_seed_and_number_alone():
    assert plan(7, 3, KINDS, 2.0) == plan(7, 3, KINDS, 2.0)
    rounds = [plan(7, number, KINDS, 2.0) for number in range(300)]
    assert {one.kind.name for planned in rounds for one in planned} == {kind.name for kind in KINDS}
    for planned in rounds:
        resources = [one.kind.resource for one in planned]
        assert len(set(resources)) == len(resources) >= 1
    short = [one.kind.resource for number in range(3) for one in plan(SEED, number, SHORT, 2.0)]
    assert set(short) == {kind.resource for kind in SHORT}


# What does not hold is seen.


class Noted:
    """A run that only notes."""

    def __init__(self, **parts: object) -> None:
        self.found: list[tuple[str, str]] = []
        self.line = SimpleNamespace(**parts)
        self.moved: list[Path] = []

    def violated(self, invariant: str, what: str) -> None:
        self.found.append((invariant, what))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.found]


def row(number: int, **fields: object) -> Accepted:
    fields = {"camera": "belt", "frame": number, "time": float(number), **fields}
    return Accepted(f"log:{number}", number, fields)


def delivered(*numbers: int, verdict: str = "reject") -> Deliveries:
    got = Deliveries()
    for number in numbers:
        got.take([{"id": f"log:{number}", "verdict": verdict}])
    return got


def test_deliveries_are_held_against_the_log():
    wanted = [row(number) for number in range(1, 5)]

    def found(got: Deliveries) -> list[str]:
        run = Noted()
        invariants.deliveries(run, "webhook", got, wanted)
        return run.names

    assert found(delivered(1, 2, 3, 4)) == []
    assert found(delivered(1, 2, 2, 3, 3, 4)) == [], "at least once is the promise"
    assert found(delivered(1, 2, 4)) == ["what is accepted is delivered"]
    assert found(delivered(1, 2, 3, 4, 5)) == ["only what is accepted is delivered"]
    assert found(delivered(1, 3, 2, 4)) == ["decisions come in their order"]
    changed = delivered(1, 2, 3, 4)
    changed.take([{"id": "log:2", "verdict": "pass"}])
    assert found(changed) == ["an id has one content"]


def session(**parts: object) -> Session:
    made = Session(0, SimpleNamespace(), 0.0)
    for name, value in parts.items():
        setattr(made, name, value)
    return made


def printed(*numbers: int) -> list[tuple[float, dict]]:
    return [(float(number), row(number, verdict="reject").row) for number in numbers]


def test_a_decision_in_no_log_is_missed_and_a_kill_may_take_the_last_ones():
    logged = [row(1), row(3)]
    ended = session(printed=printed(1, 2, 3, 4))
    assert invariants._unaccounted([ended], logged) == (2, 0)
    ended.cut = True
    assert invariants._unaccounted([ended], logged) == (1, 1)


def test_memory_that_grows_is_seen():
    for resident, names in (
        ([100.0] * 500, []),
        ([100.0] * 50 + [190.0] + [100.0] * 50, ["memory is flat"]),
        ([100.0 + 0.1 * number for number in range(450)], ["memory is flat"]),
    ):
        run = Noted()
        invariants.memory(run, session(resident=resident))
        assert run.names == names


def polls(*named: str, seconds: float = 0.01) -> list[Poll]:
    return [
        Poll(POLL_SECONDS * number, 200, tuple(filter(None, [text])), "", seconds)
        for number, text in enumerate(named)
    ]


def test_a_fault_that_health_does_not_name_is_seen():
    rejects = printed(*range(1, 15))
    quiet = session(printed=rejects, polls=polls(*[""] * 40))
    named = session(printed=rejects, polls=polls(*[""] * 30, *["mqtt: gone"] * 10))
    assert invariants.unseen("mqtt", quiet, 0.0, 19.0) == "of 19 s it never named mqtt"
    assert invariants.unseen("mqtt", named, 0.0, 19.0) == ""
    assert invariants.unseen("mqtt", quiet, 0.0, 5.0) == "", "too short to ask for it"


@pytest.mark.parametrize(
    ("seen", "names"),
    [
        (polls("", "", ""), []),
        (polls("", "mqtt: gone", "mqtt: gone"), []),
        (polls("", "webhook: gone", ""), []),
        (polls("", "webhook: gone", "webhook: gone"), ["/healthz is true"]),
        ([*polls(""), Poll(1.0, 503, (), "no word of health", 0.01)], ["/healthz is answered"]),
        ([*polls(*[""] * 5), *polls("", seconds=30.0)], ["/healthz is answered"]),
    ],
)
def test_health_that_names_what_is_well_or_does_not_answer_is_seen(seen, names):
    run = Noted(sessions=[session(polls=list(seen))])
    broker = next(kind for kind in KINDS if kind.shows == "mqtt")
    invariants.excused(run, [broker])
    assert run.names == names
    invariants.excused(run, [])
    assert run.names == names, "said once"


def test_a_chain_that_does_not_hold_is_seen(tmp_path: Path):
    import sqlite3
    from contextlib import closing

    from helpers.decisions import written

    log = written(tmp_path / "decisions.sqlite", 3)
    log.close()
    run = Noted()
    invariants.whole(run, tmp_path)
    assert run.names == []
    with closing(sqlite3.connect(log.path)) as connection, connection:
        connection.execute("UPDATE log SET verdict = 'pass' WHERE verdict = 'reject'")
    invariants.whole(run, tmp_path)
    assert run.names == ["the chain is whole"]
