"""How many small faults the tests notice: in verdicts, INT8 numerics and the log's hash chain.

mutmut makes the mutants of the files that ``pyproject.toml`` names; ``make mutation`` lays the tree
out as it is installed, and runs this there. A seeded sample of each room meets the room's tests.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import subprocess
import sys
from collections import Counter
from contextlib import redirect_stdout
from pathlib import Path

from scipy.stats import binomtest

from benchmarks.markdown_table import markdown_table

ROOMS = {
    "verdict": "hvq_edge.verdict.",
    "calibration": "hvq_edge.calibration.",
    "stream/log": "hvq_edge.stream.log.",
}
NOTICED = ("killed", "timeout", "segfault")


def main() -> None:
    """Try a sample of mutants, and list those that nobody noticed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=100, help="mutants of a room; 0: all")
    parser.add_argument("--room", choices=ROOMS, action="append", help="this one alone")
    parser.add_argument("--seed", type=int, default=0, help="another takes other mutants")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    if given.sample < 0 or given.workers < 1:
        parser.error("--sample is 0 or more, --workers 1 or more")
    made = sorted(_outcomes())
    rooms = given.room or ROOMS
    taken = [name for room in rooms for name in sample(made, room, given.sample, given.seed)]
    workers = ["--max-children", str(given.workers)]
    subprocess.run([sys.executable, "-m", "mutmut", "run", *workers, *taken], check=True)
    outcomes = _outcomes()
    print(table(made, {name: outcomes[name] for name in taken}))
    print(*(name for name in taken if outcomes[name] not in NOTICED), sep="\n")


def sample(made: list[str], room: str, most: int, seed: int = 0) -> list[str]:
    """Take a room's mutants, the same every time; a larger sample begins with the smaller one."""
    names = [name for name in made if name.startswith(ROOMS[room])]
    random.Random(seed).shuffle(names)
    return names[: most or None]


def table(made: list[str], outcomes: dict[str, str]) -> str:
    """Return what was noticed by room, with Wilson's interval at 95 %."""
    rows = []
    for room, prefix in ROOMS.items():
        found = Counter(what for name, what in outcomes.items() if name.startswith(prefix))
        if tried := found.total():
            noticed = sum(found[what] for what in NOTICED)
            low, high = binomtest(noticed, tried).proportion_ci(method="wilson")
            share = f"{100 * noticed / tried:.0f} % ({100 * low:.0f} to {100 * high:.0f} %)"
            counts = (len(sample(made, room, 0)), tried, noticed, found["timeout"])
            rows.append([room, *map(str, counts), share])
    return markdown_table(["room", "mutants", "tried", "noticed", "by not ending", "share"], rows)


def _outcomes() -> dict[str, str]:
    """Make the mutants that are not there yet, and return what became of each."""
    from mutmut import __main__ as mutmut
    from mutmut.stats import status_by_exit_code

    Path("mutants").mkdir(exist_ok=True)
    with redirect_stdout(io.StringIO()):
        mutmut.copy_src_dir()
        mutmut.copy_also_copy_files()
        mutmut.create_mutants(1)
    found: dict[str, str] = {}
    for meta in Path("mutants").rglob("*.meta"):
        codes = json.loads(meta.read_text(encoding="utf-8"))["exit_code_by_key"]
        found |= {name: status_by_exit_code[code] for name, code in codes.items()}
    return found


if __name__ == "__main__":
    main()
