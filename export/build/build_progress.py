"""How far a build is, from the phases that TensorRT's progress monitor reports.

Phases nest: each has a number of steps, and a phase inside another takes up one of its steps.
https://docs.nvidia.com/deeplearning/tensorrt/latest/_static/python-api/infer/Core/ProgressMonitor.html
"""

from __future__ import annotations

from dataclasses import dataclass


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
