"""Walk through docs/tutorials/a-week.md: lay out its images, run its commands, renew the output.

    python -m benchmarks.a_week FOLDER --write

What stands below a command in the page is some of the lines that it printed. The test of the page
runs the same commands on a small run and holds these lines to the *form* of what is printed there:
all but numbers, digests, and which engine was the fastest. The images are those of
``elpv-dataset`` (CC BY-NC-SA 4.0).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import cv2

from hvq_edge.cli.app import main as hvq_edge
from hvq_edge.data.solar_cells import lay_out_solar_cells

PAGE = Path(__file__).parents[1] / "docs/tutorials/a-week.md"
OTHER_KIND = range(2145, 2217)
"""Numbers of monocrystalline cells whose ribbons end at their sides, with no bus bars across."""
DAYS = {
    "monday": (30, 0, 6),
    "tuesday": (14, 14, 6),
    "wednesday": (50, 14, 6),
    "thursday": (50, 14, 6),
    "friday": (10, 10, 6),
}
"""Usual good cells, good ones of the other kind, broken ones."""
LAMP = 0.7
"""Of its light Thursday's lamp has so much left."""
BROKEN = "-broken"
"""What the name of a broken cell's file on the line ends with: what a person would see."""
BY, DEFECT = "Ada", "broken cell"
LEFT_OUT = "..."
"""A line of the page: nothing or several lines are left out here."""
TOKEN = "token=…"
"""What the page shows of a token."""


class Command(NamedTuple):
    """A command of the page, with the lines below it."""

    text: str
    shown: tuple[str, ...]


class Printed(NamedTuple):
    """What a command did."""

    code: int
    lines: list[str]


