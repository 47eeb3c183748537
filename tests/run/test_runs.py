"""``hvq-edge runs`` lists what is there, broken runs included, and changes nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hvq_edge.cli.app import main
from hvq_edge.cli.runs import _duration
from hvq_edge.evaluation.metrics.metrics_file import EvaluationRecord, MetricsFile, write_metrics
from hvq_edge.evaluation.metrics.results import Metrics
from hvq_edge.model import HVQTrans
from hvq_edge.run.record import RunRecord, write_run
from hvq_edge.run.settings import load_settings
from hvq_edge.training.batches import Images
from hvq_edge.training.trainer import train_epochs

SMALL = {"input_side": 64, "width": 16, "heads": 2, "feedforward": 32, "layers": 2, "codes": 16}


def settings_of(preset: str, epochs: int):
    return load_settings(preset, model=SMALL, training={"epochs": epochs, "batch_size": 4})


def make_run(folder: Path, day: int, *, preset: str = "edge", **changes) -> Path:
    values = {
        "hvq_edge_version": "0.1.0",
        "created": f"2026-01-{day:02}T12:00:00+00:00",
        "settings": settings_of(preset, 9),
        "categories": ("bolt", "nut"),
        "backbone_weights": "from a test",
        "data": "/images",
        "checkpoint_sha256": "a" * 64,
        "epochs_done": 9,
        "metrics": {"feature_loss": 0.31254, "commitment": 0.5, "seconds_training": 725.0},
    }
    write_run(folder, RunRecord(**(values | changes)))
    return folder


def evaluated(run: Path, **means: float) -> None:
    """Write ``metrics.json`` with means by way; pixel AUROC is a hundredth below the image's."""
    records = tuple(
        EvaluationRecord(
            category=way,
            mean=Metrics(
                image_auroc=auroc,
                image_ap=None,
                image_f1=None,
                pixel_auroc=auroc - 0.01,
                pixel_ap=None,
                category_accuracy=None,
            ),
            categories=(),
            images=(),
            unreadable={},
        )
        for way, auroc in means.items()
    )
    content = MetricsFile(
        hvq_edge_version="0.1.0",
        created="2026-01-02T00:00:00+00:00",
        target=str(run),
        data="/images",
        backend="torch",
        precision="fp32",
        device="a test",
        evaluations=records,
    )
    write_metrics(run / "metrics.json", content)


