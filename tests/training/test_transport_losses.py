"""Transport losses in training: off they change nothing, on they reach encoder and codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hvq_edge.cli.app import main
from hvq_edge.data.images import read_frame
from hvq_edge.model import HVQTrans, load_run
from hvq_edge.model.codebook import perplexity
from hvq_edge.model.transport import conditional_loss, entropic_loss
from hvq_edge.run.settings import Settings, load_settings
from hvq_edge.training import trainer
from hvq_edge.training.batches import Images, shuffled_batches, to_tensor
from hvq_edge.training.trainer import Losses, rate_factor, train_epochs

SMALL = {"input_side": 64, "width": 16, "heads": 2, "feedforward": 32, "layers": 2, "codes": 16}
CONDITIONAL, ENTROPIC = "conditional_transport_weight", "entropic_transport_weight"


def small_settings(model: dict | None = None, **training) -> Settings:
    training = {"epochs": 3, "batch_size": 4, "autocast": "off", **training}
    return load_settings("tiny", model={**SMALL, **(model or {})}, training=training)


def new_model(settings: Settings) -> HVQTrans:
    torch.manual_seed(0)
    return HVQTrans(settings.model, 2, codebook_learning=settings.training.codebook_learning)


def images(model: HVQTrans, count: int = 12) -> Images:
    shape = (count, model.settings.grid**2, model.raw_channels)
    features = np.random.default_rng(0).normal(3.0, 2.0, shape).astype(np.float16)
    return Images(features, np.arange(count) % 2)


def train(folder: Path, settings: Settings, on_epoch=lambda _: None) -> HVQTrans:
    folder.mkdir(exist_ok=True)
    model = new_model(settings)
    train_epochs(folder, model, images(model), images(model), settings.training, on_epoch)
    return model


def losses_of(settings: Settings) -> tuple[HVQTrans, torch.Tensor, torch.Tensor]:
    """A model in training mode, tokens and their categories."""
    model = new_model(settings)
    found = images(model, 4)
    return model.train(), to_tensor(model, found.features), torch.from_numpy(found.category)


# Off.


@pytest.mark.parametrize("preset", ["paper", "edge", "tiny"])
def test_the_other_presets_have_none_of_it(preset):
    settings = load_settings(preset)
    assert not settings.training.has_transport_loss
    assert settings.training.codebook_learning == "averages"
    assert settings.model.transport_levels == ()
    assert len(settings.model.transport_weights) == 1


def test_without_a_transport_loss_training_is_what_it_was_to_the_last_bit(tmp_path, monkeypatch):
    """Against the loop of the version before, written out."""
    for name in ("conditional_loss", "entropic_loss"):
        monkeypatch.setattr(trainer, name, None)
    settings = small_settings(revive_codes=False)
    training = settings.training
    found = train(tmp_path, settings).state_dict()

    model = new_model(settings).train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, training.learning_rate, weight_decay=training.weight_decay
    )
    fit = images(model)
    for epoch in range(training.epochs):
        for step, chosen in enumerate(shuffled_batches(12, 4, training.seed, epoch)):
            for group in optimizer.param_groups:
                group["lr"] = training.learning_rate * rate_factor(training, epoch + step / 3)
            batch = to_tensor(model, fit.features[chosen])
            rebuilt = model.reconstruct(batch, torch.from_numpy(fit.category[chosen]))
            loss = (rebuilt.features - batch).square().mean()
            loss = loss + training.latent_weight * rebuilt.commitment
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, training.gradient_clip)
            optimizer.step()
    expected = model.state_dict()
    assert found.keys() == expected.keys()
    assert not torch.equal(expected["output_weight"], new_model(settings).output_weight)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    assert found["map_centre"].shape[0] == 3


# On.


@pytest.mark.parametrize("learning", ["averages", "gradient", "both"])
@pytest.mark.parametrize("kind", [CONDITIONAL, ENTROPIC])
def test_gradients_reach_the_encoder_and_codes_that_may_learn(kind, learning):
    settings = small_settings(**{kind: 0.5}, codebook_learning=learning)
    model, batch, category = losses_of(settings)
    losses = Losses(model, settings.training)(batch, category)
    losses.transport.backward()
    assert model.input_projection.weight.grad.abs().sum() > 0
    assert all(any(p.grad is not None for p in layer.parameters()) for layer in model.encoder)
    for books in model.codebooks:
        if learning == "averages":
            assert not books.codes.requires_grad
        else:
            assert (books.codes.grad.abs().sum(2) > 0).all(), "a code that no gradient reaches"
    assert (losses.codebook > 0) == (learning == "gradient")


def test_losses_are_weighted_by_kind_and_level():
    factors = [1.0, 0.0, 3.0]
    settings = small_settings(
        **{CONDITIONAL: 0.5, ENTROPIC: 0.25},
        transport_loss_levels=factors,
        transport_loss_temperature=2.0,
        transport_loss_epsilon=0.1,
        transport_loss_masses="usage",
    )
    model, batch, category = losses_of(settings)
    found = Losses(model, settings.training)(batch, category).transport
    model = losses_of(settings)[0]  # averages move codes: the same step once more
    rebuilt = model.reconstruct(batch, category)
    expected = 0.0
    for level, factor in enumerate(factors):
        tokens, codes = rebuilt.tokens[level], model.codes_of(level, category)
        usage = model.codebooks[level].usage[category]
        assert usage.std() > 0
        expected += factor * 0.5 * conditional_loss(tokens, codes, 2.0)
        expected += factor * 0.25 * entropic_loss(tokens, codes, 0.1, usage)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", [CONDITIONAL, ENTROPIC])
def test_a_loss_that_is_learnt_from_falls_and_is_reported(kind, tmp_path):
    reported: dict[float, list[float]] = {}
    for weight in (0.0, 1.0):
        both = {"codebook_learning": "both"} if weight else {}
        settings = small_settings(**{kind: weight}, **both, epochs=8)
        costs = reported.setdefault(weight, [])
        train(
            tmp_path / str(weight), settings, lambda result, to=costs: to.append(result.transport)
        )
    assert reported[0.0] == [0.0] * 8
    assert reported[1.0][-1] < 0.8 * reported[1.0][0]


def test_codes_do_not_decay():
    """Weight decay is for weights; codes are places."""
    settings = small_settings(**{CONDITIONAL: 0.1}, codebook_learning="both")
    model = new_model(settings)
    optimizer = trainer.new_optimizer(model, settings.training)
    decay = {
        id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]
    }
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            own = 0.0 if name.startswith("codebooks.") else settings.training.weight_decay
            assert decay[id(parameter)] == own, name


@pytest.mark.parametrize("learning", ["gradient", "both"])
def test_a_stopped_training_goes_on_to_the_same_codes(learning, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "SAVE_EVERY_S", 0)
    settings = small_settings(**{CONDITIONAL: 0.1, ENTROPIC: 0.1}, codebook_learning=learning)
    whole = train(tmp_path / "whole", settings)

    def stop(result) -> None:
        if result.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "stopped", settings, stop)
    resumed = train(tmp_path / "stopped", settings)
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


# The preset.


def test_the_preset_trains_with_all_of_it(mvtec_folder, tmp_path, monkeypatch):
    """On a small net; the size of the published one is the only thing that is changed."""
    monkeypatch.chdir(tmp_path)
    small = {**SMALL, "layers": 4, "padding_side": 64}
    lines = ["[model]", 'backbone = "efficientnet_lite0"']
    lines += [f"{key} = {value}" for key, value in small.items()]
    (tmp_path / "small.toml").write_text("\n".join(lines))
    arguments = ["train", "--data", str(mvtec_folder), "--preset", "paper-ot", "--epochs", "1"]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--settings", "small.toml", "--out", "run", "--device", "cpu"])
    assert ended.value.code == 0
    model, record = load_run(tmp_path / "run")
    training = record.settings.training
    assert record.settings.preset == "paper-ot"
    assert training.conditional_transport_weight > 0
    assert training.entropic_transport_weight > 0
    assert training.codebook_learning == "both"
    assert model.part_weights == (1.0, *[1.0] * 5, 0.0)
    # Every level's score was standardised on good images.
    assert all((spread != 1).all() for spread in model.map_spread[:6])
    frames = [read_frame(path, 64) for path in sorted(mvtec_folder.glob("bolt/test/*/*.png"))]
    with torch.inference_mode():
        batch, category = torch.from_numpy(np.stack(frames)), torch.zeros(len(frames), dtype=int)
        rebuilt = model.reconstruct(model.features(batch), category)
        assert (rebuilt.transport > 0).all()
        assert torch.isfinite(model(batch)["map"]).all()
    for books in model.codebooks:
        assert (perplexity(books.usage) >= 1).all()
