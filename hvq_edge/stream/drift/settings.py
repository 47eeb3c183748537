"""Settings of the watch for drift: the table ``[drift]``."""

from __future__ import annotations

from pydantic import Field

from hvq_edge.common.records import StrictTypes


class DriftSettings(StrictTypes):
    """A table ``[drift]``."""

    watch: bool = True
    """Whether drift is looked for."""
    false_alarms: int = Field(100_000, ge=1000, le=10**12)
    """While nothing changes, one alarm in so many counted parts of a category at a camera, on
    average at most."""
    reference_parts: int = Field(100, ge=40, le=10_000)
    """So many passed parts show what is usual at this camera, after the start and after every
    acknowledgement."""
