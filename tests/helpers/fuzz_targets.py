"""What takes bytes from elsewhere, as functions of bytes: each returns, or fails an assertion.

An exception that is none of ours is a fault as well. ``benchmarks/fuzz.py`` runs them with bytes
that atheris makes up, the tests with those of ``tests/data/fuzz``.
"""

from __future__ import annotations

import json
import math
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing, suppress
from functools import cache
from pathlib import Path

from helpers.bright_parts import BrightnessEngine
from helpers.graphs import save_bundle
from helpers.live_line import BEARER, TOKEN, Line, client_of
from starlette.testclient import TestClient

from hvq_edge.bundle.integrity.pack import unpack_bundle
from hvq_edge.bundle.manifest import MANIFEST_NAME
from hvq_edge.bundle.opened import open_bundle
from hvq_edge.errors import BundleError, HvqEdgeError, InputError
from hvq_edge.predict.predictor import Predictor
from hvq_edge.stream.live_page.access import Access
from hvq_edge.stream.live_page.api import Served
from hvq_edge.stream.live_page.judge import ImageJudge
from hvq_edge.stream.log.chain import LogRow, chained, event_row
from hvq_edge.stream.log.head import head_path, write_head
from hvq_edge.stream.log.reader import all_rows
from hvq_edge.stream.log.sqlite_file import make_log_file
from hvq_edge.stream.log.verification import verify_log

CHANGES = ("/api/pause", "/api/threshold", "/api/category", "/api/login", "/api/logout")


def manifest(content: bytes) -> None:
    """``bundle.json``: no name in it leads out of the bundle's folder."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / MANIFEST_NAME).write_bytes(content)
        with suppress(BundleError):
            bundle = open_bundle(Path(folder))
            for name in {*bundle.manifest.files, *bundle.manifest.models.values()}:
                with suppress(BundleError):
                    path = bundle.file(name)
                    assert path.resolve().is_relative_to(Path(folder).resolve()), path


def pack(content: bytes) -> None:
    """A packed bundle: all of it is unpacked or nothing, and nothing beside it."""
    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder) / "packed.hvq", Path(folder) / "out"
        file.write_bytes(content)
        try:
            bundle = unpack_bundle(file, out)
        except HvqEdgeError:
            assert list(Path(folder).iterdir()) == [file], "something is left"
        else:
            assert set(Path(folder).iterdir()) == {file, out}
            assert bundle.manifest == open_bundle(out).manifest


def log_row(content: bytes) -> None:
    """A row that somebody put into a log, as a JSON array of its columns: verifying finds it."""
    try:
        columns = json.loads(content)
    except (ValueError, RecursionError):
        return
    plain = (str, int, float, type(None))
    if not isinstance(columns, list) or not all(isinstance(one, plain) for one in columns):
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "decisions.sqlite"
        first = event_row("file", "", 0.0, {"log": "0" * 32, "continues": False})
        first = chained(first, None)
        write_head(head_path(path), first)
        make_log_file(path, first)
        marks = ", ".join("?" * len(columns))
        try:
            with closing(sqlite3.connect(path)) as connection, connection:
                connection.execute(f"INSERT INTO log VALUES ({marks})", columns)
        except (sqlite3.Error, OverflowError, UnicodeEncodeError):
            return  # SQLite takes no such row
        read_log(path)
        assert not verify_log(path).whole


def log_file(content: bytes) -> None:
    """A whole file of a log."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "decisions.sqlite"
        path.write_bytes(content)
        read_log(path)


def read_log(path: Path) -> None:
    """Read a log as its commands do."""
    with suppress(InputError):
        verify_log(path)
    with suppress(InputError):
        for row in all_rows(path):
            assert isinstance(row, LogRow)


def api(content: bytes) -> None:
    """A request that changes something: the first byte says where, the others are its body."""
    if not content:
        return
    line, client = served()
    before = line.verdicts.copy()
    path = CHANGES[content[0] % len(CHANGES)]
    headers = {"content-type": "application/json", **BEARER}
    answer = client.post(path, content=content[1:], headers=headers)
    assert answer.status_code in (200, 400, 401, 404, 409, 413, 422), answer.text
    said = answer.json()
    assert (
        said == {"done": True}
        if answer.status_code == 200
        else set(said)
        == {
            "cause",
            "next_step",
        }
    )
    assert line.verdicts == before
    assert not any(math.isnan(value) for value in line.controls.thresholds.values()), (
        "NaN passes all"
    )


def image(content: bytes) -> None:
    """An image that a request brings: it is judged, or refused in words."""
    client = judging()
    headers = {"content-type": "image/png", **BEARER}
    answer = client.post("/predict?as=overlay", content=content, headers=headers)
    if answer.status_code == 200:
        assert answer.content.startswith(b"\x89PNG"), answer.headers
    else:
        assert answer.status_code in (413, 422), answer.text
        assert set(answer.json()) == {"cause", "next_step"}


@cache
def judging() -> TestClient:
    """One judge for all images, without a line."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = save_bundle(Path(folder) / "bundle")
    judge = ImageJudge(lambda: Predictor(BrightnessEngine(), bundle))
    return client_of(Served(None, Access(TOKEN), judge=judge))


@cache
def served() -> tuple[Line, TestClient]:
    """One line for all requests: a server lives long, too."""
    line = Line()
    return line, line.client()


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (manifest, pack, log_row, log_file, api, image)
}
