"""What a check of a GPU found, did not find, or could not run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from hvq_edge.errors import HvqEdgeError, MissingCapability, SettingsError

State = Literal["ok", "failed", "not run"]


@dataclass(frozen=True)
class Finding:
    """One line of the result."""

    what: str
    state: State
    value: str = ""
    """A number with its unit, or what happened; for ``failed`` and ``not run`` the reason."""
    number: float | None = None
    """The number alone, for machines."""


def attempt(what: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """Run a check: one that raises is a finding too, so that the others are still made.

    Args:
        what: what the check is called where it fails as a whole.
        check: gives findings; what it gave before it raised is kept.
    """
    try:
        yield from check()
    except (MissingCapability, SettingsError) as error:  # not installed, or not for this GPU
        yield Finding(what, "not run", error.cause)
    except ImportError as error:
        yield Finding(what, "not run", str(error))
    except HvqEdgeError as error:
        yield Finding(what, "failed", error.cause)
    except Exception as error:  # of any library: it is what this script is for
        lines = str(error).splitlines() or [""]
        yield Finding(what, "failed", f"{type(error).__name__}: {lines[0]}")
