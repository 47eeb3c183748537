"""What a threshold keeps to unless the user says otherwise; imports nothing, for the CLI."""

from __future__ import annotations

CONFIDENCE = 0.95
"""Of the upper bound of false rejects."""
FALSE_REJECT = 0.05
"""Rate that is asked for."""
