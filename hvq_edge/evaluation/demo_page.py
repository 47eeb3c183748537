"""``index.html`` of the demo: one page that shows what it made, and leads to the rest."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hvq_edge.bundle.judged_images import METRICS_NAME
from hvq_edge.bundle.verification import VERIFY_NAME, read_verification
from hvq_edge.common.atomic import write_text
from hvq_edge.data.dataset import DatasetImage
from hvq_edge.evaluation.metrics.metrics_file import read_metrics
from hvq_edge.evaluation.report import page_template
from hvq_edge.run.record import BUNDLE_FOLDER, REPORT_NAME
from hvq_edge.verdict.judgement import VerdictCounts, count_verdicts

PAGE_NAME = "index.html"
_FILES = {
    REPORT_NAME: "every number of the model on the test images, with its charts and worst images",
    f"{BUNDLE_FOLDER}/MODEL.md": "the model's card: data, metrics, thresholds, limits, licences",
    f"{BUNDLE_FOLDER}/{VERIFY_NAME}": "float32 and INT8 against the PyTorch model",
    f"{BUNDLE_FOLDER}/": "the folder that a device needs, without PyTorch: graphs, thresholds",
    "inspection/decisions.jsonl": "every decision, a line each",
    "inspection/decisions.sqlite": "the same, chained by hashes: hvq-edge log verify",
    "inspection/rejects/": "rejected images as they were, with map and overlay",
    "run.json": "the training: settings, split of the images, thresholds",
}


@dataclass(frozen=True)
class JudgedPart:
    """A test image of the video, and what the stream said of it."""

    image: DatasetImage
    decision: Mapping[str, Any]
    """Its line of ``decisions.jsonl``."""
    overlay: str | None
    """Link to its picture from the page; of rejects alone."""


@dataclass(frozen=True)
class CategoryVerdicts:
    """What the stream said of one category's images."""

    category: str
    good: VerdictCounts
    defective: VerdictCounts


@dataclass(frozen=True)
class NextStep:
    """What a reader may do now."""

    what: str
    command: str


def newest_video(inspection: Path) -> Path:
    """Return the annotated video of the newest inspection; each after the first has a number."""
    videos = inspection.glob("annotated*.mp4")
    return max(videos, key=lambda path: path.stat().st_mtime, default=inspection / "annotated.mp4")


def is_whole(inspection: Path, frames: int) -> bool:
    """Tell whether the newest decisions of an inspection are of every frame of its video."""
    try:
        return [one["frame"] for one in _newest(inspection, frames)] == list(range(frames))
    except (OSError, ValueError):  # none, or a line that a power cut left torn
        return False


def _newest(inspection: Path, frames: int) -> list[dict[str, Any]]:
    lines = (inspection / "decisions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[-frames:]]


def judged_parts(inspection: Path, images: Sequence[DatasetImage]) -> list[JudgedPart]:
    """Match the newest decisions of an inspection with the images of its video.

    Args:
        inspection: folder that ``hvq-edge stream --out`` wrote.
        images: in the video's order, one a frame.
    """
    rejects: dict[int, Path] = {}
    for path in sorted((inspection / "rejects").glob("*_overlay.jpg")):  # by time: the last stays
        rejects[int(path.name.removesuffix("_overlay.jpg").rpartition("-")[2])] = path
    parts = []
    for image, decision in zip(images, _newest(inspection, len(images)), strict=True):
        overlay = rejects.get(decision["frame"]) if decision["verdict"] == "reject" else None
        link = quote(overlay.relative_to(inspection.parent).as_posix()) if overlay else None
        parts.append(JudgedPart(image, decision, link))
    return parts


def verdicts_by_category(parts: Sequence[JudgedPart]) -> list[CategoryVerdicts]:
    """Count verdicts of good and of defective images."""

    def count(category: str, good: bool) -> VerdictCounts:
        return count_verdicts(
            one.decision["verdict"]
            for one in parts
            if one.image.category == category and one.image.good == good
        )

    return [
        CategoryVerdicts(name, count(name, True), count(name, False))
        for name in sorted({one.image.category for one in parts})
    ]


def write_demo_page(
    run: Path, parts: Sequence[JudgedPart], next_steps: Sequence[NextStep], activate: str = ""
) -> Path:
    """Write the page into the run's folder, whose files it links to.

    Args:
        run: that the demo trained, exported, verified and put on a line.
        parts: of :func:`judged_parts`.
        next_steps: commands, as typed in the current folder.
        activate: command that makes ``hvq-edge`` known to a shell, where it is not.

    Returns:
        The page.

    Raises:
        InputError: what it shows cannot be read.
        OutputError: it cannot be written.
    """
    evaluation = read_metrics(run / METRICS_NAME).evaluations[-1]
    verification = read_verification(run / BUNDLE_FOLDER / VERIFY_NAME)
    changed = {
        image
        for row in verification.comparisons
        if row.precision == "int8"
        for image in row.decisions_changed
    }
    page = run / PAGE_NAME
    text = page_template("demo.html").render(
        evaluation=evaluation,
        metrics={one.category: one for one in evaluation.categories},
        verdicts=verdicts_by_category(parts),
        verification=verification,
        changed=len(changed),
        found=_rejected(parts, good=False),
        false_rejects=_rejected(parts, good=True),
        undecided=[one for one in parts if one.decision["verdict"] == "no_decision"],
        frames=len(parts),
        video=quote(newest_video(run / "inspection").relative_to(run).as_posix()),
        files={name: what for name, what in _FILES.items() if (run / name).exists()},
        folder=run.resolve(),
        here=Path.cwd(),
        next_steps=next_steps,
        activate=activate,
    )
    write_text(page, text)
    return page


def _rejected(parts: Sequence[JudgedPart], *, good: bool) -> list[JudgedPart]:
    """Return rejects by score: the highest of each category, then the second of each, and so on."""
    by_score = sorted(
        (one for one in parts if one.overlay and one.image.good == good),
        key=lambda one: -float(one.decision["score"]),
    )
    place: Counter[str] = Counter()
    ranked = []
    for one in by_score:
        ranked.append((place[one.image.category], one))
        place[one.image.category] += 1
    return [one for _, one in sorted(ranked, key=lambda pair: pair[0])]
