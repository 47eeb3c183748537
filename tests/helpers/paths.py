"""Where the tests find what they read: the checkout, the recorded data, the helper scripts."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
DATA = TESTS / "data"
HELPERS = TESTS / "helpers"


def with_helpers() -> dict[str, str]:
    """Return the environment of a Python process that imports from ``helpers``."""
    return {**os.environ, "PYTHONPATH": str(TESTS)}
