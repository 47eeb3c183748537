"""What `hvq-edge stream` costs until its first decision: processor time, time and memory.

    python -m benchmarks.speed.start runs/latest/bundle --images parts

Each start is a process of its own, and the forms take turns: as it is, with nothing kept of former
starts (HVQ_EDGE_COMPILED=no), and with the live page. `--other PYTHON` adds another installation
by its interpreter, such as an earlier version's. The first start of each, which keeps compiled
graphs and Python's own byte code, is not counted. Ratios are to the first form, by turns.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np

from benchmarks.markdown_table import markdown_table

_USER, _SYSTEM = 11, 12
"""Of /proc/PID/stat, counted from the first field after the name: clock ticks (proc(5))."""


@dataclass(frozen=True)
class Form:
    """A way to start."""

    name: str
    python: Path
    options: tuple[str, ...] = ()
    keep: bool = True
    """Whether compiled graphs are kept and used."""


class Start(NamedTuple):
    """One start, up to the first decision."""

    processor: float
    """Seconds, of all threads."""
    seconds: float
    megabytes: float
    """The most memory it had."""


def start(form: Form, arguments: Sequence[str], caches: Path) -> Start:
    """Start the command, wait for the first decision, and let it end."""
    environment = os.environ | {
        "HVQ_EDGE_COMPILED": "keep" if form.keep else "no",
        "XDG_CACHE_HOME": str(caches / form.name),
        "PYTHONPYCACHEPREFIX": str(caches / "bytecode"),  # by the path of its source
        "PYTHONDONTWRITEBYTECODE": "",
    }
    command = [str(form.python), "-m", "hvq_edge", "stream", *arguments, *form.options]
    began = perf_counter()
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=caches,  # not where a checkout lies, which every interpreter would import
        text=True,
    ) as process:
        assert process.stdout is not None
        decided = process.stdout.readline()
        seconds = perf_counter() - began
        if not decided:
            sys.exit(f"{form.name} decides nothing: {process.communicate()[1]}")
        proc = Path("/proc") / str(process.pid)
        fields = (proc / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        ticks = int(fields[_USER]) + int(fields[_SYSTEM])
        status = (proc / "status").read_text(encoding="utf-8")
        kilobytes = int(status.partition("VmHWM:")[2].split()[0])
        process.terminate()
        process.communicate()
    return Start(ticks / os.sysconf("SC_CLK_TCK"), seconds, kilobytes / 1024)


def quartiles(values: Sequence[float], places: int) -> str:
    """Return the median and, in brackets, the quartiles."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return f"{middle:.{places}f} ({low:.{places}f} .. {high:.{places}f})"


def main() -> None:
    """Print a row a form."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path, help="folder that hvq-edge export wrote")
    parser.add_argument("--images", type=Path, required=True, help="folder of images")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--backend", default="openvino")
    parser.add_argument("--other", type=Path, help="interpreter of another installation")
    given = parser.parse_args()

    python = Path(sys.executable)
    forms = [
        Form("as it is", python),
        Form("nothing kept", python, keep=False),
        Form("with the page", python, ("--page", "--page-port", "0")),
    ]
    if given.other is not None:
        forms.append(Form("the other", given.other))
    arguments = ["--bundle", str(given.bundle.resolve()), "--camera", str(given.images.resolve())]
    arguments += ["--max-frames", "1", "--precision", given.precision, "--backend", given.backend]
    arguments += ["--no-display", "--json"]
    with tempfile.TemporaryDirectory() as caches:
        for form in forms:
            # What the first start keeps is held against the known answers by the second.
            for _ in range(2 if form.keep else 1):
                start(form, arguments, Path(caches))
        turns = [
            [start(form, arguments, Path(caches)) for form in forms] for _ in range(given.rounds)
        ]
    rows = []
    for number, form in enumerate(forms):
        starts = [turn[number] for turn in turns]
        ratios = [turn[number].processor / turn[0].processor for turn in turns]
        rows.append(
            [
                form.name,
                quartiles([one.processor for one in starts], 2),
                quartiles(ratios, 2),
                quartiles([one.seconds for one in starts], 2),
                f"{np.median([one.megabytes for one in starts]):.0f}",
            ]
        )
    headings = ["start", "processor time, s", "ratio", "time, s", "memory, MB"]
    print(f"{given.precision} on {given.backend}, {given.rounds} rounds (quartiles)")
    print(markdown_table(headings, rows))


if __name__ == "__main__":
    main()
