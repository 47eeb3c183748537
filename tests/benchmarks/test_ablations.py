"""The ablations: rows that are trained once, compared with the base, and not mixed."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.accuracy_runs import data, fail, settings_file  # noqa: F401  # fixtures

from benchmarks.accuracy import ablations, row_training
from benchmarks.accuracy.ablation_rows import BASE, ROWS, Row
from benchmarks.accuracy.image_sources import FeatureStore, locked
from benchmarks.accuracy.row_training import Workshop
from hvq_edge.model.safe_load import load_tensors
from hvq_edge.run.settings import load_settings
from hvq_edge.training.train_run import continue_run, start_run

pytestmark = pytest.mark.long
FEW = (BASE, "no prototypes", "image level kept", "random codebook start", "score over 8 px")


@pytest.fixture(scope="module")
def ablations_out(data, settings_file, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out") / "ablations"
    ablations.main(ablation_arguments(data, out, settings_file))
    return out


def ablation_arguments(data: Path, out: Path, settings_file: Path, *more: str) -> list[str]:
    given = ["--settings", str(settings_file), "--epochs", "1", "--device", "cpu"]
    only = [] if "--only" in more else ["--only", *FEW]
    return [str(data), "--out", str(out), *given, *only, *more]


def test_rows_are_written_and_compared_with_the_base(data, ablations_out, settings_file, capsys):
    ablations.main(ablation_arguments(data, ablations_out, settings_file))
    out = capsys.readouterr().out
    table = out.split("\n\n")[1].splitlines()
    assert [line.split("|")[1].strip() for line in table[2:]] == [
        row.name for row in ROWS if row.name in FEW
    ]
    results = ablations.finished_rows(ablations_out)
    base = results[BASE].evidence
    for line in table[2:]:
        name, area, change, ends, _, pseudo_change, *_ = (
            cell.strip() for cell in line.strip("|").split("|")
        )
        found = results[name].evidence
        assert area == f"{100 * found.mean.image_auroc:.1f}"
        if name == BASE:
            assert change == ends == ""
            continue
        differences = sorted(
            100 * (found.image_auroc[k] - base.image_auroc[k]) for k in base.pseudo
        )
        assert change == f"{np.mean(differences):+.1f}"
        assert ends == "[{:+.1f}, {:+.1f}]".format(*differences)  # two categories
        pseudo = [100 * (found.pseudo[k] - base.pseudo[k]) for k in base.pseudo]
        assert float(pseudo_change) == pytest.approx(np.mean(pseudo), abs=0.051)
    assert results[BASE].images_per_second > 0
    assert results["no prototypes"].images_per_second is None
    assert results["no prototypes"].held_out_loss == results[BASE].held_out_loss
    assert results["random codebook start"].held_out_loss != results[BASE].held_out_loss


def test_finished_rows_are_skipped(data, ablations_out, settings_file, monkeypatch):
    monkeypatch.setattr(Workshop, "run", fail)
    monkeypatch.setattr(FeatureStore, "_write", fail)
    ablations.main(ablation_arguments(data, ablations_out, settings_file))


def test_a_lost_row_is_judged_again_from_its_weights(
    data, ablations_out, settings_file, monkeypatch
):
    before = ablations.finished_rows(ablations_out)
    (ablations_out / "rows" / "base.json").unlink()
    for name in ("train_epochs", "fit_prototypes"):
        monkeypatch.setattr(row_training, name, fail)
    monkeypatch.setattr(FeatureStore, "_write", fail)
    ablations.main(ablation_arguments(data, ablations_out, settings_file))
    assert ablations.finished_rows(ablations_out) == before


def test_rows_begin_and_train_as_hvq_edge_train_does(data, ablations_out, settings_file, tmp_path):
    settings = load_settings("tiny", settings_file, training={"epochs": 1})
    start_run(data, tmp_path, settings)
    continue_run(tmp_path, device="cpu")
    expected = load_tensors(tmp_path / "checkpoint.pt")
    weights = load_tensors(ablations_out / "weights" / "base.pt")["state"]
    assert any(name.startswith("codebooks.") for name in weights)
    for name, value in weights.items():
        assert torch.equal(value, expected[name]), name
    for path in (ablations_out / "prototypes").glob("*.pt"):
        prototypes = load_tensors(path)
        assert {"prototypes.centres", "prototypes.whitening"} <= prototypes.keys()
        for name, value in prototypes.items():
            assert torch.equal(value, expected[name]), name


def test_weights_of_the_base_are_those_the_row_would_train(data, ablations_out, settings_file):
    """``image level kept`` changes nothing that training sees."""
    settings = load_settings("tiny", settings_file, training={"epochs": 1})
    workshop = Workshop(ablations.make_plan(data, ablations_out, settings), ablations_out, "cpu")
    alone = workshop.run(Row("level kept, trained anew", model={"image_level": "kept"}))
    shared = ablations.finished_rows(ablations_out)["image level kept"]
    assert alone.evidence == shared.evidence
    assert alone.evidence != ablations.finished_rows(ablations_out)[BASE].evidence


def test_one_row_that_fails_does_not_stop_the_others(data, ablations_out, settings_file, capsys):
    only = ["--only", "neighbour-masked attention", "score over 8 px"]
    with pytest.raises(SystemExit) as stopped:
        ablations.main(ablation_arguments(data, ablations_out, settings_file, *only))
    assert stopped.value.code == 2
    said = capsys.readouterr()
    assert "leaves nothing to see on a grid of 4x4" in said.err
    assert "| score over 8 px" in said.out
    assert not (ablations_out / "rows" / "neighbour-masked-attention.json").exists()


def test_a_row_that_another_process_has_begun_is_left_to_it(
    data, ablations_out, settings_file, capsys
):
    lock = ablations_out / "rows" / "64-codes.lock"
    with locked(lock) as own:
        assert own
        only = ["--only", "64 codes"]
        ablations.main(ablation_arguments(data, ablations_out, settings_file, *only))
    assert "64 codes: another process is at it" in capsys.readouterr().err
    assert not lock.with_suffix(".json").exists()
    with locked(lock, wait=False) as own:
        assert own  # given back


def test_rows_of_other_settings_are_not_mixed(data, ablations_out, settings_file, capsys):
    arguments = ablation_arguments(data, ablations_out, settings_file)
    arguments[arguments.index("--epochs") + 1] = "2"
    with pytest.raises(SystemExit) as stopped:
        ablations.main(arguments)
    assert stopped.value.code == 2
    assert re.search(
        r"holds rows of other data, settings or\s+another\s+teacher .*, 1\s+epochs",
        capsys.readouterr().err,
    )


def test_rows_of_a_taught_backbone_have_features_of_their_own(
    data, settings_file, ablations_out, tmp_path, capsys
):
    taught = ["--only", BASE, "--teacher", "efficientnet_lite0", "--teacher-side", "96"]
    ablations.main(ablation_arguments(data, tmp_path, settings_file, *taught))
    (folder,) = (tmp_path / "features").glob("*-taught-by-efficientnet_lite0-96")
    assert (folder / "taught.pt").exists()
    row, plain = (ablations.finished_rows(out)[BASE] for out in (tmp_path, ablations_out))
    assert row.evidence != plain.evidence
    with pytest.raises(SystemExit):  # without the teacher the folder is another table's
        ablations.main(ablation_arguments(data, tmp_path, settings_file, "--only", BASE))
    assert "another" in capsys.readouterr().err


def test_rows_of_another_version_are_not_read(data, settings_file, tmp_path, capsys):
    (tmp_path / "plan.json").write_text('{"data": "here", "settings": {"model": {"colour": 1}}}')
    with pytest.raises(SystemExit) as stopped:
        ablations.main(ablation_arguments(data, tmp_path, settings_file))
    assert stopped.value.code == 2
    assert "plan.json is not a plan that this version reads" in capsys.readouterr().err


def test_rows_are_named_once_and_their_settings_are_valid(capsys):
    ablations.main(["--list"])
    assert capsys.readouterr().out.splitlines() == [row.name for row in ROWS]
    assert len({row.slug for row in ROWS}) == len(ROWS)
    base = load_settings("tiny")
    for row in ROWS:
        changed = row.settings(base)
        beside = row.variant or row.flips or row.pooling != 16 or row.name == BASE
        assert (changed == base) == (bool(beside) and not row.training), row.name
        if row.weights_of:  # what training sees is left alone
            assert changed.training == base.training
    hot = next(row for row in ROWS if row.name == "transport weight 0.5, temperature x 2")
    assert hot.settings(base).model.transport_temperature == 4 * base.model.width


def test_an_unknown_row(data, capsys):
    with pytest.raises(SystemExit):
        ablations.main([str(data), "--only", "magic"])
    assert "no row is called magic" in capsys.readouterr().err
