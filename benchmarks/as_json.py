"""Run a benchmark and keep what it prints as JSON, with the machine, the versions and the commit.

    python -m benchmarks.as_json folding.json speed.folding runs/latest --rounds 20

The benchmark is named as below ``benchmarks``, and takes its own arguments. It prints as it would
alone. Each Markdown table of what it prints stands in the file as headings and rows of words.
"""

from __future__ import annotations

import argparse
import json
import platform
import runpy
import subprocess
import sys
from collections.abc import Iterable
from contextlib import redirect_stdout
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from io import StringIO
from pathlib import Path
from typing import TextIO

from hvq_edge.common.atomic import write_text
from hvq_edge.runtime.cpu.processor import load_average, processor_name, usable_cpus

LIBRARIES = ("hvq-edge", "numpy", "onnx", "onnxruntime", "opencv-python", "openvino", "torch")


class Tee(StringIO):
    """Keeps what is printed, and prints it."""

    def __init__(self, onto: TextIO) -> None:
        super().__init__()
        self.onto = onto

    def write(self, text: str) -> int:
        """Print and keep."""
        self.onto.write(text)
        return super().write(text)

    def flush(self) -> None:
        """Show what was printed."""
        self.onto.flush()


def tables_of(text: str) -> list[dict[str, object]]:
    r"""Return the Markdown tables of a text.

    >>> tables_of("said\n\n| a | b |\n| :- | -: |\n| x | 1 |\n")
    [{'headings': ['a', 'b'], 'rows': [['x', '1']]}]
    """
    tables: list[dict[str, object]] = []
    rows: list[list[str]] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("| "):
            rows.append([cell.strip() for cell in line.strip().strip("|").split("|")])
        elif rows:
            headings, _, *others = rows
            tables.append({"headings": headings, "rows": others})
            rows = []
    return tables


def commit() -> str | None:
    """Return the commit, with ``-dirty`` where files differ from it; ``None`` without git."""
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    folder = Path(__file__).parent
    try:
        said = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return said.stdout.strip()


def circumstances() -> dict[str, object]:
    """Return what a number depends on."""
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": processor_name(),
        "cpus": usable_cpus(),
        "load_before": load_average(),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": versions_of(LIBRARIES),
    }


def versions_of(packages: Iterable[str]) -> dict[str, str | None]:
    """Return the version of each package; ``None`` of one that is not installed."""
    found: dict[str, str | None] = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run it; return its exit code. What failed leaves no file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path, help="the JSON file")
    parser.add_argument("benchmark", help="such as speed.folding")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of the benchmark")
    given = parser.parse_args(arguments)
    content = {"format": "hvq-edge-benchmark/1", **circumstances()}
    content |= {"benchmark": given.benchmark, "arguments": given.arguments}
    said = Tee(sys.stdout)
    before, sys.argv = sys.argv, [given.benchmark, *given.arguments]
    try:
        with redirect_stdout(said):
            runpy.run_module(f"benchmarks.{given.benchmark}", run_name="__main__")
    except SystemExit as ended:
        if ended.code:
            raise
    finally:
        sys.argv = before
    content |= {"tables": tables_of(said.getvalue()), "printed": said.getvalue().splitlines()}
    write_text(given.out, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
