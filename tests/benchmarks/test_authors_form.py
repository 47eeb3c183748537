"""The loop form that the training benchmark replaces is the authors' network, and not a straw man.

It is held to the same numbers of the authors' network as ours (``test_reference.py``).
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from helpers.paths import DATA
from helpers.synthetic_weights import synthetic_weight
from torch import nn

from benchmarks.speed.authors_backbone import WholeBackbone
from benchmarks.speed.authors_form import AuthorsForm, to_sequence
from hvq_edge.model.backbone import Backbone, InvertedResidual
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.model.released_checkpoint import from_released, released_settings
from hvq_edge.run.settings import load_settings

RELATIVE = 1e-3
LATENT_WEIGHT = 0.25


def relative_error(ours: torch.Tensor, theirs: np.ndarray) -> float:
    reference = torch.from_numpy(theirs)
    assert ours.shape == reference.shape
    return float((ours.detach() - reference).abs().max() / reference.abs().max())


@pytest.fixture(scope="module")
def forward() -> dict[str, np.ndarray]:
    return dict(np.load(DATA / "official_forward.npz"))


@pytest.fixture(scope="module")
def step() -> dict[str, np.ndarray]:
    return dict(np.load(DATA / "official_train_step.npz"))


@pytest.fixture(scope="module")
def vectorised(forward) -> HVQTrans:
    released = {
        str(name): torch.as_tensor(
            synthetic_weight(str(name), tuple(int(n) for n in str(shape).split(",") if n))
        )
        for name, shape in zip(forward["state_names"], forward["state_shapes"], strict=True)
    }
    model = HVQTrans(released_settings(), 15)
    model.load_state_dict(from_released(released, 15))
    return model.eval()


@pytest.fixture(scope="module")
def batch(forward) -> tuple[torch.Tensor, torch.Tensor]:
    frames = torch.from_numpy(forward["image_u8"]).permute(0, 2, 3, 1).contiguous()
    return frames, torch.from_numpy(forward["labels"])


@torch.inference_mode()
def test_the_loop_gives_the_authors_maps_and_codes(vectorised, forward, batch):
    loop = AuthorsForm(vectorised, dropout=0.1).eval()
    frames, category = batch
    features = loop.features(frames)
    assert relative_error(features, forward["feature_align"]) < RELATIVE
    rebuilt = loop.rebuild(features, category)
    for level in range(5):
        codes = forward[f"codes_quantize_list_{level + 1}"]
        np.testing.assert_array_equal(rebuilt.codes[:, level].numpy(), codes)
    image = rebuilt.features.permute(1, 2, 0).unflatten(2, (14, 14))
    assert relative_error(image, forward["feature_rec"]) < RELATIVE
    assert relative_error(rebuilt.transport, forward["ot_score"]) < RELATIVE
    upsampled = nn.functional.interpolate(
        loop.anomaly_map(features, rebuilt)[:, None],
        scale_factor=16,
        mode="bilinear",
        align_corners=True,
    )
    assert relative_error(upsampled, forward["anomaly_map"]) < RELATIVE


def test_the_loop_takes_the_authors_training_step(vectorised, step, batch):
    loop = AuthorsForm(vectorised, dropout=0.0).train()
    features = loop.features(batch[0])
    loss = loop.loss(features, batch[1], LATENT_WEIGHT)
    loss.backward()

    assert loss.item() == pytest.approx(float(step["loss"]), rel=RELATIVE)
    gradients = {name: p.grad for name, p in loop.named_parameters() if p.grad is not None}
    norm = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    assert norm.item() == pytest.approx(float(step["grad_norm_total"]), rel=RELATIVE)
    compared = {
        "quantize_conv_t.weight": "input_projection.weight",
        "encoder.layers.3.self_attn.in_proj_bias": "encoder.3.attention.in_proj_bias",
        "decoder.layers.3.linear2.bias": "decoder.3.feedforward.3.bias",
        "output_proj_list.7.bias": "output_projections.7.bias",
    }
    for theirs, name in compared.items():
        assert relative_error(gradients[name], step[f"grad.{theirs}"]) < RELATIVE, name
    for level in range(5):
        for k in (3, 7):
            book = loop.codebooks[level][k]
            norms = step[f"embed_norm.{level + 1}.{k}"]
            assert relative_error(book.codes.norm(dim=1), norms) < RELATIVE
            assert relative_error(book.usage, step[f"cluster_size.{level + 1}.{k}"]) < RELATIVE


SMALL = {
    "input_side": 64,
    "width": 16,
    "heads": 2,
    "feedforward": 32,
    "layers": 2,
    "codes": 16,
    # What the authors' form has no other way for.
    "tap_resize": "bilinear",
    "normalise_tokens": False,
    "transport_weight": 80.0,
}


def small_model(categories: int) -> HVQTrans:
    torch.manual_seed(1)
    model = HVQTrans(load_settings("tiny", model=SMALL).model, categories)
    model.feature_mean.normal_()
    model.feature_std.uniform_(0.5, 2.0)
    return model


def test_at_any_size_it_computes_what_the_vectorised_form_does():
    """Standardised features, other widths and layers, several images of one category."""
    model = small_model(3).eval()
    loop = AuthorsForm(model, dropout=0.1).eval()
    frames = torch.randint(0, 256, (5, 64, 64, 3), dtype=torch.uint8)
    category = torch.tensor([2, 0, 2, 1, 2])
    with torch.inference_mode():
        ours = model.reconstruct(model.features(frames), category)
        theirs = loop.rebuild(loop.features(frames), category)
    torch.testing.assert_close(theirs.features.transpose(0, 1), ours.features, rtol=1e-4, atol=1e-4)
    assert torch.equal(theirs.codes, ours.codes)
    torch.testing.assert_close(theirs.transport, ours.transport[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(theirs.commitment, ours.commitment, rtol=1e-4, atol=1e-4)


def test_a_codebook_moves_after_each_image():
    """Two equal images of one category: the second is looked up in the moved codebook."""
    model = small_model(1)
    loop = AuthorsForm(model, dropout=0.0).train()
    features = loop.features(torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8))
    once, twice = copy.deepcopy(loop), copy.deepcopy(loop)
    label = torch.zeros(1, dtype=torch.int64)
    for _ in range(2):
        once.rebuild(features, label)
    twice.rebuild(features.repeat(2, 1, 1, 1), label.repeat(2))
    for a, b in zip(once.codebooks[2], twice.codebooks[2], strict=True):
        torch.testing.assert_close(a.codes, b.codes)
        torch.testing.assert_close(a.usage, b.usage)
    assert not torch.equal(once.codebooks[2][0].codes, loop.codebooks[2][0].codes)


def test_the_copy_does_not_share_what_it_trains():
    model = small_model(2)
    loop = AuthorsForm(model, dropout=0.1)
    theirs = {p.data_ptr() for p in loop.parameters() if p.requires_grad}
    ours = {p.data_ptr() for p in model.parameters() if p.requires_grad}
    assert not theirs & ours
    behind_the_taps = {p.data_ptr() for p in loop.backbone.rest.parameters()}
    both = [p.numel() for p in loop.parameters() if p.data_ptr() not in behind_the_taps]
    assert sum(both) == sum(p.numel() for p in model.parameters())


def test_the_backbone_runs_to_its_end():
    """EfficientNet-B4: 32 blocks and a head of 1792 channels, of which 22 blocks are used."""
    paper = load_settings("paper").model
    ours = Backbone(paper.backbone, paper.padding_side)
    whole = WholeBackbone(ours, paper.backbone, paper.padding_side)
    blocks = [module for module in whole.modules() if isinstance(module, InvertedResidual)]
    assert (len(ours.blocks), len(blocks)) == (22, 32)
    assert whole.rest[-1].in_features == 1792
    assert not any(isinstance(module, nn.SiLU) for module in whole.modules())
    assert any(isinstance(module, nn.SiLU) for module in ours.modules()), "a copy was changed"
    seen = []
    whole.rest[-1].register_forward_hook(lambda *call: seen.append(call[-1].shape))
    frames = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
    with torch.inference_mode():
        for mine, theirs in zip(ours(frames), whole(frames), strict=True):
            torch.testing.assert_close(theirs, mine, rtol=1e-4, atol=1e-4)
    assert seen == [(1, 1000)]


def test_sequence_first():
    image = torch.arange(2 * 3 * 4).view(1, 2, 3, 4)
    sequence = to_sequence(image)
    assert sequence.shape == (12, 1, 2)
    assert sequence[5, 0].tolist() == image[0, :, 1, 1].tolist()
