"""A run: rounds of faults, each followed by a calm in which everything has to be well again."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from subprocess import TimeoutExpired

import cv2
import numpy as np
from helpers.graphs import SIDE
from helpers.patience import Stopwatch
from helpers.receivers import MOSQUITTO
from helpers.running_line import LONGEST_STOP

from benchmarks.chaotic_line import invariants
from benchmarks.chaotic_line.faults import Kind, Planned, Undo, plan
from benchmarks.chaotic_line.line import FOLDER, Line, Session
from benchmarks.chaotic_line.peers import Controller, Mqtt, Webhook

STEP_SECONDS = 0.1
START_SECONDS = 600.0
"""A process that is not up after so long never will be."""


@dataclass(frozen=True)
class Violation:
    """An invariant that did not hold."""

    round: int
    moment: float
    """Seconds from the beginning."""
    invariant: str
    what: str


@dataclass
class Result:
    """What happened."""

    faults: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    """For the table: what, and how many."""


@dataclass
class Probe:
    """An image put into the watched folder, known by its brightness."""

    run: Run
    path: Path
    level: int
    since: float

    @property
    def text(self) -> str:
        """For a message."""
        return f"{self.path.name} is not"

    def inspected(self) -> bool:
        """Tell whether there is a decision on it."""
        return any(
            moment >= self.since
            and decision["camera"] == FOLDER
            and decision["score"] is not None
            and abs(decision["score"] - self.level / 255) < 1e-3
            and decision["verdict"] == "pass"
            for moment, decision in reversed(self.run.line.session.printed)
        )


class Run:
    """A line, its peers, and what became of them.

    Args:
        folder: an empty one.
        disk: a small file system, or ``None``: then the disk is never full.
        patience: seconds that a line which is well again may take to show it.
        video: whether there is annotated video, which takes most of the processor's time.
        say: told what happens as it happens.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        *,
        disk: Path | None,
        patience: float,
        video: bool = True,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.seed = seed
        self.patience = patience
        self.result = Result()
        self.moved: list[Path] = []
        """Output folders that were moved away and did not come back."""
        self.stuck: set[str] = set()
        """What was once found missing, so that it is reported once."""
        self._say = say
        self._disk = disk
        self._round, self._began = -1, time.monotonic()
        self._active: list[Kind] = []
        self._of_round: set[Kind] = set()
        self._probes = 0
        recorded = disk or folder / "disk"
        recorded.mkdir(exist_ok=True)
        self.webhook = Webhook()
        self.mqtt = Mqtt(folder / "broker") if MOSQUITTO else None
        self.controller = Controller()
        self.line = Line(
            folder,
            recorded,
            self.webhook,
            self.mqtt,
            self.controller,
            video=video,
        )

    def possible(self, kind: Kind) -> bool:
        """Tell whether this machine has what a kind of fault needs."""
        there = {"": True, "mqtt": self.mqtt, "disk": self._disk}
        return bool(there[kind.needs])

    def rounds(self, numbers: Iterator[int], kinds: tuple[Kind, ...], longest: float) -> Result:
        """Go through rounds, then end the line and count.

        Args:
            numbers: of the rounds.
            kinds: to draw from.
            longest: seconds that a fault lasts at most.
        """
        self._began = time.monotonic()
        with ExitStack() as closing:
            closing.callback(self._close)
            self.line.start()
            self._calm()
            for self._round in numbers:
                drawn = plan(self.seed, self._round, kinds, longest)  # the same on every machine
                planned = [one for one in drawn if self.possible(one.kind)]
                names = ", ".join(one.kind.name for one in planned)
                self._say(f"{self._moment:7.1f} s, round {self._round}: {names}")
                self._of_round = {one.kind for one in planned}
                self._disturb(planned)
                before = len(self.result.violations)
                self._calm()
                self._of_round = set()
                if len(self.result.violations) > before:  # the next round begins with a sound line
                    self.end_session(signal.SIGTERM)
                    self.line.start()
                    self._calm(told=False)
            self.end_session(signal.SIGTERM)
            self._settle()
            invariants.account(self)
        return self.result

    @property
    def _moment(self) -> float:
        return time.monotonic() - self._began

    def violated(self, invariant: str, what: str) -> None:
        """Note that an invariant does not hold."""
        found = Violation(self._round, self._moment, invariant, " ".join(what.split()))
        self.result.violations.append(found)
        self._say(f"{found.moment:7.1f} s, round {found.round}: NOT {invariant}: {found.what}")

    def expect(self, true: Callable[[], object], invariant: str, what: str) -> bool:
        """Wait for what has to come."""
        came = self.wait(true)
        if not came:
            self.violated(invariant, what)
        return came

    def wait(self, true: Callable[[], object], seconds: float | None = None) -> bool:
        """Wait, and keep everything going meanwhile."""
        end = time.monotonic() + (self.patience if seconds is None else seconds)
        while not true():
            if time.monotonic() > end:
                return False
            self.pause(STEP_SECONDS)
        return True

    def pause(self, seconds: float) -> None:
        """Let time go by: read what comes; a line that ended by itself is started."""
        end = time.monotonic() + seconds
        while True:
            self.line.pump()
            if self.mqtt is not None:
                self.mqtt.pump()
            code = self.line.session.running.process.poll()
            if code is not None and not self.line.session.ending:
                self._ended_by_itself(code)
            left = end - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, STEP_SECONDS))

    def _ended_by_itself(self, code: int) -> None:
        session = self.line.session
        refused = code == 2 and not session.up and any(kind.no_start for kind in self._of_round)
        session.ending = True
        session.killed = session.cut = True
        if not refused:
            said = session.running.said[-400:]
            self.violated("it ends when it is told to", f"exit code {code}: {said}")
        time.sleep(1.0)
        self.line.start()

    def probe(self) -> Probe:
        """Put an image into the watched folder; it appears complete."""
        self._probes += 1
        level = 40 + self._probes % 100
        image = np.full((SIDE, SIDE, 3), level - 8, np.uint8)
        image[::2] += 16
        path = self.line.watched / f"probe {self._probes}.png"
        hidden = path.with_name(f".{path.name}")
        hidden.write_bytes(cv2.imencode(".png", image)[1].tobytes())
        probe = Probe(self, path, level, time.monotonic())
        hidden.rename(path)
        return probe

    def _disturb(self, planned: list[Planned]) -> None:
        """Begin and end each fault at its time."""
        start = time.monotonic()
        undone: list[tuple[float, Kind, Undo]] = []
        waiting = sorted(planned, key=lambda one: one.offset)
        while waiting or undone:
            now = time.monotonic() - start
            if waiting and waiting[0].offset <= now:
                one = waiting.pop(0)
                self.result.faults[one.kind.name] += 1
                self._active.append(one.kind)
                began, session = time.monotonic(), self.line.session
                undo = one.kind.begin(self, random.Random(one.details))
                if undo is None:
                    self._active.remove(one.kind)
                else:
                    undo = self._watched(one.kind, session, began, undo)
                    undone.append((now + one.seconds, one.kind, undo))
            others = bool(waiting) or any(not kind.stays for _, kind, _ in undone)
            for end, kind, undo in list(undone):
                if end <= now and not (kind.stays and others):
                    undone.remove((end, kind, undo))
                    undo()
                    self._active.remove(kind)
            self.pause(STEP_SECONDS)

    def _watched(self, kind: Kind, session: Session, began: float, undo: Undo) -> Undo:
        """End a fault, after looking whether it was seen."""

        def end() -> None:
            # What another fault keeps from the sink cannot fail there.
            hidden = any(kind.shows in other.excuses for other in self._of_round - {kind})
            if kind.shows and not hidden and session is self.line.session and session.up:
                unseen = invariants.unseen(kind.shows, session, began, time.monotonic())
                if unseen:
                    self.violated("/healthz is true", f"during {kind.name!r} {unseen}")
            undo()

        return end

    def _calm(self, *, told: bool = True) -> None:
        """All faults are over: everything has to be well within the patience."""
        if not self.wait(lambda: self.line.session.up, START_SECONDS):
            self.violated("it starts", self.line.session.running.said[-400:])
        elif told:
            invariants.calm(self)
        else:  # what is still missing was told before
            self.wait(partial(self._all_came, invariants.wanted(self.line.out)))
        for file in self.line.watched.glob("probe *.png"):
            file.unlink()
        invariants.excused(self, self._of_round)

    def end_session(self, number: int, *, early: bool = False) -> None:
        """Stop or kill the line, and look at what it leaves."""
        session = self.line.session
        process = session.running.process
        if not early:
            self.wait(lambda: session.up or session is not self.line.session, START_SECONDS)
            session = self.line.session
            process = session.running.process
        session.ending = True
        disturbed = {kind.resource for kind in self._active}
        session.killed = number == signal.SIGKILL
        session.cut = session.killed or bool(disturbed & invariants.RECORDING)
        self.line.pump()
        with Stopwatch() as watch:
            process.send_signal(number)
            ended = True
            try:
                process.wait(self.patience)
            except TimeoutExpired:
                ended = False
                process.kill()
                process.wait()
        self.line.pump()
        if not ended:
            self.violated("it ends in time", f"{self.patience:g} s after signal {number}: running")
        elif number == signal.SIGTERM and watch.seconds > LONGEST_STOP:
            self.violated("it ends in time", f"SIGTERM took {watch}")
        if number == signal.SIGTERM and ended:
            invariants.clean_end(self, session, disturbed)
        invariants.memory(self, session)

    def _settle(self) -> None:
        """Start the line without a camera, on each folder, until all that was accepted is sent."""
        self.stuck.clear()
        for number, out in enumerate((*self.moved, self.line.out)):
            wanted = invariants.wanted(out)
            if wanted.missing(self):
                with self._silent_line(number, out):
                    self.wait(partial(self._all_came, wanted))

    def _all_came(self, wanted: invariants.Wanted) -> bool:
        return not wanted.missing(self)

    @contextmanager
    def _silent_line(self, number: int, out: Path) -> Iterator[None]:
        running = self.line.process(f"silent {number}", "silent.toml", out)
        try:
            yield
        finally:
            running.process.send_signal(signal.SIGTERM)
            running.process.wait(START_SECONDS)
            running.__exit__()

    def _close(self) -> None:
        self.line.close()
        self.webhook.mode = self.controller.mode = "take"
        self.webhook.refuse()
        self.controller.refuse()
        if self.mqtt is not None:
            self.mqtt.close()

    def coil_is_on(self) -> bool:
        """Tell whether the machine on the line is told to reject."""
        return self.controller.coils.get(Controller.REJECT, False)
