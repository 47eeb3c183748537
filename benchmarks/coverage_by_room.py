"""How many of the product's lines the tests run, room by room (``make coverage`` gathers them).

Ends with 1 where a room is below the least.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from coverage import Coverage

from benchmarks.markdown_table import markdown_table

LEAST = 92.0
"""Per cent of a room's lines."""


def main() -> None:
    """Print the table, and say which rooms are below the least."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--least", type=_per_cent, default=LEAST, help="per cent of a room's lines")
    given = parser.parse_args()
    rooms = lines_by_room(_report())
    print(table(rooms))
    below = [room for room, (lines, run) in rooms.items() if 100 * run < given.least * lines]
    if below:
        print(f"coverage: below {given.least:g} %: {', '.join(below)}", file=sys.stderr)
        sys.exit(1)


def _per_cent(text: str) -> float:
    if not 0 <= (value := float(text)) <= 100:  # nothing is below nan
        raise argparse.ArgumentTypeError(f"{text} is no number between 0 and 100")
    return value


def _report() -> dict[str, dict[str, int]]:
    """Return what coverage.py counted, by file."""
    measured = Coverage()
    measured.load()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "coverage.json"
        measured.json_report(outfile=str(path))
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
    return {name: file["summary"] for name, file in files.items()}


def lines_by_room(files: dict[str, dict[str, int]]) -> dict[str, tuple[int, int]]:
    """Return how many lines each folder has, and how many of them ran."""
    rooms: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for name, file in sorted(files.items()):
        if file["num_statements"]:
            room = Path(name).parent.as_posix()
            lines, run = rooms[room]
            rooms[room] = (lines + file["num_statements"], run + file["covered_lines"])
    return dict(rooms)


def table(rooms: dict[str, tuple[int, int]]) -> str:
    """Lay out lines, lines that did not run and the share by room, and of all of them."""
    rows = [
        (room, str(lines), str(lines - run), f"{100 * run / lines:.1f} %")
        for room, (lines, run) in rooms.items()
    ]
    lines, run = (sum(counts) for counts in zip(*rooms.values(), strict=True))
    everything = ("all", str(lines), str(lines - run), f"{100 * run / lines:.1f} %")
    return markdown_table(("room", "lines", "not run", "share"), [*rows, everything])


if __name__ == "__main__":
    main()
