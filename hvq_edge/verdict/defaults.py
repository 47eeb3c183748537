"""What a threshold promises unless the user says otherwise; imports nothing, for the CLI."""

from __future__ import annotations

CONFIDENCE = 0.95
"""With which a rate is promised."""
FALSE_REJECT = 0.05
"""Rate that is asked for."""
