"""``hvq_edge.train``: what it gives, and what others see while it trains."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
from helpers.run_records import record
from helpers.small_graphs import SMALL

import hvq_edge
from hvq_edge.errors import RunError, SettingsError
from hvq_edge.run.latest import point_latest
from hvq_edge.run.record import read_run, write_run


def test_the_latest_run_is_the_one_that_finished_last(mvtec_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    former = tmp_path / "runs" / "former"
    former.mkdir(parents=True)
    write_run(former, record())
    point_latest(Path("runs/former"))
    settings = tmp_path / "small.toml"
    model = "\n".join(f"{key} = {SMALL[key]}" for key in SMALL)
    settings.write_text(f"[model]\n{model}\n[training]\nversions = 1\n")
    seen, refused = set(), []

    def look(stage: str, done: int, total: int, note: str = "") -> None:
        if stage != "training":
            return
        seen.add(Path("runs/latest").resolve())
        with pytest.raises(RunError, match="another process is training runs") as error:
            hvq_edge.train(resume=True, device="cpu")
        refused.append(error)

    trained = hvq_edge.train(
        str(mvtec_folder),
        preset="tiny",
        settings=settings,
        epochs=1,
        device="cpu",
        on_progress=look,
    )
    assert refused, "--resume finds the run that has begun, and leaves it alone"
    assert seen == {former}
    assert Path("runs/latest").resolve() == trained.path.resolve()
    assert trained.record == read_run(trained.path)
    assert trained.record.categories == ("bolt", "tile")
    assert hvq_edge.load_model(trained.path).categories == 2
    # Asked once more, it is there; and naming an old one does not bring it to the front.
    assert hvq_edge.train(resume=True, device="cpu").record == trained.record
    assert hvq_edge.train(out=former, resume=True, device="cpu").record == record()
    assert Path("runs/latest").resolve() == trained.path.resolve()


def test_without_images():
    with pytest.raises(SettingsError, match="no images were named"):
        hvq_edge.train()


def test_an_overlap_without_tiles(mvtec_folder, tmp_path):
    with pytest.raises(SettingsError, match="an overlap is one of tiles"):
        hvq_edge.train(mvtec_folder, tmp_path / "run", overlap=0.1)
    assert not (tmp_path / "run").exists()
