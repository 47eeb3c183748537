"""The PyTorch model as an engine: the reference for all others.

PyTorch is imported when an engine is made, never when this file is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvq_edge.bundle.opened import Bundle
from hvq_edge.common.closeable import Closeable
from hvq_edge.common.extras import require
from hvq_edge.runtime.contract import (
    check_category,
    check_frames,
    check_threads,
    closed_error,
)
from hvq_edge.runtime.cpu.processor import processor_name
from hvq_edge.runtime.engine import EngineInfo, EngineOutput, Frames


class TorchEngine(Closeable):
    """Runs a training run's model with PyTorch in float32.

    Its category mode is ``auto`` where the model has a classifier of its own, else ``input``; in
    either mode :meth:`run` takes ``category``. Any number of threads may call :meth:`run` at once.
    On a GPU, convolutions of the whole process are set to full float32.

    Args:
        run: folder of a finished training run.
        device: a PyTorch device, or ``auto``: the GPU where there is one.
        threads: threads of PyTorch in this whole process; ``None`` leaves them as they are.
        bundle: that was exported from it: the model gets the prototypes that it has learnt since.

    Raises:
        MissingCapability: PyTorch is not installed, or has no such device.
        RunError: no finished run there.
        CheckpointError: its checkpoint cannot be used.
        SettingsError: ``threads`` is less than one.
    """

    def __init__(
        self,
        run: Path,
        *,
        device: str = "auto",
        threads: int | None = None,
        bundle: Bundle | None = None,
    ) -> None:
        check_threads(threads)
        require("torch")
        import torch

        from hvq_edge.model.checkpoint import load_run
        from hvq_edge.model.device import choose_device

        device = choose_device(device)
        if threads is not None:
            torch.set_num_threads(threads)
        # TF32 convolutions are PyTorch's default on NVIDIA GPUs; a reference is full float32.
        torch.backends.cudnn.allow_tf32 = False
        model, record = load_run(run, device=device, bundle=bundle)
        self._torch = torch
        self._device = device
        self._model: Any = model
        name = torch.cuda.get_device_name(device) if "cuda" in device else processor_name()
        self.info = EngineInfo(
            backend="torch",
            precision="fp32",
            device=f"{name}, PyTorch {torch.__version__}",
            frame_shape=model.tiling.frame_shape,
            categories=record.categories,
            category_mode="auto" if bool(model.classifier.fitted) else "input",
        )

    def run(self, frames: Frames, category: NDArray[np.int32] | None = None) -> EngineOutput:
        """Judge a batch; see :meth:`hvq_edge.runtime.engine.Engine.run`.

        Args:
            frames: uint8 ``[batch, height, width, 3]``, RGB.
            category: int32 ``[batch]``; ``None``: the model chooses.

        Raises:
            InputError: frames or categories of another shape, dtype or range.
            CheckpointError: ``category`` is ``None`` and the model cannot choose.
        """
        model, torch = self._model, self._torch  # held here: close() elsewhere cannot free it
        if model is None:
            raise closed_error()
        checked = check_frames(frames, self.info)
        chosen = None
        if category is not None:
            chosen = check_category(category, len(checked), self.info)
            chosen = torch.tensor(chosen, device=self._device, dtype=torch.int64)
        with torch.inference_mode():
            output = model(torch.tensor(checked, device=self._device), chosen)
        return EngineOutput(
            score=output["score"].cpu().numpy().astype(np.float32, copy=False),
            map=output["map"].cpu().numpy().astype(np.float32, copy=False),
            codes=output["codes"].cpu().numpy().astype(np.int32, copy=False),
            category=output["category"].cpu().numpy().astype(np.int32, copy=False),
            margin=output["margin"].cpu().numpy().astype(np.float32, copy=False),
        )

    def close(self) -> None:
        """Free the model once no :meth:`run` uses it; calling it twice is fine."""
        self._model = None
