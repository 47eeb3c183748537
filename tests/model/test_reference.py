"""The network against numbers of the authors' own: same codes, same maps, same training step."""

from __future__ import annotations

import gzip
import importlib.util
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from helpers.paths import DATA, HELPERS
from torch import nn

from hvq_edge.cli.app import main
from hvq_edge.errors import CheckpointError
from hvq_edge.model import load_run
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.model.released_checkpoint import (
    MVTEC_CATEGORIES,
    from_released,
    released_settings,
)

RELATIVE = 1e-3


def relative_error(ours: torch.Tensor, theirs: np.ndarray) -> float:
    reference = torch.from_numpy(theirs)
    assert ours.shape == reference.shape
    return float((ours.detach() - reference).abs().max() / reference.abs().max())


def tokens(image: np.ndarray) -> np.ndarray:
    """[b, c, h, w] -> [b, h * w, c]."""
    return image.reshape(*image.shape[:2], -1).transpose(0, 2, 1)


def block_of(name: str) -> int:
    """Index of the backbone's block; -1 outside of them."""
    return int(name.split(".")[3]) if "enc._blocks." in name else -1


@pytest.fixture(scope="module")
def forward() -> dict[str, np.ndarray]:
    return dict(np.load(DATA / "official_forward.npz"))


@pytest.fixture(scope="module")
def step() -> dict[str, np.ndarray]:
    return dict(np.load(DATA / "official_train_step.npz"))


@pytest.fixture(scope="module")
def released(forward) -> dict[str, torch.Tensor]:
    """The released checkpoint's layout, with the reference weights."""
    spec = importlib.util.spec_from_file_location("weights", HELPERS / "synthetic_weights.py")
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {
        f"module.{name}": torch.as_tensor(
            module.synthetic_weight(str(name), tuple(int(n) for n in str(shape).split(",") if n))
        )
        for name, shape in zip(forward["state_names"], forward["state_shapes"], strict=True)
    }


@pytest.fixture(scope="module")
def state(released) -> dict[str, torch.Tensor]:
    return from_released({"state_dict": released}, 15)


@pytest.fixture
def model(state) -> HVQTrans:
    model = HVQTrans(released_settings(), 15)
    model.load_state_dict(state, strict=True)
    return model.eval()


@pytest.fixture(scope="module")
def batch(forward) -> tuple[torch.Tensor, torch.Tensor]:
    frames = torch.from_numpy(forward["image_u8"]).permute(0, 2, 3, 1).contiguous()
    return frames, torch.from_numpy(forward["labels"])


def test_layout_has_every_released_entry(released, state):
    assert len(released) == 1089
    template = HVQTrans(released_settings(), 15).state_dict()
    assert state.keys() == template.keys()
    # All that the release holds is used, but the classifier head, the blocks after the last tap,
    # batch counters and a projection that the authors' own forward leaves out.
    ours = {"feature_", "map_", "classifier."}
    used = sum(
        tensor.numel()
        for name, tensor in state.items()
        if not name.startswith(tuple(ours)) and not name.endswith("num_batches_tracked")
    )
    unused = ("_conv_head", "enc._bn1", "_fc", "module.input_proj", "num_batches_tracked")
    theirs = sum(
        tensor.numel()
        for name, tensor in released.items()
        if not any(part in name for part in unused) and block_of(name) < 22
    )
    assert used == theirs


@torch.inference_mode()
def test_forward_matches(model, forward, batch):
    frames, category = batch
    features = model.features(frames)
    rebuilt = model.reconstruct(features, category)
    anomaly_map = model.anomaly_map(features, rebuilt, category)

    assert relative_error(features, tokens(forward["feature_align"])) < RELATIVE
    for level in range(5):
        codes = forward[f"codes_quantize_list_{level + 1}"]
        np.testing.assert_array_equal(rebuilt.codes[:, level].numpy(), codes)
    assert relative_error(rebuilt.features, tokens(forward["feature_rec"])) < RELATIVE
    assert relative_error(rebuilt.transport[0], forward["ot_score"]) < RELATIVE
    upsampled = nn.functional.interpolate(
        anomaly_map[:, None], scale_factor=16, mode="bilinear", align_corners=True
    )
    assert relative_error(upsampled, forward["anomaly_map"]) < RELATIVE
    # The published score: maximum of the map averaged over 16x16 windows.
    published = nn.functional.avg_pool2d(upsampled, 16, stride=1).amax((1, 2, 3))
    torch.testing.assert_close(
        model.score(anomaly_map, torch.zeros(len(anomaly_map), dtype=torch.int64)),
        published,
        rtol=1e-5,
        atol=1e-4,
    )


