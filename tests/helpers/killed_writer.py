"""Kills a writer of the decision log at random moments and checks the log after each kill.

``PYTHONPATH=tests python -m helpers.killed_writer FOLDER ROUNDS`` prints what it counted; the test
runs few rounds. Each writer is forked from a process that has everything loaded, so that a round
takes little time.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from helpers.decisions import made

from hvq_edge.stream.log.decision_log import DecisionLog, LogOptions, Session
from hvq_edge.stream.log.verification import verify_log
from hvq_edge.stream.sinks.threads import SinkThread

LONGEST_SECONDS = 0.25
PAIRS = [made(index, verdict) for index, verdict in enumerate(("pass", "reject", "no_decision"))]


def write_for_ever(path: Path, told: int) -> None:
    options = LogOptions(0.002, file_bytes=100_000, head_seconds=0.01, reserve_bytes=0)
    log = DecisionLog(path, Session(), options)
    log.on_commit = lambda rows: os.write(told, b"%d\n" % rows[-1].id)
    thread = SinkThread(log, "log", "wait", 16)
    while True:
        for pair in PAIRS:
            thread.write(*pair)


def one_round(path: Path, seconds: float, *, begun: bool) -> int:
    """Let a writer live for some seconds; return the last id that it said was committed.

    The seconds count from its start, or where it must have ``begun``, from its first commit.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        write_for_ever(path, writing)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.readline() if begun else ""
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        said += pipe.read()
    committed = [int(line) for line in said.split("\n")[:-1]]
    return committed[-1] if committed else 0


def main(folder: Path, rounds: int) -> None:
    path = folder / "decisions.sqlite"
    moments = random.Random(0)
    committed = 0
    for number in range(rounds):
        seconds = moments.uniform(0.0, LONGEST_SECONDS)
        committed = max(one_round(path, seconds, begun=number % 2 == 0), committed)
        if not path.exists():  # killed before the first row
            continue
        found = verify_log(path)
        assert found.faults == [], found.faults
        assert (found.last_id or 0) >= committed, (found.last_id, committed)
        assert found.lost_sessions >= found.sessions - 1
    DecisionLog(path, Session()).close()
    found = verify_log(path)
    assert found.lost_sessions == found.sessions - 1
    assert found.whole
    counts = (rounds, found.lost_sessions, found.decisions, len(found.files))
    sys.stdout.write(" ".join(map(str, counts)) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
