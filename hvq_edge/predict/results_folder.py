"""A folder of results: pictures, a table for machines, and a gallery that opens offline."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from hvq_edge.common.atomic import check_writable, write_text
from hvq_edge.design.pages import page_environment
from hvq_edge.predict.result import OVERLAY, Result
from hvq_edge.verdict.decision import as_text
from hvq_edge.verdict.judgement import VerdictCounts, count_verdicts

CSV, JSON, GALLERY = "results.csv", "results.json", "index.html"
COLUMNS = (
    "image",
    "part",
    "verdict",
    "score",
    "threshold",
    "p_value",
    "category",
    "regions",
    "reason",
    "overlay",
)


@dataclass(frozen=True)
class Kept:
    """One result as the table and the gallery say it; its pictures are files."""

    fields: dict[str, Any]
    """Of :meth:`hvq_edge.predict.result.Result.to_dict`, and the files by kind, relative."""
    place: str
    """The image's path below the folder that was judged."""

    @property
    def files(self) -> dict[str, str]:
        """The pictures, by kind."""
        files: dict[str, str] = self.fields["files"]
        return files

    @property
    def overlay(self) -> str:
        """The overlay as a link from the gallery."""
        return quote(self.files[OVERLAY])

    @property
    def excess(self) -> float:
        """How far the score is above its threshold: what images are sorted by."""
        return float(self.fields["score"] or 0.0) - float(self.fields["threshold"] or 0.0)


class ResultsFolder:
    """Keeps results one by one; the table and the gallery are written at the end.

    What is in the folder from before stays, except for files of the same names.

    Args:
        folder: made where it is missing.
        title: of the gallery.

    Raises:
        OutputError: it cannot be written to.
    """

    def __init__(self, folder: Path, title: str) -> None:
        self.folder = folder
        self._title = title
        self._kept: list[Kept] = []
        self._stems: set[str] = set()
        check_writable(folder / GALLERY)

    def add(self, result: Result, place: str) -> None:
        """Write the pictures of a result.

        Args:
            result: the result.
            place: the path of its image below the folder that was judged.

        Raises:
            OutputError: they cannot be written.
        """
        place = as_text(place)  # the table, the gallery and its links are UTF-8
        written = result.save(self.folder, self._stem(place))
        files = {
            path.name.rsplit(".", 2)[1]: path.relative_to(self.folder).as_posix()
            for path in written
        }
        self._kept.append(Kept({**result.to_dict(), "files": files}, place))

    def finish(self) -> list[Path]:
        """Write ``results.csv``, ``results.json`` and ``index.html``.

        Raises:
            OutputError: they cannot be written.
        """
        written = {
            CSV: _table(self._kept),
            JSON: json.dumps([one.fields for one in self._kept], indent=1, ensure_ascii=False)
            + "\n",
            GALLERY: self._gallery(),
        }
        for name, text in written.items():
            write_text(self.folder / name, text)
        return [self.folder / name for name in written]

    def _stem(self, place: str) -> str:
        """Return a path below the folder that no other image has, whatever the name."""
        parts = [part for part in PurePosixPath(place).parts if part not in ("/", "..", ".")]
        path = PurePosixPath(*parts) if parts else PurePosixPath("image")
        wanted = stem = path.with_suffix("").as_posix()
        number = 1
        while stem in self._stems:  # a.png and a.jpg, or the same name in two folders
            number += 1
            stem = f"{wanted}-{number}"
        self._stems.add(stem)
        return stem

    def _gallery(self) -> str:
        def group(one: Kept) -> str:
            judged = one.fields["verdict"] != "no_decision"
            return str(one.fields["category"]) if judged else ""

        ordered = sorted(self._kept, key=lambda one: (group(one), -one.excess))
        groups = [(name, list(kept)) for name, kept in groupby(ordered, group)]
        template = page_environment("hvq_edge.predict").get_template("gallery.html")
        counts: VerdictCounts = count_verdicts(one.fields["verdict"] for one in self._kept)
        return template.render(title=self._title, groups=groups, counts=counts)


def _table(kept: Sequence[Kept]) -> str:
    text = StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for one in kept:
        values = {
            **one.fields,
            "regions": len(one.fields["regions"]),
            "overlay": one.files[OVERLAY],
        }
        rows.writerow([_cell(values[name]) for name in COLUMNS])
    return text.getvalue()


def _cell(value: object) -> object:
    """A spreadsheet takes a text that begins so for a formula: names come from others."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return value