@torch.inference_mode()
def test_padding_for_380_pixels_is_what_was_released(state, forward, batch):
    """With the padding of the actual input, features differ: the setting is not decoration."""
    other = HVQTrans(released_settings().model_copy(update={"padding_side": None}), 15).eval()
    other.load_state_dict(state)
    error = relative_error(other.features(batch[0]), tokens(forward["feature_align"]))
    assert error > 10 * RELATIVE


def test_training_step_matches(model, step, batch):
    frames, category = batch
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif hasattr(module, "dropout") and isinstance(module.dropout, float):
            module.dropout = 0.0
    features = model.features(frames)
    rebuilt = model.reconstruct(features, category)
    feature_loss = (rebuilt.features - features).square().mean()
    loss = feature_loss + 0.25 * rebuilt.commitment
    loss.backward()

    assert loss.item() == pytest.approx(float(step["loss"]), rel=RELATIVE)
    assert feature_loss.item() == pytest.approx(float(step["feature_loss"]), rel=RELATIVE)
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    norm = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    assert norm.item() == pytest.approx(float(step["grad_norm_total"]), rel=RELATIVE)

    def stacked(attention: str) -> torch.Tensor:
        return torch.cat([gradients[f"{attention}.{n}.bias"] for n in ("query", "key", "value")])

    conv = step["grad.quantize_conv_t.weight"][..., 0, 0]
    assert relative_error(gradients["input_projection.weight"], conv) < RELATIVE
    compared = {
        "quantize_conv_t.bias": gradients["input_projection.bias"],
        "pos_embed.row_embed.weight": gradients["position.row"],
        "encoder.layers.0.linear1.bias": gradients["encoder.0.feedforward.linear1.bias"],
        "encoder.layers.3.self_attn.in_proj_bias": stacked("encoder.3.self_attention"),
        "encoder.layers.3.norm2.weight": gradients["encoder.3.norm2.weight"],
        "decoder.layers.0.self_attn.in_proj_bias": stacked("decoder.0.self_attention"),
        "decoder.layers.3.linear2.bias": gradients["decoder.3.feedforward.linear2.bias"],
        "decoder.norm.weight": gradients["decoder_norm.weight"],
        "output_proj_list.3.bias": gradients["output_bias"][3],
        "output_proj_list.7.bias": gradients["output_bias"][7],
    }
    for name, gradient in compared.items():
        assert relative_error(gradient, step[f"grad.{name}"]) < RELATIVE, name
    for level in range(5):
        books = model.codebooks[level]
        for k in (3, 7):
            norms = step[f"embed_norm.{level + 1}.{k}"]
            assert relative_error(books.codes[k].norm(dim=1), norms) < RELATIVE
            usage = step[f"cluster_size.{level + 1}.{k}"]
            assert relative_error(books.usage[k], usage) < RELATIVE


def test_categories_not_in_the_batch_keep_their_codes(model, state, batch):
    model.train()
    model.reconstruct(model.features(batch[0]), batch[1])
    kept = [k for k in range(15) if k not in batch[1]]
    for level, books in enumerate(model.codebooks):
        assert torch.equal(books.codes[kept], state[f"codebooks.{level}.codes"][kept])
        moved = books.codes[batch[1]] != state[f"codebooks.{level}.codes"][batch[1]]
        assert moved.any()


