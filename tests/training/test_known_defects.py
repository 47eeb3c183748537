"""What known defects do to the metric."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.images import make_texture, scratch, write_png

from hvq_edge.cli.app import main
from hvq_edge.data.pseudo_defects import large_pseudo_defect
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.model.safe_load import load_tensors
from hvq_edge.run.record import read_run
from hvq_edge.run.settings import load_settings
from hvq_edge.training.batches import Images
from hvq_edge.training.known_defects import metric as known_module
from hvq_edge.training.known_defects.metric import Known, fit_known_defects
from hvq_edge.training.statistics import fit_level, fit_map_scale, fit_residual_whitening

SMALL = {"input_side": 64, "width": 16, "heads": 2, "feedforward": 32, "layers": 2, "codes": 16}
SMALL |= {"prototypes": 0}
GOOD, DEFECTS = 80, 12


class Marked:
    """Features of good images, and of defects that raise one channel in a few cells."""

    def __init__(self, strength: float) -> None:
        torch.manual_seed(0)
        self.model = HVQTrans(
            load_settings("tiny", model=SMALL | {"normalise_tokens": False}).model, 2
        ).eval()
        self.rng = np.random.default_rng(0)
        self.strength = strength
        self.fit, self.held_out = self.good(GOOD), self.good(GOOD)
        fit_residual_whitening(self.model, self.fit)

    def good(self, count: int) -> Images:
        shape = (count, self.model.settings.grid**2, len(self.model.feature_mean))
        return Images(self.rng.normal(size=shape).astype(np.float16), np.arange(count) % 2)

    def bad(self, count: int, channel: int = 7) -> Images:
        images = Images(self.good(count).features, np.zeros(count, np.int64))
        images.features[:, 5:7, channel] += np.float16(self.strength)
        return images

    def known(self, count: int = DEFECTS) -> Known:
        images = self.bad(count)
        covered = np.zeros(images.features.shape[:2], np.float32)
        covered[:, 5:7] = 1
        return Known(images, covered, ["defective"] * count)

    def learn(self, known: Known, other: Images | None = None) -> dict[int, known_module.Learnt]:
        """``other``: of other kinds."""
        pseudo = (self.good(20), other or self.good(20))
        return fit_known_defects(self.model, known, self.fit, (), self.held_out, pseudo)

    def mean_height(self, images: Images) -> float:
        """Scores of images above those of good ones, in their deviations."""
        model = self.model
        fit_map_scale(model, self.fit)
        with torch.inference_mode():
            scores = [
                model.judge(
                    model.standardise(torch.from_numpy(one.features.astype(np.float32))),
                    torch.zeros(len(one.features), dtype=torch.int64),
                )["score"]
                for one in (self.good(GOOD), images)
            ]
        return float((scores[1].mean() - scores[0].mean()) / scores[0].std())


def test_defects_of_the_known_kind_stand_out_more():
    marked = Marked(strength=6.0)
    before = marked.mean_height(marked.bad(40))
    whitening = marked.model.residual_whitening.clone()
    found = marked.learn(marked.known())
    (learnt,) = found.values()
    assert learnt.use.share > 0
    assert learnt.use.images == len(learnt.scores) == DEFECTS
    assert learnt.use.found >= learnt.use.found_without
    assert marked.mean_height(marked.bad(40)) > 1.2 * before
    assert torch.equal(marked.model.residual_whitening[1], whitening[1]), "of another category"
    assert not torch.allclose(marked.model.residual_whitening[0], whitening[0])


def test_the_model_then_scores_as_was_judged():
    marked = Marked(strength=6.0)
    model, known = marked.model, marked.known()
    (learnt,) = marked.learn(known).values()
    assert learnt.metric is not None
    fit_map_scale(model, marked.fit)
    fit_level(model, marked.fit, marked.held_out)
    tokens = model.standardise(torch.from_numpy(known.images.features.astype(np.float32)))
    with torch.inference_mode():
        scores = model.judge(tokens, torch.from_numpy(known.images.category))["score"]
    np.testing.assert_allclose(scores, learnt.after[known_module.KNOWN], rtol=1e-3, atol=1e-3)
    assert np.abs(learnt.after[known_module.KNOWN] - learnt.before[known_module.KNOWN]).min() > 0.1


def test_known_defects_that_show_nothing_change_nothing():
    marked = Marked(strength=0.0)
    whitening = marked.model.residual_whitening.clone()
    (learnt,) = marked.learn(marked.known()).values()
    assert (learnt.use.share, learnt.metric) == (0.0, None)
    assert torch.equal(marked.model.residual_whitening, whitening)


def test_what_would_hide_other_kinds_is_not_done(monkeypatch):
    monkeypatch.setattr(known_module, "FAR", 1e3)
    marked = Marked(strength=6.0)
    known, others = marked.known(), marked.bad(20, channel=20)
    others.features[:, 5:7, 20] += np.float16(
        60
    )  # far above the threshold, so there is much to lose
    whitening = marked.model.residual_whitening.clone()
    (learnt,) = marked.learn(known, others).values()
    assert learnt.use.share == 0
    assert torch.equal(marked.model.residual_whitening, whitening)
    (learnt,) = marked.learn(known).values()
    assert learnt.use.share > 0, "it would have been done for the known kind alone"


def test_one_kind_says_nothing_of_others():
    marked = Marked(strength=6.0)
    known = marked.known()
    whitening = marked.model.residual_whitening.clone()
    (learnt,) = marked.learn(known._replace(kinds=["mark"] * DEFECTS)).values()
    assert learnt.use.share == 0
    assert "of one kind, which says nothing of others" in learnt.use.sentence
    assert torch.equal(marked.model.residual_whitening, whitening)
    assert (learnt.scores == learnt.before[known_module.KNOWN]).all()
    (learnt,) = marked.learn(known._replace(kinds=["mark", "spot"] * (DEFECTS // 2))).values()
    assert learnt.use.share > 0, "what helps one kind helps the other"


def test_too_few_are_left_alone():
    marked = Marked(strength=6.0)
    assert marked.learn(marked.known(4)) == {}


def test_without_masks_the_cells_that_stand_out_are_taken(monkeypatch):
    monkeypatch.setattr(known_module, "FAR", 1e3)
    marked = Marked(strength=12.0)
    known = marked.known()
    (learnt,) = marked.learn(known._replace(covered=np.zeros_like(known.covered))).values()
    assert learnt.use.share > 0


def test_large_pseudo_defects_change_a_third_or_more():
    frame, other = make_texture(1), make_texture(2)
    before = frame.copy()
    for seed in range(12):
        changed = large_pseudo_defect(frame, other, seed)
        assert changed.shape == frame.shape
        assert changed.dtype == np.uint8
        assert (changed != frame).any(axis=2).mean() > 0.3
        assert (changed == large_pseudo_defect(frame, other, seed)).all()
    assert (frame == before).all()


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(ended.value.code or 0)


def train(data: Path, run: Path, *more: str) -> dict[str, torch.Tensor]:
    settings = run.with_suffix(".toml")
    model = "\n".join(f"{key} = {SMALL[key]}" for key in SMALL)
    settings.write_text(f"[model]\n{model}\n[training]\nversions = 1\n")
    small = ("--preset", "tiny", "--settings", str(settings), "--epochs", "1", "--device", "cpu")
    assert command("train", "--data", str(data), *small, "--out", str(run), "--json", *more) == 0
    return load_tensors(run / "checkpoint.pt")


def test_training_with_and_without(mvtec_folder, tmp_path, capsys):
    without = train(mvtec_folder, tmp_path / "without")
    assert json.loads(capsys.readouterr().out)["known_defects"] == {}
    assert read_run(tmp_path / "without").known_defects == ()

    few, many = tmp_path / "few", tmp_path / "many"
    for folder, count in ((few, 4), (many, 6)):
        for i in range(count):
            image, mask = scratch(make_texture(300 + i, grain=1.2, mean=150.0))
            write_png(folder / f"bolt/defective/{i:03}.png", image)
            write_png(folder / f"bolt/ground_truth/defective/{i:03}_mask.png", mask)
    same = train(mvtec_folder, tmp_path / "with few", "--defects", str(few))
    capsys.readouterr()
    assert all(torch.equal(same[name], without[name]) for name in without)
    record = read_run(tmp_path / "with few")
    assert [len(record.known_defects), record.known_defects_used] == [4, {}]

    trained = train(mvtec_folder, tmp_path / "with many", "--defects", str(many))
    printed = json.loads(capsys.readouterr().out)["known_defects"]
    record = read_run(tmp_path / "with many")
    use = record.known_defects_used["bolt"]
    assert printed == {"bolt": use.model_dump()}
    assert (use.images, use.kinds) == (6, 1)
    assert 0 <= use.found <= 6
    assert all(one.score is not None for one in record.known_defects)
    fitted = {"residual_whitening", "map_centre", "map_spread", "level_share", "level_limit"}
    for name, value in without.items():
        if name not in fitted:
            assert torch.equal(trained[name], value), name
    changed = not torch.equal(trained["residual_whitening"], without["residual_whitening"])
    assert changed == (use.share > 0)
    assert torch.equal(trained["residual_whitening"][1], without["residual_whitening"][1])
    # What was recorded is asked for again, so a training that goes on goes on with the same.
    (many / "bolt/defective/000.png").unlink()
    unfinished = record.model_copy(update={"checkpoint_sha256": None})
    (tmp_path / "with many/run.json").write_text(unfinished.model_dump_json())
    assert command("train", "--resume", "--out", str(tmp_path / "with many")) == 2
    assert "1 of 22 are missing" in capsys.readouterr().err.replace("\n", " ")
