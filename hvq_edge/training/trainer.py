"""The training loop on cached features, resumable at any moment."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from hvq_edge.errors import HvqEdgeError, RunError
from hvq_edge.model.codebook import Codebooks
from hvq_edge.model.hvq_trans import HVQTrans, Reconstruction
from hvq_edge.model.transport import conditional_loss, entropic_loss
from hvq_edge.run.settings import TrainingSettings
from hvq_edge.training import processes
from hvq_edge.training.batches import Images, shuffled_batches, to_tensor
from hvq_edge.training.codebook_start import revive_codes
from hvq_edge.training.training_state import STATE_NAME, Best, EpochResult, load_state, save_state

SAVE_EVERY_S = 15.0
"""A kill loses at most this much work and one epoch."""
REVIVE_UNTIL = 0.7
"""Share of the epochs after which codes are left to settle."""
LEAST_GAIN = 1e-3
"""A held-out loss that falls by less than this share has not fallen."""


class BatchLosses(NamedTuple):
    """Scalars of a batch."""

    feature: Tensor
    commitment: Tensor
    """Without its weight."""
    codebook: Tensor
    transport: Tensor
    """With the weights of its kinds and levels; zero where none is learnt from."""

    def total(self, latent_weight: float) -> Tensor:
        """What is minimised; ``latent_weight`` is that of the commitment."""
        weighted = self.feature + latent_weight * self.commitment
        return weighted + self.codebook + self.transport


class Losses(nn.Module):
    """The model's losses as a module's forward, which DistributedDataParallel needs."""

    def __init__(self, model: HVQTrans, settings: TrainingSettings) -> None:
        super().__init__()
        self.model = model
        self.settings = settings

    def forward(self, features: Tensor, category: Tensor) -> BatchLosses:
        """``[b, l, c]`` and int64 ``[b]`` -> losses."""
        rebuilt = self.model.reconstruct(features, category)
        of_features = feature_loss(rebuilt.features, features)
        transport = of_features.new_zeros(())
        if self.settings.has_transport_loss:
            transport = self._transport(rebuilt, category)
        return BatchLosses(of_features, rebuilt.commitment, rebuilt.codebook_loss, transport)

    def _transport(self, rebuilt: Reconstruction, category: Tensor) -> Tensor:
        settings, model = self.settings, self.model
        temperature = settings.transport_loss_temperature or model.settings.width / 16
        total = rebuilt.commitment.new_zeros(())
        for level, tokens in enumerate(rebuilt.tokens):
            factor = (settings.transport_loss_levels or (1.0,) * len(rebuilt.tokens))[level]
            if not factor:
                continue
            codes = model.codes_of(level, category)
            if weight := factor * settings.conditional_transport_weight:
                total = total + weight * conditional_loss(tokens, codes, temperature)
            if weight := factor * settings.entropic_transport_weight:
                usage = None
                if settings.transport_loss_masses == "usage":
                    usage = cast("Codebooks", model.codebooks[level]).usage[category]
                cost = entropic_loss(tokens, codes, settings.transport_loss_epsilon, usage)
                total = total + weight * cost
        return total


def feature_loss(rebuilt: Tensor, features: Tensor) -> Tensor:
    """Mean squared error, ``[b, l, c]`` each -> scalar."""
    return (rebuilt - features).square().mean()


def train_epochs(
    run: Path,
    model: HVQTrans,
    fit: Images,
    held_out: Images,
    settings: TrainingSettings,
    on_epoch: Callable[[EpochResult], None] = lambda _: None,
) -> EpochResult:
    """Train until the last epoch, from ``training_state.pt`` where there is one.

    A training that was killed and resumed gives the same weights, bit for bit on a CPU, as one
    that was not: batch order and dropout depend on seed and epoch alone.

    Args:
        run: folder of the run.
        model: trained in place.
        fit: images to learn from.
        held_out: images whose loss decides when to stop.
        settings: of the training.
        on_epoch: called after each epoch.

    Returns:
        The result of the epoch whose weights were kept: the last, or the best where training
        stopped early.

    Raises:
        HvqEdgeError: the loss is not finite.
        OutputError: the state cannot be written.
        CheckpointError, RunError: the state to resume from is damaged or of other settings.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = new_optimizer(model, settings)
    losses = processes.shared(Losses(model, settings))
    path = run / STATE_NAME
    result, best = load_state(path, model, optimizer) if path.exists() else (None, None)
    saved_at = time.monotonic()
    for epoch in range(result.epoch if result else 0, settings.epochs):
        if (
            best is not None
            and settings.patience
            and epoch - best.result.epoch >= settings.patience
        ):
            break
        began = time.perf_counter()
        model.train()
        trained = _train_one_epoch(model, losses, optimizer, parameters, fit, settings, epoch)
        revived = 0
        if settings.revive_codes and epoch + 1 < REVIVE_UNTIL * settings.epochs:
            seed = settings.seed * 1_000_003 + epoch
            revived = revive_codes(model, fit.features, fit.category, seed)
        seconds = time.perf_counter() - began
        result = EpochResult(
            epoch=epoch + 1,
            feature_loss=trained.feature,
            commitment=trained.commitment,
            transport=trained.transport,
            held_out_loss=held_out_loss(model, held_out, settings.batch_size),
            revived=revived,
            images_per_second=len(fit.features) / seconds,
        )
        if best is None or result.held_out_loss < (1 - LEAST_GAIN) * best.result.held_out_loss:
            best = Best.of(model, result)
        on_epoch(result)
        due = time.monotonic() - saved_at > SAVE_EVERY_S or epoch + 1 == settings.epochs
        if due and processes.rank() == 0:
            save_state(path, model, optimizer, result, best)
            saved_at = time.monotonic()
    model.eval()
    if result is None or best is None:
        raise RunError(f"{path} records no epoch.", next_step="delete it and train again")
    if result.epoch < settings.epochs:  # stopped early
        best.restore(model)
        return best.result
    return result


