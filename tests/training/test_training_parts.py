"""What a training is made of: batches, features, rates, and where codes start."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from helpers.small_training import features_of, small_model, small_settings

from hvq_edge.data.images import fit_image, read_image
from hvq_edge.data.versions import version_of
from hvq_edge.model import HVQTrans
from hvq_edge.run.record import read_run
from hvq_edge.run.settings import TrainingSettings
from hvq_edge.training.batches import shuffled_batches, to_tensor
from hvq_edge.training.codebook_start import revive_codes, start_codebooks
from hvq_edge.training.features import (
    cache_features,
    drop_cache,
    feature_pass,
    features_of_versions,
)
from hvq_edge.training.train_run import start_run
from hvq_edge.training.trainer import rate_factor


def test_batches_cover_every_image_once_and_depend_on_the_epoch():
    epochs = [list(shuffled_batches(23, 5, seed=7, epoch=e)) for e in (0, 0, 1)]
    assert sorted(np.concatenate(epochs[0])) == list(range(23))
    assert all((a == b).all() for a, b in zip(epochs[0], epochs[1], strict=True))
    assert any(a.tolist() != b.tolist() for a, b in zip(epochs[0], epochs[2], strict=True))


@pytest.mark.parametrize("tiles", [{}, {"tiles": (1, 2), "fine_prototypes": 8}])
def test_the_compiled_feature_pass_gives_what_pytorch_gives(tiles):
    pytest.importorskip("openvino")
    settings = small_settings().model.model_copy(update=tiles)
    model = HVQTrans(settings, 2).eval()
    shape = (3, *model.tiling.frame_shape, 3)
    frames = list(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    expected = feature_pass(model, len(frames))(frames)
    compiled = feature_pass(model, 10_000)
    found = compiled(frames)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())
    np.testing.assert_array_equal(compiled(frames[:1])[0], found[0])


def test_features_that_are_kept_damaged_are_computed_again(mvtec_folder, tmp_path, monkeypatch):
    run, model = tmp_path / "run", small_model()
    images = start_run(mvtec_folder, run, small_settings()).images[:3]
    computed = []

    def cached():
        seen = []
        given = (run, model, mvtec_folder, images, "weights", lambda *said: seen.append(said))
        features, looks = cache_features(*given)
        computed.append(bool(seen))
        return features.copy(), looks

    features, looks = cached()
    cached()
    files = {path: path.read_bytes() for path in run.glob("features*")}
    told = json.loads(files[run / "features.json"])
    damages = (
        ("features.npy", files[run / "features.npy"][:-2]),
        ("features.npy", b""),
        ("features.npy", files[run / "features_grey.npy"]),
        ("features_grey.npy", b""),
        ("features.json", json.dumps({**told, "looks": None}).encode()),
        ("features.json", json.dumps({**told, "qualities": [[1]]}).encode()),
        ("features.json", json.dumps({**told, "qualities": []}).encode()),
    )
    for name, content in damages:
        (run / name).write_bytes(content)
        again, seen = cached()
        np.testing.assert_array_equal(again, features)
        assert (seen.qualities, seen.looks) == (looks.qualities, looks.looks)
        assert {path: path.read_bytes() for path in files} == files, name
    assert computed == [True, False, *(True for _ in damages)]

    def kill(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("hvq_edge.training.features.np.save", kill)
    images = images[::-1]
    with pytest.raises(KeyboardInterrupt):
        cached()
    assert not (run / "features.json").exists(), "it would name what is not there any more"
    (run / "features of ours.csv").touch()
    drop_cache(run)
    assert [path.name for path in run.glob("features*")] == ["features of ours.csv"]


def test_features_of_versions_are_those_of_the_versions(mvtec_folder, tmp_path):
    start_run(mvtec_folder, tmp_path / "run", small_settings())
    images = read_run(tmp_path / "run", finished=False).images[:3]
    model = small_model().eval()
    with features_of_versions(tmp_path, model, mvtec_folder, images, 2) as found:
        assert len(found.features) == len(found.qualities) == 6
        frames = [
            fit_image(
                version_of(
                    read_image(mvtec_folder / one.path), 64, number, int(one.sha256[:12], 16)
                ),
                64,
            )
            for one in images
            for number in (1, 2)
        ]
        with torch.inference_mode():
            expected = model.raw_features(torch.from_numpy(np.stack(frames)))
        np.testing.assert_allclose(found.features, expected.numpy(), rtol=2e-3, atol=2e-3)


def test_rates():
    cosine = TrainingSettings(epochs=10)
    rates = [rate_factor(cosine, p) for p in np.linspace(0, 10, 101)]
    assert max(rates) <= 1
    assert rates[0] < 0.1
    assert rates[-1] == pytest.approx(0.01)
    assert rates[15:] == sorted(rates[15:], reverse=True)
    step = TrainingSettings(epochs=1000, schedule="step")
    assert [rate_factor(step, p) for p in (0, 799.9, 800, 999)] == [1, 1, 0.1, 0.1]


def test_codes_start_at_tokens_of_their_own_category():
    model = small_model()
    category = np.arange(12) % 2
    features = features_of(model, 12) + 10 * category[:, None, None].astype(np.float16)
    start_codebooks(model, features, category, seed=0)
    with torch.inference_mode():
        for k in range(2):
            tokens = model.encode(to_tensor(model, features[category == k]))[-1].flatten(0, 1)
            nearest = (model.codebooks[-1].codes[k][:, None] - tokens).abs().amax(2).amin(1)
            assert nearest.max() < 1e-5


def test_unused_codes_get_a_new_place_and_used_ones_keep_theirs():
    model = small_model()
    category = np.arange(12) % 2
    features = features_of(model, 12)
    start_codebooks(model, features, category, seed=0)
    top = model.codebooks[-1]
    top.codes[1, 4] = 1e4
    top.usage[1, 4] = 0
    before = top.codes.clone()
    assert revive_codes(model, features, category, seed=1) == 1
    changed = (top.codes != before).any(2).nonzero().tolist()
    assert changed == [[1, 4]]
    assert top.codes[1, 4].abs().max() < 100
