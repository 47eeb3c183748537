"""Explanations for whoever asks beside a line: one at a time, and never much of the machine."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

from hvq_edge.bundle.opened import Bundle
from hvq_edge.explain.explanation import BundleInsight, Explanation, explain
from hvq_edge.explain.pages import render_explanation
from hvq_edge.predict.result import Result
from hvq_edge.stream.live_page.history import Shot
from hvq_edge.stream.live_page.judge import Busy, ImageJudge

PLACES = 3
"""Explanations at a time: one is made, the others wait."""
RESTS = 3
"""After one, the next begins no sooner than so many times its length later, and at most"""
LONGEST_REST = 1.0
"""seconds later: so they take a quarter of one core at most, however many people click."""
PATIENCE_SECONDS = 12.0
"""For the engine, which images over HTTP ask as well, and a line before them."""
KEPT = 8
"""Pages that are kept for whoever asked: some 200 kB each."""


class Explainer:
    """Explains with what a bundle tells; its methods are for any thread.

    Args:
        bundle: whose model judges.
        judge: judges images from files; closed by the caller.
        precision: of the line's engine, where there is a line.
    """

    def __init__(self, bundle: Bundle, judge: ImageJudge, precision: str = "") -> None:
        self._precision = precision
        self._insight = BundleInsight(bundle)
        self._judge = judge
        self._places = threading.BoundedSemaphore(PLACES)
        self._one = threading.Lock()
        self._rest_until = 0.0
        self._numbers = count(1)
        self._pages: OrderedDict[int, str] = OrderedDict()

    def of_shot(self, shot: Shot) -> int:
        """Explain a decision of the line by what the line's engine gave: it is not asked again.

        Returns:
            The number of the page.

        Raises:
            Busy: all places are taken.
            ImageError: the frame was not judged.
            BundleError: the bundle's exemplars are not its own.
        """
        record = shot.record
        result = Result(
            name=record.image or f"{record.camera}, frame {record.frame}",
            image=shot.image,
            threshold=record.threshold,
            precision=self._precision,
            decision=shot.decision,
            typical=shot.typical,
        )
        with self._turn():
            return self._keep(explain(result, self._insight, shot.size))

    def of_file(self, file: Path, name: str, score: float | None) -> int:
        """Judge the image of an earlier decision again, and explain what that gives.

        Args:
            file: the image.
            name: that people know it by.
            score: that the line gave it.

        Returns:
            The number of the page.

        Raises:
            Busy: all places are taken, or the engine has no time.
            ImageError: it cannot be judged.
            OSError: it cannot be read.
            EngineFault: the engine failed.
            BundleError: the bundle's exemplars are not its own.
        """
        with self._turn():
            content = file.read_bytes()
            self._judge.enter()
            answer = self._judge.submit(content)
            try:
                result, _ = answer.result(PATIENCE_SECONDS)
            except (futures.CancelledError, futures.TimeoutError):
                answer.cancel()
                raise Busy from None
            found = explain(replace(result, name=name), self._insight)
            then, now = (f"{value or 0.0:.4g}" for value in (score, result.score))
            if then != now:
                note = f"judged again for this page: the score is {now}, and was {then} on the line"
                found = replace(found, notes=(note, *found.notes))
            return self._keep(found)

    def page(self, number: int) -> str | None:
        """Return a page; ``None``: it made room for others."""
        return self._pages.get(number)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            raise Busy
        try:
            with self._one:
                time.sleep(max(self._rest_until - time.monotonic(), 0.0))
                began = time.monotonic()
                try:
                    yield
                finally:
                    ended = time.monotonic()
                    self._rest_until = ended + min(RESTS * (ended - began), LONGEST_REST)
        finally:
            self._places.release()

    def _keep(self, explanation: Explanation) -> int:
        number = next(self._numbers)
        self._pages[number] = render_explanation(explanation)
        while len(self._pages) > KEPT:
            self._pages.popitem(last=False)
        return number
