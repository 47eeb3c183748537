"""A build that shows how far it is and stops when asked to."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from hvq_edge.common.progress import ProgressCallback
from hvq_edge.export.build.build_progress import PhaseTree

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
        except BaseException as error:
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
            except BaseException as error:
                self.failures.append(error)

    return Monitor()
