"""Where a person judges decisions: what is there to be judged, its images, and what is recorded."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import cv2

from hvq_edge.common.heat_map import HeatScale
from hvq_edge.data.images import read_image
from hvq_edge.errors import HvqEdgeError, SettingsError
from hvq_edge.stream.drawing.overlay import draw_findings
from hvq_edge.stream.live_page.images import VIEW_SIDE, jpeg, shrink
from hvq_edge.stream.log.files import base_of
from hvq_edge.stream.log.reader import row_with
from hvq_edge.stream.log.reviews import Judgement, Review
from hvq_edge.stream.review.candidates import Candidate, Candidates
from hvq_edge.stream.review.choice import QUEUES, Queue
from hvq_edge.stream.review.images import KeptImages, image_of, shown_decision
from hvq_edge.stream.review.numbers import LineNumbers, line_numbers

LONGEST_NAME = 60
"""Characters of a person's name, and of a kind of defect."""
LONGEST_WHY = 500
MOST_LISTED = 200
"""Decisions of a queue that are listed at a time, the newest first."""
MOST_KINDS = 24
ROWS_AT_ONCE = 100_000


@dataclass(frozen=True)
class Listed:
    """A decision in a queue, with what was said of it."""

    candidate: Candidate
    review: Review | None
    """In force; ``None``: it is still to be judged."""


@dataclass(frozen=True)
class QueueCounts:
    """How many decisions of a queue have an image, and how many of these are judged."""

    name: Queue
    images: int
    judged: int
    gone: int
    """Decisions without an image: there was none, or it has made room. Of ``no_decision``, where
    one image stands for many, and of ``near_miss``, which nothing is reckoned from: 0."""


