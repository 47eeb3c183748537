"""What ``bench.json`` says, as far as a report shows it.

The file is of ``hvq-edge bench``, which adds to it from version to version. So this looks for what
a reader needs, times of one frame by percentile, and shows them under the names that stand there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hvq_edge.errors import InputError

BENCH_NAME = "bench.json"
_PERCENTILE = re.compile(r"p(\d\d)(?:_ms)?")


@dataclass(frozen=True)
class BenchRow:
    """One measurement: what was timed, and its percentiles."""

    name: str
    percentiles: dict[int, float]
    """Milliseconds by percentile, such as 50 and 99."""


def read_bench(path: Path) -> list[BenchRow]:
    """Return the measurements of ``bench.json``.

    Raises:
        FileNotFoundError: there is none.
        InputError: it cannot be read, or holds no times.
    """
    try:
        rows = list(_rows(json.loads(path.read_text(encoding="utf-8")), ""))
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    if not rows:
        raise InputError(f"{path} holds no times.", next_step="run hvq-edge bench again")
    return rows


def _rows(content: Any, name: str) -> Iterator[BenchRow]:  # noqa: ANN401  # any JSON
    if isinstance(content, list):
        for one in content:
            yield from _rows(one, name)
        return
    if not isinstance(content, dict):
        return
    times = {
        int(found[1]): float(value)
        for key, value in content.items()
        if (found := _PERCENTILE.fullmatch(key)) and isinstance(value, (int, float))
    }
    words = [
        f"{key} {value}" if isinstance(value, int) else value
        for key, value in content.items()
        if key in ("name", "precision", "backend", "device", "batch") and value is not None
    ]
    own = ", ".join(dict.fromkeys(part for part in (name, *map(str, words)) if part))
    if 50 in times:
        yield BenchRow(own, dict(sorted(times.items())))
        return
    for value in content.values():
        yield from _rows(value, own)