def called(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit_:
        main(["runs", *arguments])
    printed = capsys.readouterr()
    return exit_.value.code or 0, printed.out, printed.err


def listed(capsys, folder: Path) -> dict[str, dict]:
    code, out, _ = called(capsys, str(folder), "--json")
    assert code == 0
    return {run["name"]: run for run in json.loads(out)["runs"]}


@pytest.fixture
def folder(tmp_path) -> Path:
    """Runs in no order of name; ``latest`` points to the middle one."""
    folder = tmp_path / "runs"
    evaluated(make_run(folder / "b", 3), known=0.987, chosen=0.9)
    make_run(folder / "a", 1, preset="tiny")
    make_run(folder / "sweep [red]" / "c é", 2)
    (folder / "latest").symlink_to("sweep [red]/c é")
    return folder


def test_the_table_shows_runs_the_newest_first(folder, capsys):
    before = sorted(folder.rglob("*"))
    code, out, _ = called(capsys, str(folder))
    assert code == 0
    lines = out.splitlines()
    rows = [line for line in lines if "9/9" in line]
    assert [row.split()[0] for row in rows] == ["b", "sweep", "a"]
    assert rows[0].split()[-7:] == ["9/9", "12", "min", "0.3125", "0.5000", "98.7", "97.7"]
    assert "sweep [red]/c é *" in rows[1]
    assert "tiny lite0" in rows[2]
    assert rows[2].split()[-2:] == ["–", "–"]
    assert max(len(line) for line in lines) <= 100
    assert sorted(folder.rglob("*")) == before


def test_json_has_all_that_is_known(folder, capsys):
    found = listed(capsys, folder)
    assert list(found) == ["b", "sweep [red]/c é", "a"]
    assert [run["latest"] for run in found.values()] == [False, True, False]
    one = found["b"]
    assert one["readable"]
    assert (one["preset"], one["backbone"]) == ("edge", "efficientnet_lite0")
    assert (one["finished"], one["epochs_done"], one["epochs_planned"]) == (True, 9, 9)
    assert one["metrics"]["seconds_training"] == 725.0
    assert one["evaluations"]["known"]["image_auroc"] == 0.987
    assert one["evaluations"]["known"]["pixel_auroc"] == 0.977
    assert one["evaluations"]["chosen"]["image_auroc"] == 0.9
    assert found["a"]["evaluations"] == {}


def test_a_broken_record_is_listed_and_stops_nothing(folder, capsys):
    (folder / "broken").mkdir()
    (folder / "broken" / "run.json").write_text('{"format": "hvq-edge-run/1"')
    os.utime(folder / "broken" / "run.json", (0, 0))
    code, out, _ = called(capsys, str(folder))
    assert code == 0
    assert out.count("9/9") == 3
    assert "unreadable" in out
    assert f"broken: {folder / 'broken' / 'run.json'} is not a run record" in out
    found = listed(capsys, folder)
    assert list(found)[-1] == "broken"
    assert not found["broken"]["readable"]
    assert "is not a run record" in found["broken"]["fault"]


@given(content=st.binary(max_size=40))
def test_any_record_is_listed(tmp_path_factory, content):
    from hvq_edge.run.runs import list_runs

    folder = tmp_path_factory.getbasetemp() / "any bytes"
    (folder / "one").mkdir(parents=True, exist_ok=True)
    (folder / "one" / "run.json").write_bytes(content)
    (run,) = list_runs(folder)
    assert run.fault


def test_metrics_that_cannot_be_read_are_named_and_the_run_still_shown(folder, capsys):
    (folder / "b" / "metrics.json").write_text("{}")
    _, out, _ = called(capsys, str(folder))
    assert out.count("9/9") == 3
    assert f"b: {folder / 'b' / 'metrics.json'} is not a file of metrics" in out
    run = listed(capsys, folder)["b"]
    assert run["readable"]
    assert run["evaluations"] == {}


def test_an_unfinished_run_shows_how_far_it_came(tmp_path, capsys):
    """The state is one that the trainer itself wrote."""
    run = make_run(tmp_path / "run", 1, checkpoint_sha256=None, epochs_done=0, metrics={})
    make_run(tmp_path / "just begun", 2, checkpoint_sha256=None, epochs_done=0, metrics={})
    settings = settings_of("edge", 2)
    torch.manual_seed(0)
    model = HVQTrans(settings.model, 2)
    features = np.random.default_rng(0).normal(size=(8, 16, model.raw_channels))
    images = Images(features.astype(np.float16), np.arange(8) % 2)
    train_epochs(run, model, images, images, settings.training)
    found = listed(capsys, tmp_path)
    assert (found["run"]["finished"], found["run"]["epochs_done"]) == (False, 2)
    assert found["just begun"]["epochs_done"] == 0
    _, out, _ = called(capsys, str(tmp_path))
    (row,) = [line for line in out.splitlines() if line.startswith("run  ")]
    assert "2/9" in row
    assert "begun" in row
    (run / "training_state.pt").write_bytes(b"cut short")
    assert listed(capsys, tmp_path)["run"]["epochs_done"] is None
    assert "?/9" in called(capsys, str(tmp_path))[1]


def test_a_loaded_checkpoint_has_no_epochs(tmp_path, capsys):
    make_run(tmp_path / "run", 1, data=None, epochs_done=0, metrics={})
    assert listed(capsys, tmp_path)["run"]["epochs_planned"] is None
    assert "0/" not in called(capsys, str(tmp_path))[1]


def test_a_run_itself_and_a_link_to_one_elsewhere(tmp_path, capsys):
    elsewhere = make_run(tmp_path / "elsewhere", 1)
    assert list(listed(capsys, elsewhere)) == ["elsewhere"]
    folder = tmp_path / "runs"
    folder.mkdir()
    (folder / "latest").symlink_to(elsewhere)
    found = listed(capsys, folder)
    assert list(found) == ["latest"]
    assert found["latest"]["latest"]


def test_links_in_a_circle_end(folder, capsys):
    (folder / "a" / "up").symlink_to(folder)
    (folder / "round").symlink_to(folder)
    (folder / "dangling").symlink_to(folder / "gone")
    assert len(listed(capsys, folder)) == 3


def test_runs_in_the_working_folder_are_the_default(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert called(capsys)[1].count("9/9") == 3


def test_an_odd_date_is_shown_last(folder, capsys):
    make_run(folder / "odd", 1, created="yesterday")
    make_run(folder / "without zone", 1, created="2026-01-09T12:00:00")
    names = list(listed(capsys, folder))
    assert (names[0], names[-1]) == ("without zone", "odd")
    assert "yesterday" in called(capsys, str(folder))[1]


def test_no_runs_yet(tmp_path, capsys):
    code, out, err = called(capsys, str(tmp_path))
    assert (code, out) == (0, "")
    assert "hvq-edge train" in err
    assert listed(capsys, tmp_path) == {}


def test_a_folder_that_is_not_there(tmp_path, capsys):
    code, _, err = called(capsys, str(tmp_path / "nowhere"))
    assert code == 2
    assert "nowhere" in err


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "–"),
        (0.4, "0 s"),
        (89, "89 s"),
        (725, "12 min"),
        (7140, "119 min"),
        (11100, "3 h 05"),
    ],
)
def test_durations(seconds, shown):
    assert _duration(seconds) == shown