def lay_out(out: Path) -> None:
    """Make ``photos`` to learn from, a folder for each day of the ``line``, and ``new``."""
    cells = lay_out_solar_cells(out / "cells", train_good=360, test_each=60)
    mono, poly = (
        {
            place: sorted((cells / f"solar_cell_{kind}" / place).iterdir())
            for place in ("train/good", "test/good", "test/defective")
        }
        for kind in ("mono", "poly")
    )
    other = [path for path in mono["train/good"] if int(path.stem[4:]) in OTHER_KIND]
    usual = [path for path in mono["train/good"] if path not in other]
    photos, new = (
        out / top / f"solar_cell_{kind}" for top, kind in (("photos", "mono"), ("new", "poly"))
    )
    for place, paths in {**mono, "train/good": usual}.items():
        _copy(paths[::2], photos / place)
    for place, count in {"train/good": 50, "test/good": 20, "test/defective": 20}.items():
        _copy(poly[place][:: len(poly[place]) // count][:count], new / place)
    pools = [iter(paths) for paths in (usual[1::2], other, mono["test/defective"][1::2])]
    for day, counts in DAYS.items():
        good, of_other_kind, broken = (
            list(islice(pool, count)) for pool, count in zip(pools, counts, strict=True)
        )
        named = [(path, "") for path in good + of_other_kind] + [(one, BROKEN) for one in broken]
        if day == "friday":
            named += [(path, "") for path in poly["test/good"][1::3]]
        named.sort(key=lambda one: one[0].stem[::-1])  # mixed, and the same every time
        folder = out / "line" / day
        folder.mkdir(parents=True)
        for number, (path, mark) in enumerate(named, start=1):
            image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            image = cv2.convertScaleAbs(image, alpha=LAMP if day == "thursday" else 1.0)
            cv2.imwrite(str(folder / f"{number:03}-{path.stem}{mark}.png"), image)
    shutil.rmtree(cells)


def _copy(paths: Iterable[Path], folder: Path) -> None:
    folder.mkdir(parents=True)
    for path in paths:
        shutil.copy(path, folder)


def write_files(page: str, folder: Path) -> None:
    """Write the files that the page shows: blocks whose first line is a comment with a name."""
    for name, content in re.findall(r"^```toml\n# (\S+)\n(.*?)^```", page, re.M | re.S):
        (folder / name).write_text(content, encoding="utf-8")


def commands_of(page: str) -> Iterator[Command]:
    """Return the page's commands, in order."""
    for block in re.findall(r"^```console\n(.*?)^```", page, re.M | re.S):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            text, *shown = part.splitlines()
            yield Command(text, tuple(line for line in shown if line.strip()))


def run(command: str, folder: Path) -> Printed:
    """Run a command of the page as it stands there, in this process where it is ours."""
    program, *arguments = shlex.split(command)
    if program != "hvq-edge":
        done = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True)
        return Printed(done.returncode, (done.stdout + done.stderr).splitlines())
    if arguments[0] == "review" and not {"--save", "--numbers"} & {*arguments}:
        return _review(arguments, folder)
    printed, code, here = io.StringIO(), 0, Path.cwd()
    os.chdir(folder)
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            hvq_edge(arguments)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0
    finally:
        os.chdir(here)
    return Printed(code, [line.rstrip() for line in printed.getvalue().splitlines()])


def _review(arguments: list[str], folder: Path) -> Printed:
    """Serve the review page, and answer over HTTP what a person would by a key."""
    command = [sys.executable, "-m", "hvq_edge", *arguments, "--port", "0"]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as serving:
        assert serving.stdout is not None
        lines = []
        for line in serving.stdout:
            lines.append(line.rstrip())
            if line.startswith("Page: "):
                judge_all(line.removeprefix("Page: ").strip())
                serving.terminate()
    return Printed(serving.returncode, lines)


def judge_all(url: str) -> None:
    """Judge what is to be judged by what the files are called."""
    token = urlsplit(url).fragment.removeprefix("token=")

    def asked(path: str, answer: dict[str, object] | None = None) -> Any:  # noqa: ANN401  # JSON
        request = urllib.request.Request(
            url.partition("#")[0].rstrip("/") + path,
            None if answer is None else json.dumps(answer).encode(),
            {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as reply:
            return json.load(reply)

    for queue in asked("/api/review")["queues"]:
        for item in asked(f"/api/review/queue?name={queue['name']}")["items"]:
            broken = Path(item["image"]).stem.endswith(BROKEN)
            said = {"judgement": "defective", "defect": DEFECT} if broken else {"judgement": "good"}
            asked("/api/review", {"decision": item["id"], "by": BY, **said})


def form(line: str) -> str:
    """Return what of a line does not depend on the model and the machine."""
    line = re.sub(r"\b[0-9a-f]{12,}\b|(?<=token=)\S+", "#", line)
    line = re.sub(r"\b(int8|fp32) on (openvino|onnxruntime)\b", "ENGINE", line)
    # Processors have brackets of their own, such as Intel(R) Xeon(R).
    machine = r"\((?:[^()]|\([^()]*\))*, (OpenVINO|ONNX Runtime) [\d.]+\)"
    line = re.sub(machine, "(MACHINE)", line)
    line = re.sub(r"[-+]?\d+(?:[.,:]\d+)*(?:e-?\d+)?", "0", line)
    line = re.sub(r"\b0 ([a-z]+?)s?\b", r"0 \1", line)  # one image, two images
    return " ".join(line.split())


def printed_line(shown: str, lines: Iterator[str]) -> str | None:
    """Return the next of the printed lines that has the form of a shown one."""
    wanted = form(shown)
    found = next((line for line in lines if form(line) == wanted), None)
    return found and re.sub(r"token=\S+", TOKEN, found)


def walk(
    page: str, folder: Path, on_command: Callable[[Command], Printed | None] = lambda _: None
) -> Iterator[tuple[Command, Printed]]:
    """Run the page's commands, one after the other.

    Args:
        page: its text.
        folder: laid out.
        on_command: does a command otherwise, or returns nothing.
    """
    write_files(page, folder)
    for command in commands_of(page):
        yield command, on_command(command) or run(command.text, folder)


def renewed(page: str, walked: Iterable[tuple[Command, Printed]]) -> str:
    """Return the page with the lines below each command as they were printed now."""
    at = 0
    for command, printed in walked:
        found, lines = [], iter(printed.lines)
        for shown in command.shown:
            line = shown if shown == LEFT_OUT else printed_line(shown, lines)
            if line is None:
                raise SystemExit(f"{command.text}\nprinted nothing like\n{shown}")
            found.append(line)
        before, after = (
            "\n".join([f"$ {command.text}", *own, ""]) for own in (command.shown, found)
        )
        at = page.index(before, at)
        page = page[:at] + after + page[at + len(before) :]
        at += len(after)
    return page


def main() -> None:
    """Walk, and print what each command printed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="that does not exist yet")
    parser.add_argument("--write", action="store_true", help="renew the lines of the page")
    given = parser.parse_args()
    os.environ["COLUMNS"] = "100"
    lay_out(given.folder)
    page = PAGE.read_text(encoding="utf-8")
    walked = []
    for command, printed in walk(page, given.folder):
        print("\n".join([f"$ {command.text}", *printed.lines]), flush=True)
        if printed.code:
            raise SystemExit(f"exit code {printed.code}")
        walked.append((command, printed))
    if given.write:
        PAGE.write_text(renewed(page, walked), encoding="utf-8")


if __name__ == "__main__":
    main()
