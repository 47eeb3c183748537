"""A line that is open: its inspector, and all that ends with it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from hvq_edge.bundle.thresholds import Newer
from hvq_edge.errors import OutputError
from hvq_edge.runtime.engine import EngineInfo
from hvq_edge.stream.inspector import Inspector
from hvq_edge.stream.sinks.all_sinks import CLOSE_SECONDS, LEAST_CLOSE_SECONDS, OpenSinks
from hvq_edge.stream.watchdog import Watchdog
from hvq_edge.verdict.decision import Decision

if TYPE_CHECKING:
    from hvq_edge.stream.live_page.serve import Serving

logger = logging.getLogger(__name__)


class Line:
    """An inspector with everything around it; what opens it is in ``from_settings.py``.

    Iterate it once: each frame that is not dropped gives a decision, which the sinks have by then.
    """

    def __init__(
        self,
        info: EngineInfo,
        inspector: Inspector,
        sinks: OpenSinks,
        *,
        reasons: Sequence[str],
        last_changes: Mapping[str, Newer] | None = None,
    ) -> None:
        self.info = info
        """Of the engine that judges."""
        self.reasons = tuple(reasons)
        """Why it is this one; empty where the settings name the precision."""
        changes = (last_changes or {}).items()
        self.older = {name: one for name, one in changes if info.precision not in one.precisions}
        """Categories whose thresholds were changed after those that judge, and how."""
        self.inspector = inspector
        self.page: Serving | None = None
        """The live page; ``None``: none is served."""
        self.keep: Callable[[], None] | None = None
        """Keeps what the watch for drift knows, at the end."""
        self._sinks = sinks
        self._closing = ExitStack()
        self._stopped_at: float | None = None
        self._finished = False

    @property
    def log(self) -> Path | None:
        """The decision log's first file; ``None``: none is kept."""
        return None if self._sinks.log is None else self._sinks.log.path

    @property
    def without_threshold(self) -> tuple[str, ...]:
        """Categories that the engine knows and that lead to no decision."""
        known = self.inspector.controls.thresholds
        return tuple(name for name in self.info.categories if name not in known)

    def __iter__(self) -> Iterator[Decision]:
        """Inspect until every camera has ended or :meth:`stop`; systemd, if any, is told.

        Raises:
            Exception: whatever a camera, the engine or a sink raised.
        """
        self._closing.enter_context(Watchdog(self.inspector.statistics))
        with self.inspector:
            yield from self.inspector

    def stop(self) -> None:
        """End after the frames already captured; may be called from a signal handler."""
        if self._stopped_at is None:
            self._stopped_at = time.monotonic()
        self.inspector.stop()

    def finish(self) -> None:
        """End at once, and write what the sinks still hold; a second call does nothing.

        The log ends with the counts of the run. A live line that was stopped has little time for
        it: what a hanging camera took is gone.
        """
        if self._finished:
            return
        self._finished = True
        self.inspector.close()
        counts = asdict(self.inspector.statistics().counts)
        seconds: float | None = None
        if "latest" in self.inspector.policies:
            since = 0.0 if self._stopped_at is None else time.monotonic() - self._stopped_at
            seconds = max(CLOSE_SECONDS - since, LEAST_CLOSE_SECONDS)
        self._sinks.close(seconds, counts)
        if self.keep is not None:
            try:
                self.keep()
            except OutputError as error:
                logger.warning("drift: what is usual is learnt anew at the next start: %s", error)

    def close(self) -> None:
        """Tell systemd that the service stops."""
        self._closing.close()
