"""Early stop, autocast and events: what a training does besides learning."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn import functional as F

from hvq_edge.model import HVQTrans, load_run
from hvq_edge.model.codebook import nearest_code
from hvq_edge.model.transformer import Attention
from hvq_edge.run.settings import Settings, TrainingSettings, load_settings
from hvq_edge.training import trainer
from hvq_edge.training.batches import Images
from hvq_edge.training.codebook_start import start_codebooks
from hvq_edge.training.statistics import fit_feature_statistics
from hvq_edge.training.train_run import continue_run, start_run
from hvq_edge.training.trainer import held_out_loss, train_epochs, uses_bfloat16
from hvq_edge.training.training_state import STATE_NAME, EpochResult

SMALL = {"input_side": 64, "width": 16, "heads": 2, "feedforward": 32, "layers": 2, "codes": 16}
CATEGORY = np.arange(8) % 2


class Killed(BaseException):
    """Not an Exception: nothing on the way may catch it, as nothing catches SIGKILL."""


def settings_with(**training) -> Settings:
    return load_settings("tiny", model=SMALL, training={"batch_size": 4, "versions": 1, **training})


def small_model() -> HVQTrans:
    torch.manual_seed(0)
    return HVQTrans(settings_with().model, 2)


def images_of(model: HVQTrans, seed: int, spread: float = 2.0) -> Images:
    shape = (8, model.settings.grid**2, model.raw_channels)
    features = np.random.default_rng(seed).normal(3.0, spread, shape)
    return Images(features.astype(np.float16), CATEGORY)


def losses_given(monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> None:
    """Let the held-out loss of each epoch be the next of a list."""
    coming = iter(losses)
    monkeypatch.setattr(trainer, "held_out_loss", lambda *_: next(coming))


def trained(
    run: Path, settings: TrainingSettings, stop_after: int | None = None
) -> tuple[EpochResult, dict[str, torch.Tensor], list[EpochResult], list[torch.Tensor]]:
    """What was kept, its weights, every epoch's result, and a weight after every epoch."""
    model = small_model()
    fit = images_of(model, 0)
    fit_feature_statistics(model, fit.features)
    start_codebooks(model, fit.features, fit.category, seed=0)
    seen: list[EpochResult] = []
    weights: list[torch.Tensor] = []

    def on_epoch(result: EpochResult) -> None:
        seen.append(result)
        weights.append(model.output_weight.detach().clone())
        if result.epoch == stop_after:
            raise Killed

    kept = train_epochs(run, model, fit, images_of(model, 1), settings, on_epoch)
    return kept, model.state_dict(), seen, weights


# Early stop.


def test_it_stops_after_patience_with_the_best_epoch_s_weights(tmp_path, monkeypatch):
    losses_given(monkeypatch, [5.0, 3.0, 2.0, 2.5, 2.5, 2.5, 9.9])
    kept, state, seen, weights = trained(tmp_path, settings_with(epochs=40, patience=3).training)
    assert [result.epoch for result in seen] == [1, 2, 3, 4, 5, 6]
    assert (kept.epoch, kept.held_out_loss) == (3, 2.0)
    assert kept == seen[2]
    assert torch.equal(state["output_weight"], weights[2])
    assert not torch.equal(state["output_weight"], weights[5])


def test_a_fall_too_small_to_see_is_none(tmp_path, monkeypatch):
    losses_given(monkeypatch, [2.0, 1.9999, 1.9995, 1.9])
    kept, _, seen, _ = trained(tmp_path, settings_with(epochs=40, patience=2).training)
    assert (kept.epoch, len(seen)) == (1, 3)


def test_each_fall_begins_the_patience_anew(tmp_path, monkeypatch):
    losses_given(monkeypatch, [5, 6, 4, 6, 3, 6, 6])
    kept, _, seen, _ = trained(tmp_path, settings_with(epochs=40, patience=2).training)
    assert (kept.epoch, len(seen)) == (5, 7)


@pytest.mark.parametrize("patience", [0, 100])
def test_without_patience_or_with_much_all_epochs_run_and_the_last_counts(
    patience, tmp_path, monkeypatch
):
    losses_given(monkeypatch, [1.0, *[2.0] * 5])
    kept, state, seen, weights = trained(
        tmp_path, settings_with(epochs=6, patience=patience).training
    )
    assert len(seen) == 6
    assert kept == seen[-1]
    assert torch.equal(state["output_weight"], weights[-1])