class ReviewDesk:
    """Judges decisions of a log; thread-safe.

    Args:
        log: its first file, or its folder; images are in folders beside it.
        write: puts a review into the log, and returns the id of its row.
        typical: what good parts score, by category: where the heat begins.
        since: only decisions from this moment on, seconds since 1970.
        until: only those before this one.
        days: only those of the last days, counted from now on.
    """

    def __init__(
        self,
        log: Path,
        write: Callable[[Review], int],
        typical: Mapping[str, float] | None = None,
        since: float = -math.inf,
        until: float = math.inf,
        days: float | None = None,
    ) -> None:
        self.log = base_of(log)
        self._write = write
        self._typical = typical or {}
        self._candidates = Candidates(self.log, since, until, days)
        self._lock = threading.Lock()
        self._images = KeptImages(self.log.parent)

    def read_on(self) -> bool:
        """Read some more of the log, and return whether all of it is read.

        A log of millions of rows takes a while: whoever serves a page asks this first, again and
        again, and holds no thread for long.

        Raises:
            InputError: there is no log, or it is damaged.
        """
        with self._lock:
            return self._candidates.update(ROWS_AT_ONCE)

    def counts(self) -> list[QueueCounts]:
        """Return how much there is to judge, queue by queue.

        Raises:
            InputError: there is no log, or it is damaged.
        """
        with self._lock:
            self._candidates.update()
            reviews = self._candidates.in_force()
            images = self._images.by_stem()
            tally = {queue: [0, 0, 0] for queue in QUEUES}
            for one in self._candidates.found.values():
                there = image_of(images, one) is not None
                judged = one.id in reviews
                tally[one.queue][0] += there
                tally[one.queue][1] += there and judged
                tally[one.queue][2] += not there and one.queue in ("reject", "sample")
        return [QueueCounts(name, *tally[name]) for name in QUEUES]

    def listed(self, queue: Queue, *, judged: bool = False) -> list[Listed]:
        """Return decisions of a queue that have an image, the newest first.

        Args:
            queue: which.
            judged: those with a review as well.

        Raises:
            InputError: there is no log, or it is damaged.
        """
        with self._lock:
            self._candidates.update()
            reviews = self._candidates.in_force()
            images = self._images.by_stem()
            found: list[Listed] = []
            for one in reversed(list(self._candidates.found.values())):
                if one.queue != queue or (one.id in reviews and not judged):
                    continue
                if image_of(images, one) is not None:
                    found.append(Listed(one, reviews.get(one.id)))
                    if len(found) >= MOST_LISTED:
                        break
        return found

    def kinds(self) -> list[str]:
        """Return the kinds of defects that reviews in force name, the most frequent first."""
        with self._lock:
            reviews = self._candidates.in_force().values()
        named = [review.defect for review in reviews if review.defect is not None]
        return sorted(set(named), key=lambda kind: (-named.count(kind), kind))[:MOST_KINDS]

    def numbers(self) -> tuple[LineNumbers, list[LineNumbers]]:
        """Return what reviews say of the line, of all days together and by day.

        Raises:
            InputError: there is no log, or it is damaged.
        """
        with self._lock:
            self._candidates.update()
            return line_numbers(self._candidates)

    def judge(
        self,
        decision: int,
        judgement: Judgement,
        *,
        by: str,
        defect: str | None = None,
        why: str = "",
    ) -> Review:
        """Record what a person says of a decision.

        A review of a decision that has one takes its place, and says so.

        Args:
            decision: id of the decision's row.
            judgement: what is said.
            by: who says it.
            defect: what kind; only, and always, with ``defective``.
            why: in words.

        Returns:
            The review as it is recorded.

        Raises:
            SettingsError: it cannot be said so, or the log has no such decision to be judged.
            OutputError: it could not be recorded.
        """
        checked = Review(
            decision,
            "",
            judgement,
            _kind(judgement, defect),
            _line("who judges", by, LONGEST_NAME),
            _line("the reason", why, LONGEST_WHY, may_be_empty=True),
            None,
        )
        with self._lock:
            self._candidates.update()
            candidate = self._candidates.found.get(decision)
            if candidate is None:
                raise SettingsError(
                    f"the log has no decision {decision} that is to be judged.",
                    next_step="ask for the queue again",
                )
            former = [one for one in self._candidates.reviews if one.decision == decision]
            if judgement == "withdrawn" and (not former or former[-1].judgement == "withdrawn"):
                raise SettingsError(
                    f"decision {decision} has no review to take back.",
                    next_step="ask for the queue again",
                )
            review = replace(
                checked,
                decision_hash=candidate.hash,
                supersedes=former[-1].id if former else None,
            )
            number = self._write(review)
            self._candidates.update()
            written = [one for one in self._candidates.reviews if one.id == number]
        return written[0] if written else replace(review, id=number)

    def knows(self, decision: int) -> bool:
        """Tell whether a decision is one that may be judged.

        Args:
            decision: id of its row.

        Raises:
            InputError: there is no log, or it is damaged.
        """
        with self._lock:
            if decision not in self._candidates.found:
                self._candidates.update(ROWS_AT_ONCE)
            return decision in self._candidates.found

    def kept(self, decision: int) -> tuple[Candidate, Path] | None:
        """Return a decision that may be judged and the file of its image, where there is one."""
        with self._lock:
            candidate = self._candidates.found.get(decision)
            file = None if candidate is None else image_of(self._images.by_stem(), candidate)
        return None if candidate is None or file is None else (candidate, file)

    def image(self, decision: int, *, heat: bool, longest: int = VIEW_SIDE) -> bytes | None:
        """Return a decision's image as JPEG; ``None`` where there is none any more.

        Args:
            decision: id of its row.
            heat: whether the heat and the outlines of a reject are drawn.
            longest: pixels of a side, at most.
        """
        kept = self.kept(decision)
        if kept is None:
            return None
        candidate, file = kept
        try:
            image = read_image(file)
            shown = shrink(image, longest)
            if heat:
                thickness = max(round(max(shown.shape) / 480), 1)
                scale = HeatScale(candidate.threshold, self._typical.get(candidate.category or ""))
                row = row_with(self.log, candidate.id)
                whole = shown_decision(candidate, file, row and row.regions)
                shown = draw_findings(shown, whole, scale, image.shape[:2], thickness)
            return jpeg(shown)
        except (HvqEdgeError, OSError, ValueError, cv2.error):
            return None  # it made room meanwhile, or is damaged

    def judged_images(self) -> list[tuple[Candidate, Review, Path | None]]:
        """Return every review in force with the image that it is of, where that is still there.

        Raises:
            InputError: there is no log, or it is damaged.
        """
        with self._lock:
            self._candidates.update()
            found, images = self._candidates.found, self._images.by_stem()
            return [
                (found[number], review, image_of(images, found[number]))
                for number, review in self._candidates.in_force().items()
                if number in found
            ]

    def rejects(self) -> list[tuple[Candidate, Path]]:
        """Return the rejects that have an image, in the order of the log.

        Raises:
            InputError: there is no log, or it is damaged.
        """
        with self._lock:
            self._candidates.update()
            images = self._images.by_stem()
            return [
                (one, file)
                for one in self._candidates.found.values()
                if one.queue == "reject" and (file := image_of(images, one)) is not None
            ]

    def worst(self, count: int) -> list[Candidate]:
        """Return the rejects furthest above their threshold, in its own size, the worst first.

        Raises:
            InputError: there is no log, or it is damaged.
        """
        with self._lock:
            self._candidates.update()
            rejects = [one for one in self._candidates.found.values() if one.queue == "reject"]
        return sorted(rejects, key=lambda one: (-one.excess, one.id))[:count]


def _kind(judgement: Judgement, given: str | None) -> str | None:
    if judgement != "defective":
        if given:
            raise SettingsError(
                f"only what is defective has a kind, and this is {judgement}.",
                next_step="leave the kind out",
            )
        return None
    kind = _line("the kind of the defect", given or "", LONGEST_NAME)
    if kind.startswith(".") or set(kind) & set('/\\:*?"<>|'):  # it names a folder
        raise SettingsError(
            f"{kind!r} is no name of a kind of defect.",
            next_step="use letters, digits, spaces, dashes and dots",
        )
    return kind


def _line(what: str, given: str, longest: int, *, may_be_empty: bool = False) -> str:
    text = " ".join(given.split())
    if not text and not may_be_empty:
        raise SettingsError(f"{what} is missing.", next_step="say it in a few words")
    if len(text) > longest or not text.isprintable():
        raise SettingsError(
            f"{what} has up to {longest} characters that can be printed.",
            next_step="say it shorter",
        )
    return text