def test_missing_and_unknown_entries_are_all_counted(released):
    broken = dict(released)
    del broken["module.decoder.norm.weight"]
    broken["module.surprise"] = torch.zeros(1)
    broken["module.decoder.norm.bias"] = torch.zeros(3)
    with pytest.raises(CheckpointError, match="3 entries differ") as caught:
        from_released({"state_dict": broken}, 15)
    for name in ("decoder.norm.weight", "surprise", "decoder.norm.bias"):
        assert name in str(caught.value)


def test_entries_that_are_no_tensors_are_said(released):
    entries = [3, "text", None, {"a": 1}, [1, 2], torch.tensor(1.0)]
    names = [name for name in released if name.endswith("linear1.bias")][: len(entries)]
    with pytest.raises(CheckpointError, match=f"{len(entries)} entries differ") as caught:
        from_released({**released, **dict(zip(names, entries, strict=True))}, 15)
    for name in names:
        assert f"no tensor of any shape: {name.removeprefix('module.')}" in str(caught.value)


def test_load_command_makes_a_run(released, batch, forward, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": released, "epoch": 7}, "ckpt_best.pth.tar")
    with pytest.raises(SystemExit) as exit_:
        main(["load", "ckpt_best.pth.tar", "--out", "runs/released", "--json"])
    assert exit_.value.code == 0
    assert '"zipper"' in capsys.readouterr().out
    model, record = load_run(tmp_path / "runs" / "latest")
    assert record.categories == MVTEC_CATEGORIES
    assert record.settings.preset == "paper"
    with torch.inference_mode():
        out = model(*batch)
    np.testing.assert_array_equal(out["codes"][:, 4].numpy(), forward["codes_quantize_list_5"])
    with pytest.raises(CheckpointError, match="cannot choose the category"):
        model(batch[0])


@pytest.mark.parametrize(
    ("what", "said", "next_step"),
    [
        ("notes.txt", "notes.txt is text, not a checkpoint", ".pth.tar"),
        ("empty.pth", "empty.pth is empty", "copy the file again"),
        ("archive.pth.tar", "archive.pth.tar is a zip archive", "unpack it"),
        ("packed.hvq", "packed.hvq is a packed bundle", "hvq-edge bundle unpack packed.hvq DIR"),
        ("weights.gz", "weights.gz is a compressed file", "unpack it"),
        ("model.onnx", "model.onnx is an ONNX graph", "hvq-edge bench --peers model.onnx"),
        ("noise.pth", "noise.pth is no checkpoint", "torch.save"),
        ("folder", "folder is a folder", ".pth.tar"),
        ("run", "run is a training run", "hvq-edge export run"),
        ("run/bundle", "run/bundle is a bundle", "hvq-edge stream --bundle run/bundle"),
    ],
)
def test_load_says_what_is_no_checkpoint(what, said, next_step, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("run/bundle").mkdir(parents=True)
    Path("run/run.json").write_text("{}")
    Path("run/bundle/bundle.json").write_text("{}")
    Path("notes.txt").write_text("Gewichte für später\n" * 50, encoding="utf-8")
    Path("empty.pth").touch()
    Path("noise.pth").write_bytes(bytes(range(256)) * 9)
    Path("weights.gz").write_bytes(gzip.compress(b"weights"))
    Path("model.onnx").write_bytes(b"\x08\x08\x12\x07pytorch")
    for name, member in (("archive.pth.tar", "ckpt.pth"), ("packed.hvq", "bundle.json")):
        with zipfile.ZipFile(name, "w") as archive:
            archive.writestr(member, "{}")
    with pytest.raises(SystemExit) as stop:
        main(["load", what, "--out", "new"])
    assert stop.value.code == 2
    error, step = capsys.readouterr().err.splitlines()
    assert error.startswith(f"Error: {said}")
    assert step.startswith("Next:  ")
    assert next_step in step
    assert not Path("new").exists()


def test_load_with_another_number_of_categories(released, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save(released, "ckpt.pth")
    with pytest.raises(SystemExit) as exit_:
        main(["load", "ckpt.pth", "--out", "run", "--categories", "a,b,c"])
    assert exit_.value.code == 2
    assert "with 3 categories" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
