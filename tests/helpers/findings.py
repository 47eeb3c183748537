"""What `hvq-edge doctor` found, to be looked up."""

from __future__ import annotations

from hvq_edge.doctor.finding import CheckResult


def by_name(findings) -> dict[str, CheckResult]:
    return {one.name: one for one in findings}
