"""A line of the doctor's table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from hvq_edge.common.redaction import redacted_message

State = Literal["ok", "note", "missing"]
"""``missing`` is red: something that hvq-edge could use here and cannot. ``note`` is worth a look,
or of no use on this machine."""


@dataclass(frozen=True)
class CheckResult:
    """What one check found."""

    name: str
    """Short, and the same on every machine: ``--require`` takes it."""
    state: State
    found: str
    """What was found, in words."""
    remedy: str = ""
    """What to run or do; never empty for ``missing``."""

    def __post_init__(self) -> None:
        if self.state == "missing" and not self.remedy:
            raise ValueError(f"{self.name}: what is missing needs a remedy")
        object.__setattr__(self, "found", redacted_message(self.found))

    def to_json(self) -> dict[str, str]:
        """Return it for ``--json``."""
        return asdict(self)


@dataclass(frozen=True)
class Check:
    """Something to look at."""

    name: str
    look: Callable[[], Sequence[CheckResult]]
    """Gives findings whose names begin with the check's; may raise anything."""


def examine(checks: Sequence[Check]) -> list[CheckResult]:
    """Run checks, each for itself: one that fails is a finding, and the others still run."""
    findings: list[CheckResult] = []
    for check in checks:
        try:
            findings += check.look()
        except Exception as error:  # noqa: BLE001  # of any library: the table must come out whole
            first = (str(error).splitlines() or [""])[0]
            findings.append(
                CheckResult(
                    check.name,
                    "missing",
                    f"could not be looked at: {type(error).__name__} {first}".rstrip(),
                    "please report this with the output of hvq-edge doctor --json",
                )
            )
    return findings
