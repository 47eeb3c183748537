"""What an acceptance report speaks of, written into it: so that signing finds an older one.

Times of files say nothing after a copy. So the page carries a digest of the thresholds and of each
file that it gathers, and ``sign`` compares them with what is there.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
from pathlib import Path

from hvq_edge.bundle.opened import Bundle
from hvq_edge.bundle.verification import VERIFY_NAME
from hvq_edge.common.atomic import sha256_of
from hvq_edge.errors import GateFailed

ACCEPTANCE_NAME = "acceptance.html"
META = "hvq-edge-sources"
"""Name of the page's ``meta`` element."""
_FILES = ("eval-*/metrics.json", VERIFY_NAME, "bench.json")
_THRESHOLDS = "the thresholds"


def report_sources(bundle: Bundle) -> str:
    """Return names and digests of what a report of a bundle speaks of now, as JSON."""
    thresholds = {
        precision: {name: one.model_dump(mode="json") for name, one in sorted(learnt.items())}
        for precision, learnt in sorted(bundle.manifest.thresholds.items())
    }
    text = json.dumps(thresholds, sort_keys=True)
    found = {_THRESHOLDS: hashlib.sha256(text.encode()).hexdigest()}
    paths = [path for pattern in _FILES for path in sorted(bundle.path.glob(pattern))]
    found |= {path.relative_to(bundle.path).as_posix(): sha256_of(path) for path in paths}
    return json.dumps(found)


def check_report(bundle: Bundle) -> None:
    """Refuse a report that is older than what it speaks of; without a report all is well.

    Raises:
        GateFailed: names what changed since; or the report does not say what it was made of.
    """
    page = bundle.path / ACCEPTANCE_NAME
    if not page.is_file():
        return
    then, now = _read(page), json.loads(report_sources(bundle))
    if then is None:
        changed = "it does not say what it was made of"
    else:
        names = [name for name in {**then, **now} if then.get(name) != now.get(name)]
        if not names:
            return
        changed = f"{', '.join(names)} changed since"
    raise GateFailed(
        f"{page} is older than what it speaks of: {changed}.",
        next_step=f"run hvq-edge report {bundle.path}, read it, then sign; or sign with --report, "
        "which makes it again",
    )


def _read(page: Path) -> dict[str, str] | None:
    text = page.read_text(encoding="utf-8", errors="replace")
    found = re.search(rf'<meta name="{META}" content="([^"]*)">', text)
    try:
        content = json.loads(html.unescape(found[1])) if found else None
    except (ValueError, RecursionError):
        content = None
    return content if isinstance(content, dict) else None
