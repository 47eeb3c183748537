"""Judges the images that requests bring: one at a time, and a few wait."""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import NamedTuple

from hvq_edge.common.closeable import Closeable
from hvq_edge.data.whole_file import announced
from hvq_edge.design.language import Language, speaking
from hvq_edge.errors import HvqEdgeError, ImageError
from hvq_edge.predict.images import NamedImage, image_of
from hvq_edge.predict.predictor import Predictor
from hvq_edge.predict.result import Result
from hvq_edge.stream.live_page.images import png
from hvq_edge.stream.sources.source import Image

PLACES = 4
"""Images at a time, from the first byte to the answer: one is judged, the others wait. Each may
have 64 MiB, so this bounds memory too."""
MOST_PIXELS = 2**25
"""Of an image: a file of 150 kB can announce more than a board has memory for, and an overlay takes
several times the memory of its image."""
CLOSE_SECONDS = 10.0
"""How long the end waits for the image under way: most take a tenth of a second, but to leave one
behind in a library would be a crash."""
OUTCOMES = ("pass", "reject", "no_decision", "refused", "gone", "busy", "fault")

Answer = tuple[Result, bytes]
"""The overlay as PNG, empty where none was asked for."""


class Busy(Exception):
    """All places are taken."""


class EngineFault(Exception):
    """The engine cannot be opened, or it failed; the message says why."""


class Work(NamedTuple):
    """What was worked on."""

    images: int
    seconds: float
    """Without the wait for other images."""


class ImageJudge(Closeable):
    """Judges images with one model on a thread of its own; its methods are for any thread.

    A request takes a place with :meth:`enter` before its body is read. It gives it back with
    :meth:`leave`, or what :meth:`submit` returned does when it is done or cancelled.

    Args:
        open_model: opens the model, on that thread, when the first image comes, and again after a
            fault of its engine.
        before_each: called with the model before each image.
    """

    def __init__(
        self,
        open_model: Callable[[], Predictor],
        *,
        before_each: Callable[[Predictor], None] | None = None,
    ) -> None:
        self._open_model = open_model
        self._before_each = before_each
        self._places = threading.BoundedSemaphore(PLACES)
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._model: Predictor | None = None
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._worked = Work(0, 0.0)
        self._ended = False
        self.fault = ""
        """Of the engine when it was last asked; empty where it answered."""
        self._thread = threading.Thread(target=self._work, name="image judge", daemon=True)
        self._thread.start()

    def open(self) -> Predictor:
        """Open the model now, and return it.

        Raises:
            HvqEdgeError: it cannot be opened.
        """
        opened: Future[Predictor] = Future()

        def job() -> None:
            try:
                opened.set_result(self._opened())
            except BaseException as error:  # noqa: BLE001  # for who waits
                opened.set_exception(error)

        self._jobs.put(job)
        return opened.result()

    def enter(self) -> None:
        """Take a place.

        Raises:
            Busy: none is free.
        """
        if not self._places.acquire(blocking=False):
            self._count("busy")
            raise Busy

    def leave(self, outcome: str) -> None:
        """Give a place back, and count what became of its request, one of :data:`OUTCOMES`."""
        self._count(outcome)
        self._places.release()

    def submit(self, content: bytes, *, overlay: Language | None = None) -> Future[Answer]:
        """Judge the bytes of an image file.

        Args:
            content: the whole file.
            overlay: also draw what was found, in this language.

        Returns:
            The answer on its way: ImageError for what is no image or is too large,
            EngineFault for what the engine did not judge. Cancelled in time, it costs nothing.
        """
        answer: Future[Answer] = Future()
        held = [content]

        def done(_: Future[Answer]) -> None:
            held.clear()  # of one that is cancelled the job waits on, but not its image
            self.leave(_outcome(answer))

        def job() -> None:
            if self._ended:
                answer.cancel()
            elif answer.set_running_or_notify_cancel():
                try:
                    answer.set_result(self._answer(held.pop(), overlay=overlay))
                except BaseException as error:  # noqa: BLE001  # for who waits
                    answer.set_exception(error)

        answer.add_done_callback(done)
        self._jobs.put(job)
        return answer

    def snapshot(self) -> tuple[dict[str, int], Work]:
        """Return how many requests came to each of :data:`OUTCOMES`, and what it took."""
        with self._lock:
            return {outcome: self._counts[outcome] for outcome in OUTCOMES}, self._worked

    def close(self) -> None:
        """End after the image under way, and free the model; calling it twice is fine."""
        self._ended = True
        self._jobs.put(None)
        self._thread.join(CLOSE_SECONDS)

    def _count(self, outcome: str) -> None:
        with self._lock:
            self._counts[outcome] += 1

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
        self._forget()

    def _answer(self, content: bytes, *, overlay: Language | None) -> Answer:
        began = time.monotonic()
        image = NamedImage("", "", lambda: _decoded(content))
        try:
            (result,) = self._asked(image)
            if overlay is None:
                return result, b""
            if self._ended:  # drawing on a large image takes seconds
                raise CancelledError
            with speaking(overlay):
                return result, png(result.plot())
        finally:
            with self._lock:
                images, seconds = self._worked
                self._worked = Work(images + 1, seconds + time.monotonic() - began)

    def _asked(self, image: NamedImage) -> list[Result]:
        try:
            model = self._opened()
            if self._before_each is not None:
                self._before_each(model)
            results = list(model.each([image], strict=True))
        except ImageError:
            raise
        except Exception as error:  # those of libraries too: the next image gets a new engine
            self._forget()
            unforeseen = f"{type(error).__name__}: {error}"
            self.fault = error.cause if isinstance(error, HvqEdgeError) else unforeseen
            raise EngineFault(self.fault) from error
        self.fault = ""
        return results

    def _opened(self) -> Predictor:
        if self._model is None:
            self._model = self._open_model()
        return self._model

    def _forget(self) -> None:
        model, self._model = self._model, None
        if model is not None:
            model.close()


def _outcome(answer: Future[Answer]) -> str:
    """Return which of :data:`OUTCOMES` an answer is."""
    if answer.cancelled():
        return "gone"
    error = answer.exception()
    if error is None:
        return answer.result()[0].verdict
    return "refused" if isinstance(error, ImageError) else "fault"


def _decoded(content: bytes) -> Image:
    header = announced(content)
    if header is not None and header.width * header.height > MOST_PIXELS:
        raise ImageError(
            f"the image is {header.width}x{header.height} pixels, more than the "
            f"{MOST_PIXELS / 1e6:.0f} million that are judged over HTTP.",
            next_step="send it smaller, or judge the file with hvq-edge predict",
        )
    return image_of(content, "the image")
