"""``hvq-edge stream`` as a process of its own, and what it says it counted: for the fault tests."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

import numpy as np
from helpers.graphs import SIDE, save_bundle
from helpers.images import write_video
from helpers.known_answers import give_answers
from helpers.patience import PATIENCE_SECONDS, Stopwatch, until
from helpers.thresholds import threshold_at

from hvq_edge.bundle.manifest import write_manifest
from hvq_edge.bundle.opened import Bundle, open_bundle
from hvq_edge.stream.log.files import chain_files
from hvq_edge.stream.log.verification import verify_log

DEFECT_EVERY = 10
LONGEST_STOP = 3.0
"""Seconds from SIGTERM to the end: 2 are promised, and Python has to end as well."""


def save_line_bundle(folder: Path) -> Bundle:
    """One category; brightness is the score, and what is brighter than 0.6 a reject."""
    bundle = give_answers(save_bundle(folder))
    threshold = {"bolt": threshold_at(0.6, images=3, rule="test")}
    write_manifest(
        bundle.path, bundle.manifest.model_copy(update={"thresholds": {"fp32": threshold}})
    )
    return open_bundle(bundle.path)


def parts(count: int, side: int = SIDE) -> list[np.ndarray]:
    """Dim images that all differ; every tenth has a bright block."""
    images = []
    for i in range(count):
        image = np.random.default_rng(i).integers(60, 100, (side, side, 3)).astype(np.uint8)
        if i % DEFECT_EVERY == 3:
            image[side // 4 : side // 2, side // 4 : side // 2] = 255
        images.append(image)
    return images


def save_film(path: Path, count: int, rate: float = 30.0) -> Path:
    return write_video(path, parts(count), rate)


class RunningLine:
    """The real command, which writes its decisions to a file, one a line.

    Args:
        folder: for what it prints; ``out`` is in it, unless the arguments name another.
        arguments: of ``hvq-edge stream``.
        environment: added to that of the tests.
        backend: of ``--backend``.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: object,
        environment: dict[str, str] | None = None,
        out: Path | None = None,
        backend: str = "onnxruntime",
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.out = out or folder / "out"
        self._stdout, self._stderr = folder / "stdout", folder / "stderr"
        self._decisions: list[dict[str, Any]] = []
        self._read = 0
        command = [sys.executable, "-m", "hvq_edge", "stream", "--json", "--no-display"]
        command += ["--backend", backend, "--no-video", "--out", str(self.out)]
        with self._stdout.open("w") as stdout, self._stderr.open("w") as stderr:
            self.process = subprocess.Popen(
                [*command, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env={**os.environ, "COLUMNS": "200", **(environment or {})},
            )

    def __enter__(self) -> RunningLine:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    @property
    def said(self) -> str:
        """Standard error."""
        return self._stderr.read_text()

    @property
    def printed(self) -> str:
        return self._stdout.read_text()

    def decisions(self) -> list[dict[str, Any]]:
        """Those whose line is whole by now; what was read before is not read again."""
        with self._stdout.open("rb") as printed:
            printed.seek(self._read)
            whole = printed.read().rpartition(b"\n")[0]
        if whole:
            self._read += len(whole) + 1
            self._decisions += map(json.loads, whole.split(b"\n"))
        return [*self._decisions]

    def wait_for(self, count: int, verdict: str | None = None, camera: str | None = None) -> None:
        """Wait until so many more decisions are made."""

        def matching() -> int:
            return sum(
                verdict in (None, one["verdict"]) and camera in (None, one["camera"])
                for one in self.decisions()
            )

        start = matching()
        self._until(lambda: matching() >= start + count, f"{count} more decisions")

    def wait_for_message(self, text: str) -> None:
        self._until(lambda: text in self.said, f"the message {text!r}")

    def _until(self, true: Callable[[], object], what: str) -> None:
        def true_or_dead() -> object:
            assert self.process.poll() is None or true(), f"it ended: {self.said}"
            return true()

        until(true_or_dead, what)

    @property
    def page(self) -> str:
        """Address of the live page, which must be asked for with ``--page-port 0``."""
        self.wait_for_message("Live page: http")
        return re.search(r"Live page: (http://\S+?)#", self.said)[1]

    def get(self, path: str) -> tuple[int, str]:
        """Status and content of something that the page serves."""
        opener = build_opener(ProxyHandler({}))
        try:
            with opener.open(self.page + path, timeout=PATIENCE_SECONDS) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()

    def stop(self, number: int = signal.SIGTERM, code: int = 0) -> float:
        """Stop it; return the seconds that it would have taken on an idle machine."""
        with Stopwatch() as stopwatch:
            self.process.send_signal(number)
            ended = self.process.wait(PATIENCE_SECONDS)
        assert ended == code, self.said
        return stopwatch.seconds

    def rows(self) -> list[dict[str, Any]]:
        return rows_of(self.out)

    def assert_it_fits(self) -> dict[str, int]:
        """After its end: summary, the log's last row, the log and the JSON lines say the same.

        Returns:
            The counts.
        """
        assert "Traceback" not in self.said
        found = verify_log(self.out)
        assert found.whole, found.faults
        rows = self.rows()
        last = rows[-1]
        assert last["kind"] == "session_end"
        counts = json.loads(last["more"])["counts"]
        decided = counts["passed"] + counts["rejected"] + counts["no_decision"]
        assert counts["frames"] == decided + counts["dropped"], counts
        names = {"passed": "pass", "rejected": "reject", "no_decision": "no_decision"}
        told = Counter(one["verdict"] for one in self.decisions())
        assert {key: told[verdict] for key, verdict in names.items()} == {
            key: counts[key] for key in names
        }
        session = [row for row in rows if row["session"] == last["session"]]
        kept = Counter(row["verdict"] for row in session if row["verdict"])
        unrecorded = sum(
            json.loads(row["more"])["decisions"] for row in session if row["kind"] == "not_recorded"
        )
        assert sum(kept.values()) + unrecorded == decided
        assert self.summary() == counts
        return counts

    def summary(self) -> dict[str, int]:
        """What the table at the end says of all cameras together."""
        labels = {"frames": "frames", "pass": "passed", "reject": "rejected"}
        labels |= {"no decision": "no_decision", "dropped": "dropped"}
        found = {}
        for line in self.said.splitlines():
            cells = [cell.strip() for cell in line.strip("│").split("│")]
            label = labels.get(cells[0].split(" (")[0])
            if label is not None and len(cells) > 1:
                found[label] = int(cells[-1])
        return found

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [json.loads(row["more"]) for row in self.rows() if row["kind"] == kind]


def rows_of(out: Path) -> list[dict[str, Any]]:
    """All rows of a log, over its files."""
    rows: list[dict[str, Any]] = []
    for path in chain_files(out / "decisions.sqlite"):
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            rows += [dict(row) for row in connection.execute("SELECT * FROM log ORDER BY id")]
    return rows


def frames_in_order(decisions: Sequence[dict[str, Any]]) -> bool:
    """Whether each camera's frames come in their order, none twice."""
    for camera in {one["camera"] for one in decisions}:
        frames = [one["frame"] for one in decisions if one["camera"] == camera]
        if frames != sorted(set(frames)):
            return False
    return True
