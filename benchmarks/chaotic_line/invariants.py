"""What has to hold, whatever happens."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from helpers.running_line import rows_of

from benchmarks.chaotic_line.line import BELT, POLL_SECONDS, Session
from hvq_edge.errors import HvqEdgeError
from hvq_edge.stream.log.verification import NOT_AS_WRITTEN, verify_log
from hvq_edge.stream.sinks.files.retention import time_stamp

if TYPE_CHECKING:
    from benchmarks.chaotic_line.faults import Kind
    from benchmarks.chaotic_line.peers import Deliveries
    from benchmarks.chaotic_line.run import Run

SEEN_SECONDS = 10.0
"""A fault that lasts so long must be seen by /healthz."""
RECORDING = {"log", "disk"}
"""Resources without which nothing is recorded."""
LEAST_POLLS = 20
SLOWEST_ANSWER = 20.0
"""/healthz, as a multiple of the usual time; seconds count only from :data:`SEEN_SECONDS`."""
MOST_MEMORY = 1.5
"""Largest resident set as a multiple of the usual one of the first polls: an answer or a request
that is kept whole is seen at once."""
MOST_GROWTH = 1.15
"""Likewise, last quarter of a session by its second one."""
LONG_SESSION_POLLS = 400
MOST_DESCRIPTORS = 2.0
"""In a calm, as a multiple of what the session began with."""


@dataclass(frozen=True)
class Accepted:
    """A row of a log that is a decision."""

    id: str
    number: int
    row: dict[str, Any]


def accepted(out: Path) -> list[Accepted]:
    """Return every decision of a log, in its order."""
    found, log = [], ""
    for row in rows_of(out):
        if row["kind"] == "file":
            log = json.loads(row["more"])["log"]
        if row["verdict"] is not None:
            found.append(Accepted(f"{log}:{row['id']}", row["id"], row))
    return found


@dataclass(frozen=True)
class Wanted:
    """Ids that the receivers have to get."""

    webhook: set[str]
    mqtt: set[str]

    def missing(self, run: Run) -> set[str]:
        """Return those that have not come yet; what was told before is left out."""
        missing = run.webhook.got.missing(self.webhook)
        if run.mqtt is not None:
            missing |= run.mqtt.got.missing(self.mqtt)
        return missing - run.stuck


def wanted(out: Path) -> Wanted:
    """Return what a log has accepted by now; nothing where it cannot be read."""
    try:
        there = accepted(out)
    except (sqlite3.Error, OSError, ValueError):
        there = []
    rejects = {one.id for one in there if one.row["verdict"] == "reject"}
    return Wanted(rejects, {one.id for one in there})


def calm(run: Run) -> None:
    """Nothing is wrong any more: wait until everything shows it."""
    began = time.monotonic()
    probe = run.probe()
    if not run.expect(probe.inspected, "images in the watched folder are inspected", probe.text):
        return
    session = run.line.session
    since = len(session.printed)

    def rejected() -> list[dict[str, Any]]:
        return [
            one
            for _, one in session.printed[since:]
            if one["camera"] == BELT and one["verdict"] == "reject"
        ]

    if not run.expect(lambda: len(rejected()) >= 2, "the belt is inspected", "too few rejects"):
        return

    def well() -> bool:
        polls = [poll for poll in session.polls[-2:] if poll.moment > began]
        return bool(polls) and polls[-1].status == 200 and not polls[-1].named

    last = lambda: session.polls[-1] if session.polls else "no answer yet"  # noqa: E731
    if not run.wait(well):
        run.violated("/healthz is true", f"all faults are over, and it says {last()}")
    both = {True, False}
    run.expect(
        lambda: run.controller.values_since(began) == both,
        "the reject output follows the verdicts",
        f"in the calm it was set to {run.controller.values_since(began)} only",
    )
    newest = rejected()[1]
    name = f"{time_stamp(newest['time'])}-{newest['frame']:06}-{BELT}.png"
    run.expect(
        (run.line.out / "rejects" / name).exists, "a reject's images are kept", f"{name} is missing"
    )
    by_now = wanted(run.line.out)
    if not run.wait(lambda: not by_now.missing(run)):
        missing = by_now.missing(run)
        run.stuck |= missing
        run.violated("what is accepted is delivered", _some(missing, "missing in a calm"))
    whole(run, run.line.out)
    if len(session.descriptors) > LEAST_POLLS:
        usual, now = median(session.descriptors[:5]), session.descriptors[-1]
        if now > MOST_DESCRIPTORS * usual:
            run.violated("descriptors are given back", f"{now} are open, at first {usual:g}")


def whole(run: Run, out: Path) -> None:
    """The chain holds, but for what a log tells of one that was moved away before it."""
    try:
        found = verify_log(out)
    except HvqEdgeError as error:
        run.violated("the chain is whole", f"{out.name}: {error}")
        return
    told = NOT_AS_WRITTEN if run.moved else None
    faults = [fault for fault in found.faults if told is None or told not in fault.what]
    if faults:
        run.violated("the chain is whole", f"{out.name}: {faults[:3]}")


def excused(run: Run, kinds: Iterable[Kind]) -> None:
    """/healthz has said nothing since the last look that no fault explains."""
    kinds = list(kinds)
    allowed = {kind.shows for kind in kinds} | {name for kind in kinds for name in kind.excuses}
    for session in run.line.sessions:
        polls, session.polls = session.polls, []  # each is looked at once
        usual = median(poll.seconds for poll in polls) if polls else 0.0
        for poll in polls:
            fault = poll.fault
            if poll.seconds > max(SLOWEST_ANSWER * usual, SEEN_SECONDS):
                fault = f"{fault or 'an answer'} after {poll.seconds:.1f} s, usual are {usual:.2f}"
            if fault:
                run.violated("/healthz is answered", fault)
                break
        # Once may be a busy machine's doing, on which a receiver does not answer in its time.
        twice = {
            one for before, after in pairwise(polls) for one in {*before.named} & {*after.named}
        }
        for text in twice:
            who = text.removeprefix("camera ").split(":")[0]
            if who not in allowed and "*" not in allowed:
                run.violated("/healthz is true", f"it named {text!r}, which had no fault")


def unseen(name: str, session: Session, began: float, ended: float) -> str:
    """Say how /healthz did not see a fault that lasted long enough; empty: it did, or could not."""
    polls = [poll for poll in session.polls if began < poll.moment <= ended]
    seen = any(
        text.removeprefix("camera ").startswith(f"{name}:") for poll in polls for text in poll.named
    )
    if seen or len(polls) < LEAST_POLLS or session.began > began or ended - began < SEEN_SECONDS:
        return ""
    gaps = [after.moment - before.moment for before, after in pairwise(polls)]
    if median(gaps) > 2 * POLL_SECONDS:  # the machine is too busy to tell
        return ""
    rejects = [one for moment, one in session.printed if began < moment < ended - 3.0]
    if sum(one["verdict"] == "reject" for one in rejects) < 2:
        return ""
    return f"of {ended - began:.0f} s it never named {name}"


def clean_end(run: Run, session: Session, disturbed: set[str]) -> None:
    """What SIGTERM leaves.

    Args:
        run: with the line.
        session: that ended.
        disturbed: resources with a fault at that moment.
    """
    said = session.running.said
    code = session.running.process.poll()
    if not session.up:  # it was stopped while it started
        return
    if code != 0:
        run.violated("SIGTERM ends it with exit code 0", f"{code}: {said[-300:]}")
    if "Traceback" in said:
        run.violated("no traceback is printed", said[said.index("Traceback") :][:400])
    if run.controller.listening and run.controller.mode != "hang" and run.coil_is_on():
        run.violated("the reject output is off at the end", "it is on")
    if disturbed & RECORDING or not run.line.out.exists():
        return
    whole(run, run.line.out)
    rows = rows_of(run.line.out)
    if not rows or rows[-1]["kind"] != "session_end":
        run.violated("a clean end is on record", f"last row: {rows[-1] if rows else None}")
    left = [path.name for path in run.line.out.glob("*-wal") if path.stat().st_size]
    if left:
        run.violated("a clean end leaves whole files", f"rows stand in {', '.join(left)}")
    left = [path.name for path in run.line.out.rglob(".*.tmp")]
    if left:
        run.violated("nothing is left half-written", ", ".join(left))


def memory(run: Run, session: Session) -> None:
    """The resident set stays flat."""
    resident = session.resident
    if len(resident) < LEAST_POLLS:
        return
    usual = median(resident[2:10])
    if max(resident) > MOST_MEMORY * usual:
        run.violated("memory is flat", f"{max(resident):.0f} MB, at first {usual:.0f}")
    if len(resident) >= LONG_SESSION_POLLS:
        quarter = len(resident) // 4
        early, late = median(resident[quarter : 2 * quarter]), median(resident[-quarter:])
        if late > MOST_GROWTH * early:
            run.violated("memory is flat", f"{late:.0f} MB in the end, {early:.0f} before")


def account(run: Run) -> None:
    """At the very end: count everything against everything."""
    logs = {out.name: accepted(out) for out in (*run.moved, run.line.out)}
    for out in (*run.moved, run.line.out):
        whole(run, out)
    every = [one for found in logs.values() for one in found]
    rejects = [one for one in every if one.row["verdict"] == "reject"]
    counts = run.result.counts
    counts["sessions"] = len(run.line.sessions)
    counts["sessions killed"] = sum(session.killed for session in run.line.sessions)
    counts["decisions printed"] = sum(len(session.printed) for session in run.line.sessions)
    counts["decisions accepted"] = len(every)
    counts["rejects accepted"] = len(rejects)
    receivers = {"webhook": (run.webhook.got, rejects)}
    if run.mqtt is not None:
        run.mqtt.pump()
        receivers["mqtt"] = (run.mqtt.got, every)
    for name, (got, wanted) in receivers.items():
        counts[f"{name}: different ids"] = len(got.first)
        counts[f"{name}: repeated"] = got.repeated
        deliveries(run, name, got, wanted)
    told = _unrecorded(run)
    missing, torn = _unaccounted(run.line.sessions, every)
    counts["decisions not recorded, and told"] = told
    counts["decisions lost at an end"] = torn
    if missing > told:
        run.violated(
            "a decision is recorded or told as missing",
            f"{missing} of {counts['decisions printed']} are in no log, which speaks of {told}",
        )


def deliveries(run: Run, name: str, got: Deliveries, wanted: Sequence[Accepted]) -> None:
    """All that was accepted came, in order, and nothing else."""
    ids = {one.id for one in wanted}
    lost = got.missing(ids)
    if lost:
        run.violated("what is accepted is delivered", _some(lost, f"never came to {name}"))
    strange = got.first.keys() - ids
    if strange:
        run.violated("only what is accepted is delivered", _some(strange, f"came to {name}"))
    if got.changed:
        run.violated("an id has one content", _some(set(got.changed), f"of {name}"))
    last: dict[str, int] = {}
    late = set()
    for one in got.first:
        log, _, number = one.rpartition(":")
        if int(number) < last.get(log, 0):
            late.add(one)
        last[log] = max(int(number), last.get(log, 0))
    if late:
        run.violated("decisions come in their order", _some(late, f"late at {name}"))


def _unrecorded(run: Run) -> int:
    rows = [row for out in (*run.moved, run.line.out) for row in rows_of(out)]
    return sum(
        json.loads(row["more"])["decisions"] for row in rows if row["kind"] == "not_recorded"
    )


def _unaccounted(sessions: Sequence[Session], every: Sequence[Accepted]) -> tuple[int, int]:
    """Return how many printed decisions are in no log, and how many an end took.

    That is what was decided last: all that comes after the last one which is recorded.
    """
    there = {_key(one.row) for one in every}
    missing = torn = 0
    for session in sessions:
        recorded = [_key(one) in there for _, one in session.printed]
        while session.cut and recorded and not recorded[-1]:
            recorded.pop()
            torn += 1
        missing += recorded.count(False)
    return missing, torn


def _key(fields: dict[str, Any]) -> tuple[object, ...]:
    return fields["camera"], fields["frame"], round(fields["time"], 3)


def _some(ids: set[str], what: str) -> str:
    few = ", ".join(sorted(ids, key=lambda one: (len(one), one))[:3])
    return f"{len(ids)} {what}: {few}{' ...' if len(ids) > 3 else ''}"
