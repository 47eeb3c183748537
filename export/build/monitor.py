"""A build that shows how far it is and stops when asked to.

TensorRT's progress monitor reports phases. They nest: each has a number of steps, and a phase
inside another takes up one of its steps.
https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/python-api/infer/Core/ProgressMonitor.html
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from hvq_edge.common.progress import ProgressCallback

Result = TypeVar("Result")


def interruptible(work: Callable[[threading.Event], Result]) -> Result:
    """Work in a thread of its own, so that the main one hears of Ctrl-C.

    In the main thread Ctrl-C would be raised inside one of the library's calls to us, and lost
    there, or end the library in undefined ways. While ``work`` runs, Ctrl-C only asks it to stop,
    however often it is pressed: raised anywhere here, it would leave ``work`` running on its own.

    Args:
        work: called with an event that is set when it should stop.

    Returns:
        What ``work`` returned.

    Raises:
        KeyboardInterrupt: the user stopped it; ``work`` has ended by then.
        BaseException: whatever ``work`` raised.
    """
    cancelled = threading.Event()
    results: list[Result] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work(cancelled))
        except BaseException as error:  # noqa: BLE001  # raised again where it was waited for
            failures.append(error)

    with _ctrl_c_sets(cancelled):
        thread = threading.Thread(target=run, name="engine build")
        thread.start()
        thread.join()
    if cancelled.is_set():
        raise KeyboardInterrupt
    if failures:
        raise failures[0]
    return results[0]


@contextmanager
def _ctrl_c_sets(event: threading.Event) -> Iterator[None]:
    former = signal.getsignal(signal.SIGINT)
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or not callable(former):  # nobody hears it here, or it is ignored
        yield
        return
    signal.signal(signal.SIGINT, lambda _number, _frame: event.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class PhaseTree:
    """Follows the phases of one build."""

    def __init__(self) -> None:
        self._phases: dict[str, _Phase] = {}
        self._furthest = 0.0
        self.current = ""
        """Name of the phase that began or went on last."""

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Begin a phase; one of the same name begins anew."""
        self._phases[name] = _Phase(parent, max(steps, 1))
        self.current = name

    def step(self, name: str, step: int) -> None:
        """Note that the step with this index, from 0, is complete."""
        phase = self._phases.get(name)
        if phase is not None:
            phase.done = max(phase.done, min(step + 1, phase.steps))
            self.current = name

    def finish(self, name: str) -> None:
        """End a phase, whether or not all of its steps were reported."""
        phase = self._phases.pop(name, None)
        if phase is None:
            return
        if phase.parent is None:
            self._furthest = 1.0
        else:
            self.current = phase.parent

    def fraction(self) -> float:
        """Return how much of the build is done, 0 to 1; it never goes back."""
        outermost = [name for name, phase in self._phases.items() if phase.parent is None]
        now = max((self._fraction_of(name) for name in outermost), default=0.0)
        self._furthest = max(self._furthest, now)
        return self._furthest

    def _fraction_of(self, name: str) -> float:
        phase = self._phases[name]
        inside = [other for other, one in self._phases.items() if one.parent == name]
        within = max((self._fraction_of(other) for other in inside), default=0.0)
        return min(phase.done + within, phase.steps) / phase.steps


def build_monitor(
    module: Any,  # noqa: ANN401
    stage: str,
    on_progress: ProgressCallback,
    cancelled: threading.Event,
) -> Any:  # noqa: ANN401
    """Return an ``IProgressMonitor`` that reports per cent of the build.

    Its list ``failures`` has what ``on_progress`` raised: that must not pass through the library's
    own code, so it cancels the build.

    Args:
        module: ``tensorrt`` or ``tensorrt_rtx``.
        stage: name of the bar.
        on_progress: called where per cent or phase changed, from the library's threads.
        cancelled: when set, the builder stops at its next step.
    """

    class Monitor(module.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)  # pybind11 wants it by name
            self.failures: list[BaseException] = []
            self._phases = PhaseTree()
            self._said = (-1, "")
            self._lock = threading.Lock()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                self._phases.start(phase_name, parent_phase, num_steps)
                self._report()

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self._lock:
                self._phases.step(phase_name, step)
                self._report()
            return not (cancelled.is_set() or self.failures)

        def phase_finish(self, phase_name: str) -> None:
            with self._lock:
                self._phases.finish(phase_name)
                self._report()

        def _report(self) -> None:
            # 100 is said once the plan is there.
            now = (min(int(100 * self._phases.fraction()), 99), self._phases.current)
            if now == self._said or self.failures:
                return
            self._said = now
            try:
                on_progress(stage, now[0], 100, now[1])
            except BaseException as error:  # noqa: BLE001  # TensorRT could not pass it on
                self.failures.append(error)

    return Monitor()
