"""Random faults against a running line with all its sinks: what must hold, holds?

    python -m benchmarks.chaos --minutes 60 --seed 1
    python -m benchmarks.chaos --seed 1 --rounds 12        the twelfth round of it once more
    python -m benchmarks.chaos --list                      the kinds of fault

The line is the command, as a process of its own: a camera at 4 frames a second, a watched folder,
files, log, webhook, MQTT, Modbus/TCP and live page. Each round draws up to three faults; a calm
follows, in which everything has to be well again. Needs the packages of the tests, mosquitto for
MQTT, and root for a file system that can be filled.
"""

from __future__ import annotations

import argparse
import itertools
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.markdown_table import markdown_table

if TYPE_CHECKING:
    from benchmarks.chaotic_line.run import Result

DISK_BYTES = 128 << 20
LONGEST_SECONDS = 20.0
PATIENCE_SECONDS = 90.0
"""A delivery that failed for long waits up to 30 s for its next attempt."""


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", help="N or N-M, in place of --minutes")
    parser.add_argument("--only", default="", help="kinds with one of these words, by commas")
    parser.add_argument("--without", default="", help="likewise, to leave out")
    parser.add_argument("--longest", type=float, default=LONGEST_SECONDS, help="of a fault, in s")
    parser.add_argument("--patience", type=float, default=PATIENCE_SECONDS, help="in a calm, in s")
    parser.add_argument("--list", action="store_true", help="print the kinds of fault and stop")
    arguments = parser.parse_args()
    # The line, its broker and its bundle are those of the fault tests.
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from benchmarks.chaotic_line.faults import KINDS
    from benchmarks.chaotic_line.run import Run

    kinds = tuple(
        kind
        for kind in KINDS
        if (not arguments.only or _matches(kind.name, arguments.only))
        and not _matches(kind.name, arguments.without)
    )
    if arguments.list or not kinds:
        print("\n".join(kind.name for kind in kinds or KINDS))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was mounted goes away
    with tempfile.TemporaryDirectory() as made, ExitStack() as closing:
        folder = Path(made)
        run = Run(
            folder,
            arguments.seed,
            disk=small_disk(folder / "disk", closing),
            patience=arguments.patience,
            say=lambda text: print(text, file=sys.stderr, flush=True),
        )
        began = time.monotonic()
        numbers = _numbers(arguments.rounds, began + 60.0 * arguments.minutes)
        result = run.rounds(numbers, kinds, arguments.longest)
        minutes = (time.monotonic() - began) / 60.0
    for kind in kinds:
        result.faults[kind.name] += 0
        if not run.possible(kind):
            print(f"Not possible on this machine: {kind.name}.", file=sys.stderr)
    print(tables(result, _again(parser, arguments), minutes))
    if result.violations:
        raise SystemExit(1)


def small_disk(folder: Path, closing: ExitStack) -> Path | None:
    """Mount a file system that can be filled; ``None`` where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        folder.rmdir()
        return None
    closing.callback(subprocess.run, ["umount", "-l", str(folder)], check=True)
    return folder


def tables(result: Result, again: str, minutes: float) -> str:
    """Return what happened as Markdown.

    Args:
        result: of the run.
        again: options that repeat it, but for the round.
        minutes: how long it took.
    """
    faults = [[name, str(count)] for name, count in sorted(result.faults.items())]
    counts = [["minutes", f"{minutes:.1f}"]]
    counts += [[name, f"{count:,}"] for name, count in result.counts.items()]
    counts += [["violated invariants", str(len(result.violations))]]
    parts = [markdown_table(["fault", "times"], faults), markdown_table(["", "count"], counts)]
    if result.violations:
        rows = ["| invariant | what | round | after | again with |", "|---|---|--:|--:|---|"]
        for one in result.violations:
            what = one.what.replace("|", "\\|")
            rows.append(
                f"| {one.invariant} | {what} | {one.round} | {one.moment:.0f} s "
                f"| `{again} --rounds {max(one.round, 0)}` |"
            )
        parts.append("\n".join(rows))
    return "\n\n".join(parts)


def _again(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> str:
    """Return the options that decide what a round is."""
    words = [f"--seed {arguments.seed}"]
    for name in ("only", "without", "longest"):
        value = getattr(arguments, name)
        if value != parser.get_default(name):
            words.append(f'--{name} "{value}"')
    return " ".join(words)


def _numbers(asked: str | None, end: float) -> Iterator[int]:
    if asked is not None:
        first, _, last = asked.partition("-")
        yield from range(int(first), int(last or first) + 1)
        return
    yield from itertools.takewhile(lambda _: time.monotonic() < end, itertools.count())


def _matches(name: str, words: str) -> bool:
    return any(word.strip() in name for word in words.split(",") if word.strip())


if __name__ == "__main__":
    main()
