"""What became of a run's categories since its training; its bundles have it on record as well.

Apart from the run's record, for a bundle is opened where nothing of the training is loaded.
"""

from __future__ import annotations

from typing import Literal

from hvq_edge.common.records import Strict
from hvq_edge.common.wording import counted


class CategoryChange(Strict):
    """A category that was added to a finished run, taken out of it, or given another name."""

    what: Literal["added", "removed", "renamed"]
    category: str
    """Its name; of a renamed one the new name."""
    former_name: str | None = None
    """Of a renamed one."""
    created: str
    """ISO 8601, UTC."""
    from_checkpoint: str
    """SHA-256 of the checkpoint before."""
    images: int = 0
    """Good images of an added one, those held out among them."""

    @property
    def sentence(self) -> str:
        """What was done, for the user."""
        day = self.created[:10]
        if self.what == "renamed":
            return f"{day}: {self.former_name} was given the name {self.category}."
        if self.what == "removed":
            return f"{day}: {self.category} was taken out."
        return (
            f"{day}: {self.category} was added to the trained network, with "
            f"{counted(self.images, 'good image')}."
        )