def new_optimizer(model: HVQTrans, settings: TrainingSettings) -> torch.optim.Optimizer:
    """Make the optimiser of a model's parameters; codes among them are places and do not decay."""
    decaying: list[nn.Parameter] = []
    codes: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (codes if name.startswith("codebooks.") else decaying).append(parameter)
    groups: list[dict[str, Any]] = [{"params": decaying}]
    if codes:
        groups.append({"params": codes, "weight_decay": 0.0})
    return torch.optim.AdamW(groups, settings.learning_rate, weight_decay=settings.weight_decay)


class _Means(NamedTuple):
    """Losses of an epoch, averaged over its images; named as in :class:`BatchLosses`."""

    feature: float
    commitment: float
    codebook: float
    transport: float


def _train_one_epoch(
    model: HVQTrans,
    losses: nn.Module,
    optimizer: torch.optim.Optimizer,
    parameters: list[nn.Parameter],
    fit: Images,
    settings: TrainingSettings,
    epoch: int,
) -> _Means:
    rank, count = processes.rank(), processes.count()
    torch.manual_seed(settings.seed * 1_000_003 + epoch + 10**16 * rank)  # dropout
    device = model.feature_mean.device
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=uses_bfloat16(settings, device))
    images = len(fit.features)
    steps = math.ceil(images / settings.batch_size)
    totals = torch.zeros(len(_Means._fields) + 1, dtype=torch.float64)
    batches = shuffled_batches(images, settings.batch_size, settings.seed, epoch)
    for step, chosen in enumerate(batches):
        if len(chosen) < count:
            continue  # a rest too small to go round
        own = chosen[rank::count]
        rate = settings.learning_rate * rate_factor(settings, epoch + step / steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        label = torch.from_numpy(fit.category[own]).to(device)
        batch = to_tensor(model, fit.features[own])
        with autocast:
            found: BatchLosses = losses(batch, label)
        loss = found.total(settings.latent_weight)
        everywhere = processes.summed(loss.detach()) / count
        if not torch.isfinite(everywhere):
            raise HvqEdgeError(
                f"the training loss is {everywhere.item()} in epoch {epoch + 1}: training "
                "diverged.",
                next_step="train again with a lower --learning-rate",
            )
        optimizer.zero_grad(set_to_none=True)
        # Gradients are averaged over the processes: each counts by its share of the batch.
        (loss * (len(own) * count / len(chosen))).backward()
        nn.utils.clip_grad_norm_(parameters, settings.gradient_clip)
        optimizer.step()
        totals += len(own) * torch.tensor([*(one.item() for one in found), 1.0])
    *sums, seen = processes.summed(totals.to(device)).tolist()
    return _Means(*(one / seen for one in sums))


@torch.no_grad()
def held_out_loss(model: HVQTrans, images: Images, batch_size: int) -> float:
    """Mean squared error of the features of images that were not learnt from."""
    model.eval()
    rank, count = processes.rank(), processes.count()
    total = torch.zeros((), dtype=torch.float64, device=model.feature_mean.device)
    for start in range(rank * batch_size, len(images.features), count * batch_size):
        chosen = slice(start, start + batch_size)
        batch = to_tensor(model, images.features[chosen])
        label = torch.from_numpy(images.category[chosen]).to(batch.device)
        rebuilt = model.reconstruct(batch, label).features
        total += (rebuilt - batch).square().mean().item() * len(batch)
    # The sum is the same number in every process: all stop at the same epoch.
    return processes.summed(total).item() / len(images.features)


def uses_bfloat16(settings: TrainingSettings, device: torch.device) -> bool:
    """Whether training multiplies in bfloat16 on this device."""
    if settings.autocast != "auto":
        return settings.autocast == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Without these instructions bfloat16 is emulated, and slower than float32. Of an older PyTorch,
    # which does not tell, none is assumed.
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return False
    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in ("amx_bf16", "avx512_bf16"))


def rate_factor(settings: TrainingSettings, progress: float) -> float:
    """Return the learning rate's factor after ``progress`` epochs (a fraction counts)."""
    if settings.schedule == "step":
        return 1.0 if progress < 0.8 * settings.epochs else 0.1
    warm_up = min(1.0, progress + 0.05)
    return warm_up * (0.01 + 0.99 * (1 + math.cos(math.pi * progress / settings.epochs)) / 2)
