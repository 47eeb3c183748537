"""Where PyTorch is not installed, what needs it is skipped, and everything else runs.

Only an import by a test or by a room that may use PyTorch counts. Where the code of a device asks
for it, the test fails: that it does not is what such an environment is for.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

REASON = "needs PyTorch, which is not installed"
ROOMS = ("model", "training", "evaluation", "export", "calibration")
"""Rooms that may use it, as ``tests/test_import_rules.py`` has them."""


def lacks_torch(error: BaseException | None) -> bool:
    """Tell whether this came of an import of PyTorch that is no fault."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] == "torch":
            return _may_import_it(error)
        error = error.__cause__ or error.__context__
    return False


def _may_import_it(error: ModuleNotFoundError) -> bool:
    """Tell whether the last of our files on the way to it is a test or of such a room."""
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        parts = Path(frame.f_code.co_filename).parts
        if "hvq_edge" in parts:
            inside = parts[len(parts) - parts[::-1].index("hvq_edge") :]
            return inside[0] in (*ROOMS, "tests") or inside[-1] == "torch_engine.py"
        if "tests" in parts:
            return True
    return False


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """Pass over a file whose imports need it."""
    report = yield
    call = getattr(report, "call", None)
    if report.failed and call is not None and lacks_torch(call.excinfo.value):
        report.outcome = "skipped"
        report.longrepr = (str(collector.path), 0, f"Skipped: {REASON}")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Iterator[None]:
    """Pass over a test that needs it, or that has a fixture that does."""
    report = yield
    if report.failed and call.excinfo is not None and lacks_torch(call.excinfo.value):
        report.outcome = "skipped"
        report.longrepr = (str(item.path), item.location[1] or 0, f"Skipped: {REASON}")
    return report