def test_a_real_held_out_loss_that_cannot_fall_stops_a_run(tmp_path):
    """What is learnt of one set of noise says nothing of another, of three times the size."""
    model = small_model()
    fit, held_out = images_of(model, 0), images_of(model, 1, spread=6.0)
    fit_feature_statistics(model, fit.features)
    seen: list[EpochResult] = []
    settings = settings_with(epochs=200, patience=3, learning_rate=0.02).training
    kept = train_epochs(tmp_path, model, fit, held_out, settings, seen.append)
    assert kept.epoch == len(seen) - 3 < 150
    assert kept.held_out_loss == min(result.held_out_loss for result in seen[: kept.epoch])
    # The weights are those of that epoch: they give its loss again.
    assert held_out_loss(model, held_out, 4) == pytest.approx(kept.held_out_loss, rel=1e-6)


HELD_OUT_LOSSES = [5.0, 3.0, 2.0, 2.5, 2.5, 2.5, 9.9]


@pytest.fixture(scope="module")
def never_killed(tmp_path_factory) -> tuple[EpochResult, dict[str, torch.Tensor]]:
    """What a training with those losses keeps, and its weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "SAVE_EVERY_S", 0.0)
        losses_given(patch, HELD_OUT_LOSSES)
        settings = settings_with(epochs=40, patience=3).training
        return trained(tmp_path_factory.mktemp("whole"), settings)[:2]


@pytest.mark.parametrize("killed_after", [2, 3, 4, 5, 6])
def test_killed_and_resumed_it_stops_at_the_same_epoch(
    killed_after, never_killed, tmp_path, monkeypatch
):
    monkeypatch.setattr(trainer, "SAVE_EVERY_S", 0.0)
    settings = settings_with(epochs=40, patience=3).training
    expected, whole = never_killed
    losses_given(monkeypatch, HELD_OUT_LOSSES)
    with pytest.raises(Killed):  # before that epoch is saved
        trained(tmp_path, settings, stop_after=killed_after)
    losses_given(monkeypatch, HELD_OUT_LOSSES[killed_after - 1 :])
    kept, resumed, seen, _ = trained(tmp_path, settings)
    assert [result.epoch for result in seen] == list(range(killed_after, 7))
    assert kept.epoch == expected.epoch == 3
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_killed_after_it_stopped_it_does_not_train_on(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "SAVE_EVERY_S", 0.0)
    settings = settings_with(epochs=40, patience=2).training
    losses_given(monkeypatch, [3.0, 4.0, 4.0])
    first, weights, _, _ = trained(tmp_path, settings)
    assert (tmp_path / STATE_NAME).exists()
    losses_given(monkeypatch, [])
    kept, again, seen, _ = trained(tmp_path, settings)
    assert seen == []
    assert kept == first
    assert all(torch.equal(again[name], weights[name]) for name in weights)


def test_the_run_says_which_epoch_it_kept(mvtec_folder, tmp_path, monkeypatch):
    run = tmp_path / "run"
    losses_given(monkeypatch, [3.0, 2.0, 4.0, 4.0])
    start_run(mvtec_folder, run, settings_with(epochs=20, patience=2))
    record = continue_run(run, device="cpu")
    assert record.epochs_done == 2
    assert record.metrics["held_out_loss"] == 2.0
    assert load_run(run)[1] == record
    assert not (run / STATE_NAME).exists()


# Events.


def test_each_epoch_stands_in_the_events_once_also_after_a_kill(
    mvtec_folder, tmp_path, monkeypatch
):
    """Killed in epoch 5 with the state of epoch 3: 4 is trained, and written, twice."""
    run = tmp_path / "run"
    start_run(mvtec_folder, run, settings_with(epochs=7))
    saves = iter(range(1, 100))
    save = trainer.save_state

    def save_until_epoch_3(*arguments):
        if next(saves) <= 3:
            save(*arguments)

    def kill(stage, done, total, note=""):
        if (stage, done) == ("training", 5):
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "SAVE_EVERY_S", 0.0)
        patch.setattr(trainer, "save_state", save_until_epoch_3)
        with pytest.raises(Killed):
            continue_run(run, device="cpu", on_progress=kill)
    (file,) = (run / "events").iterdir()
    # TensorBoard reads files in the order of the second in their name.
    second = file.name.split(".")[3]
    file.rename(file.with_name(file.name.replace(second, str(int(second) - 60))))
    record = continue_run(run, device="cpu")
    events = EventAccumulator(str(run / "events"))
    events.Reload()
    tags = events.Tags()["scalars"]
    assert {"loss/feature", "loss/feature held out", "codes/used at level 2"} <= set(tags)
    for tag in tags:
        assert [event.step for event in events.Scalars(tag)] == [1, 2, 3, 4, 5, 6, 7], tag
    last = events.Scalars("loss/feature held out")[-1].value
    assert last == pytest.approx(record.metrics["held_out_loss"], rel=1e-6)
    rates = [event.value for event in events.Scalars("training/learning rate")]
    assert all(after < before for before, after in pairwise(rates))


def test_a_run_without_tensorboard_trains(mvtec_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    run = tmp_path / "run"
    start_run(mvtec_folder, run, settings_with(epochs=1))
    assert continue_run(run, device="cpu").epochs_done == 1
    assert not (run / "events").exists()


# Autocast.


def test_bfloat16_learns_as_float32_does(tmp_path):
    losses, usage = {}, {}
    for autocast in ("off", "bfloat16"):
        (tmp_path / autocast).mkdir()
        settings = settings_with(epochs=8, autocast=autocast, revive_codes=False).training
        kept, state, seen, _ = trained(tmp_path / autocast, settings)
        losses[autocast] = [result.feature_loss for result in seen]
        usage[autocast] = state["codebooks.2.usage"].sum(1)
        assert np.isfinite(kept.held_out_loss)
        floats = [value for value in state.values() if value.is_floating_point()]
        assert all(value.dtype == torch.float32 for value in floats)
        assert all(torch.isfinite(value).all() for value in floats)
    assert losses["bfloat16"] != losses["off"], "nothing was cast"
    assert losses["bfloat16"][-1] < losses["bfloat16"][0]
    np.testing.assert_allclose(losses["bfloat16"], losses["off"], rtol=0.005)
    # Each token is counted once whatever the precision: averages are kept in float32.
    torch.testing.assert_close(usage["bfloat16"], usage["off"], rtol=1e-5, atol=0)


def test_autocast_leaves_lookups_and_attention_on_a_cpu_in_float32():
    """What is nearest decides, and bfloat16 attention is slower there than float32's."""
    rng = torch.Generator().manual_seed(0)
    tokens, codebook = (torch.randn(1, n, 32, generator=rng) for n in (400, 200))
    attention = Attention(32, 4, 0.0)
    seen = []
    real = F.scaled_dot_product_attention

    def watched(*parts, **options):
        seen.append({part.dtype for part in parts})
        return real(*parts, **options)

    with mock.patch.object(F, "scaled_dot_product_attention", watched):
        with torch.autocast("cpu", torch.bfloat16):
            index = nearest_code(tokens, codebook)
            mixed = attention(tokens, tokens, tokens)
            assert torch.is_autocast_enabled("cpu")
        precise = attention(tokens, tokens, tokens)
    assert torch.equal(index, nearest_code(tokens, codebook))
    assert not torch.equal(index, nearest_code(tokens.bfloat16(), codebook.bfloat16()))
    assert seen == [{torch.float32}, {torch.float32}]
    assert mixed.dtype == torch.bfloat16  # the projection behind it
    torch.testing.assert_close(mixed.float(), precise, rtol=0.05, atol=0.02)


def test_which_devices_multiply_in_bfloat16(monkeypatch):
    cpu = torch.device("cpu")
    assert not uses_bfloat16(TrainingSettings(autocast="off"), cpu)
    assert uses_bfloat16(TrainingSettings(autocast="bfloat16"), cpu)
    for has, expected in (
        ({"avx512_bf16": True, "amx_bf16": False}, True),
        ({"avx512_bf16": False, "amx_bf16": True}, True),
        ({"avx512_bf16": False, "amx_bf16": False, "avx512_f": True}, False),
        ({"architecture": "aarch64"}, False),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has: has)
        assert uses_bfloat16(TrainingSettings(autocast="auto"), cpu) is expected
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # an older PyTorch
    assert not uses_bfloat16(TrainingSettings(autocast="auto"), cpu)
    assert not uses_bfloat16(TrainingSettings(autocast="auto"), torch.device("mps"))
