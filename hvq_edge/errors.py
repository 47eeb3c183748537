"""The one exception tree of hvq-edge.

::

    HvqEdgeError                    exit code 2
    ├── InputError                  something the user gave cannot be used
    │   ├── ImageError            an image file
    │   ├── DatasetError            a folder of images
    │   ├── SettingsError           a preset, a settings file or a flag
    │   ├── RunError                a training run's folder
    │   ├── CheckpointError         a checkpoint file
    │   └── BundleError             a bundle
    ├── OutputError                 a result cannot be written (full or read-only disk)
    ├── GateFailed                  exit code 1: a measured number is outside its limit
    └── MissingCapability           exit code 3: this machine lacks a device, driver or package
        └── ServerFailed            a server that judges is away or fails, and may come back

Every message says the cause in its first sentence; ``next_step`` says what to do or run next.
The command line prints both and ends with ``exit_code``.
"""

from __future__ import annotations

from hvq_edge.common.redaction import redacted_message


class HvqEdgeError(Exception):
    """Base class: ``cause`` is the message, ``next_step`` the remedy on a line of its own.

    Messages go to terminals, journals, the log and the page: credentials are taken out of each.
    """

    exit_code = 2

    def __init__(self, cause: str, *, next_step: str = "") -> None:
        if cause.endswith("..") and not cause.endswith("..."):  # a library has its own
            cause = cause[:-1]
        self.cause = redacted_message(cause)
        super().__init__(self.cause)
        self.next_step = redacted_message(next_step)

    def __str__(self) -> str:
        return f"{self.cause}\n  Next: {self.next_step}" if self.next_step else self.cause


class InputError(HvqEdgeError):
    """Something the user gave cannot be used."""


class ImageError(InputError):
    """An image cannot be read or is unfit (truncated, not an image, too small)."""


class DatasetError(InputError):
    """A folder does not hold what a dataset needs."""


class SettingsError(InputError):
    """One or more settings are wrong; the message lists all of them at once."""


class RunError(InputError):
    """A training run's folder is missing, incomplete or of another format."""


class CheckpointError(InputError):
    """A checkpoint file is not a plain tensor checkpoint of a known layout."""


class BundleError(InputError):
    """A bundle is missing, changed or of another format."""


class OutputError(HvqEdgeError):
    """A result cannot be written."""


class GateFailed(HvqEdgeError):
    """A measured number is outside its limit."""

    exit_code = 1


class MissingCapability(HvqEdgeError):
    """This machine lacks a device, driver or package that the command needs."""

    exit_code = 3


class ServerFailed(MissingCapability):
    """A server that judges for this machine is away, silent or fails; it may do so no longer."""
