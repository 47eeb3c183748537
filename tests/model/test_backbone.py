"""The backbones against the published tables and the published weights."""

from __future__ import annotations

from http.client import IncompleteRead, InvalidURL

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hvq_edge.errors import CheckpointError, MissingCapability
from hvq_edge.model.backbone import (
    VARIANTS,
    Backbone,
    SamePadConv,
    scaled_channels,
    scaled_stages,
    tap_channels,
)
from hvq_edge.model.backbone_weights import load_backbone_weights, to_published

# Channels and last block of the taps at strides 2, 4, 8, 16, and channels of the stem. Tan & Le
# 2019, table 1 with the compound scaling of section 3; Lite: efficientnet_lite_builder.py.
PUBLISHED = {
    "efficientnet_b0": ((16, 24, 40, 112), (0, 2, 4, 10), 32),
    "efficientnet_b1": ((16, 24, 40, 112), (1, 4, 7, 15), 32),
    "efficientnet_b2": ((16, 24, 48, 120), (1, 4, 7, 15), 32),
    "efficientnet_b3": ((24, 32, 48, 136), (1, 4, 7, 17), 40),
    "efficientnet_b4": ((24, 32, 56, 160), (1, 5, 9, 21), 48),
    "efficientnet_lite0": ((16, 24, 40, 112), (0, 2, 4, 10), 32),
    "efficientnet_lite1": ((16, 24, 40, 112), (0, 3, 6, 14), 32),
    "efficientnet_lite2": ((16, 24, 48, 120), (0, 3, 6, 14), 32),
    "efficientnet_lite3": ((24, 32, 48, 136), (0, 3, 6, 16), 32),
    "efficientnet_lite4": ((24, 32, 56, 160), (0, 4, 8, 20), 32),
}


def test_every_variant_is_in_the_table():
    assert PUBLISHED.keys() == VARIANTS.keys()


@pytest.mark.parametrize("name", PUBLISHED)
@torch.inference_mode()
def test_channels_taps_and_reductions(name):
    channels, taps, stem = PUBLISHED[name]
    backbone = Backbone(name, 224)
    assert tap_channels(name) == channels
    assert tuple(backbone.taps) == taps
    assert len(backbone.blocks) == taps[-1] + 1, "nothing after the last tap is built"
    assert backbone.stem.conv.out_channels == stem
    outputs = backbone(torch.zeros(1, 224, 224, 3, dtype=torch.uint8))
    assert [tuple(out.shape[1:]) for out in outputs] == [
        (c, 224 // s, 224 // s) for c, s in zip(channels, (2, 4, 8, 16), strict=True)
    ]


@pytest.mark.parametrize("name", PUBLISHED)
def test_squeeze_and_excitation_is_a_quarter_of_the_input_and_not_in_lite(name):
    backbone = Backbone(name, 224)
    inputs = backbone.stem.conv.out_channels
    for block in backbone.blocks:
        if VARIANTS[name].lite:
            assert isinstance(block.squeeze, torch.nn.Identity)
        else:
            assert block.squeeze.reduce.out_channels == inputs // 4
        inputs = block.project.conv.out_channels


@given(st.integers(1, 400), st.floats(0.5, 4.0))
def test_scaled_channels_are_multiples_of_eight_not_far_below(channels, width):
    scaled = scaled_channels(channels, width)
    assert scaled % 8 == 0
    assert scaled >= 0.9 * channels * width
    assert scaled <= max(8, channels * width + 8)


@given(st.integers(1, 64), st.sampled_from([1, 3, 5]), st.sampled_from([1, 2]))
def test_same_padding_gives_the_rounded_up_size(side, kernel, stride):
    conv = SamePadConv(1, 1, kernel, stride, side, 1, torch.nn.Identity()).eval()
    before, after = conv.padding
    assert 0 <= after - before <= 1
    with torch.inference_mode():
        out = conv(torch.zeros(1, 1, side, side))
    assert out.shape[-1] == -(-side // stride)


def test_backbone_stays_in_eval_mode_and_without_gradients():
    backbone = Backbone("efficientnet_lite0", 224).train()
    assert not any(module.training for module in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_lite0_weights_come_from_the_package_and_fit():
    backbone = Backbone("efficientnet_lite0", 224)
    before = backbone.stem.conv.weight.clone()
    source = load_backbone_weights(backbone, "efficientnet_lite0")
    assert "efficientnet-lite0-57934424.pth" in source
    assert "579344248a93e230" in source, "the SHA-256 is on record"
    assert not torch.equal(before, backbone.stem.conv.weight)
    # Trained batch norms have seen images: their variances are not the initial ones.
    assert (backbone.blocks[5].depthwise.norm.running_var != 1).all()


def test_weights_of_another_variant_are_refused(tmp_path):
    lite = Backbone("efficientnet_lite0", 224)
    state = {to_published(name): tensor for name, tensor in lite.state_dict().items()}
    torch.save(state, tmp_path / "weights.pth")
    load_backbone_weights(lite, "efficientnet_lite0", str(tmp_path / "weights.pth"))
    other = Backbone("efficientnet_lite2", 224)
    with pytest.raises(CheckpointError, match="does not hold the weights of efficientnet_lite2"):
        load_backbone_weights(other, "efficientnet_lite2", str(tmp_path / "weights.pth"))


def test_variants_without_a_package_say_what_to_give():
    backbone = Backbone("efficientnet_lite4", 224)
    with pytest.raises(MissingCapability, match="not published as a package"):
        load_backbone_weights(backbone, "efficientnet_lite4")


def test_a_url_without_a_hash_is_refused_before_it_is_fetched():
    backbone = Backbone("efficientnet_b0", 224)
    with pytest.raises(CheckpointError, match="cannot be checked"):
        load_backbone_weights(backbone, "efficientnet_b0", "http://127.0.0.1:9/weights.pth")


def test_an_unreachable_url_names_itself_and_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    backbone = Backbone("efficientnet_b0", 224)
    url = "http://127.0.0.1:9/weights-0123abcd.pth"  # nothing listens on the discard port
    with pytest.raises(MissingCapability, match="cannot fetch") as caught:
        load_backbone_weights(backbone, "efficientnet_b0", url)
    assert "--backbone-weights FILE" in caught.value.next_step
    assert not list(tmp_path.rglob("*.pth"))


@pytest.mark.parametrize(
    "error", [IncompleteRead(b"x", 900), InvalidURL("control characters"), ValueError("no host")]
)
def test_a_download_that_breaks_off_is_no_crash(error, tmp_path, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", broken)
    url = "http://127.0.0.1:9/weights-0123abcd.pth"
    with pytest.raises(MissingCapability, match="cannot fetch"):
        load_backbone_weights(Backbone("efficientnet_b0", 224), "efficientnet_b0", url)
    assert not list(tmp_path.rglob("*.pth"))


def test_stage_strides_multiply_to_sixteen():
    for name in VARIANTS:
        product = 2
        for stage in scaled_stages(name):
            product *= stage.stride
        assert product == 16
