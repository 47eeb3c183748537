"""TensorBoard events of a training run, in RUN/events: ``tensorboard --logdir runs`` shows them.

Written by PyTorch's own ``SummaryWriter``, which needs the ``tensorboard`` package and nothing of
TensorFlow or torchvision; that package also brings the viewer.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hvq_edge.common.atomic import output_error
from hvq_edge.common.closeable import Closeable
from hvq_edge.model.codebook import Codebooks, perplexity
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.run.settings import TrainingSettings
from hvq_edge.training.trainer import rate_factor
from hvq_edge.training.training_state import EpochResult

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)

EVENTS_FOLDER = "events"
UNUSED_USAGE = 1e-3
"""Tokens an image, on average, below which a code counts as unused."""


class EventLog(Closeable):
    """Writes scalars by epoch, each on disk when :meth:`write` returns.

    Curves are for looking at: without the ``tensorboard`` package, or where its files cannot be
    written, training goes on without them, and a warning says so.

    Args:
        folder: of the event files; made if absent. Files already there are kept.
        first_epoch: the first epoch that will be written, counted from one. What an earlier,
            interrupted training wrote from there on is hidden by TensorBoard (purged), so a
            resumed run shows each epoch once.
    """

    def __init__(self, folder: Path, first_epoch: int) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = None
        try:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder), purge_step=first_epoch)
        except ImportError:
            logger.warning(
                "No TensorBoard events are written: the package tensorboard is not installed "
                "(pip install tensorboard)."
            )
        except OSError as error:
            self._give_up(error)

    def write(self, epoch: int, scalars: Mapping[str, float]) -> None:
        """Write one epoch's scalars.

        Args:
            epoch: counted from one; the step of the curves.
            scalars: by tag. A slash groups curves: ``loss/feature``, ``loss/commitment``,
                ``codes/revived``.
        """
        if self._writer is None:
            return
        try:
            for tag, value in scalars.items():
                self._writer.add_scalar(tag, value, epoch)
            self._writer.flush()
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Finish the event file; further writes are ignored."""
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                writer.close()
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        # The writer is dropped, not closed: closing would flush, and fail, again.
        self._writer = None
        logger.warning("TensorBoard events end here: %s", output_error(self._folder, error).cause)


def scalars_of(
    model: HVQTrans, result: EpochResult, training: TrainingSettings
) -> dict[str, float]:
    """Return what is written of an epoch, by tag."""
    used = {}
    for level, books in enumerate(cast("list[Codebooks]", list(model.codebooks))):
        usage = books.usage
        used[f"codes/used at level {level}"] = float((usage > UNUSED_USAGE).float().mean())
        used[f"codes/perplexity at level {level}"] = float(perplexity(usage).mean())
    return {
        "loss/feature": result.feature_loss,
        "loss/feature held out": result.held_out_loss,
        "loss/commitment": result.commitment,
        **({"loss/transport": result.transport} if training.has_transport_loss else {}),
        "training/learning rate": training.learning_rate * rate_factor(training, result.epoch),
        "training/images per second": result.images_per_second,
        "codes/revived": result.revived,
        **used,
    }
