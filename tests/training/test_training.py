"""Training: it learns, it can be killed at any moment, it can be repeated."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
import torch
from helpers.patience import PATIENCE_SECONDS
from helpers.small_training import SMALL, features_of, small_model, small_settings, train_here

from hvq_edge.cli.app import main
from hvq_edge.data.images import read_frame
from hvq_edge.errors import (
    CheckpointError,
    HvqEdgeError,
    MissingCapability,
    RunError,
    SettingsError,
)
from hvq_edge.model import load_run
from hvq_edge.model.device import choose_device
from hvq_edge.model.safe_load import load_tensors
from hvq_edge.run.record import read_run
from hvq_edge.run.settings import load_settings
from hvq_edge.training.batches import Images
from hvq_edge.training.train_run import continue_run, start_run
from hvq_edge.training.trainer import train_epochs


def halves(features: np.ndarray, category: np.ndarray) -> tuple[Images, Images]:
    """The same images to fit and as held-out ones."""
    return Images(features, category), Images(features, category)


def same_state(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_a_run_learns_and_tells_categories_apart(mvtec_folder, tmp_path):
    seen = []
    run = tmp_path / "run"
    start_run(mvtec_folder, run, small_settings(epochs=12))
    record = continue_run(
        run, on_progress=lambda stage, done, total, note="": seen.append((stage, done, total, note))
    )
    losses = [float(note.split()[1].rstrip(",")) for stage, *_, note in seen if stage == "training"]
    assert len(losses) == 12
    assert losses[-1] < 0.8 * losses[0]
    assert record.epochs_done == 12
    assert record.metrics["feature_loss"] == pytest.approx(losses[-1], abs=1e-4)
    assert not (run / "training_state.pt").exists()
    model, read = load_run(run)
    assert read.categories == ("bolt", "tile")
    fit = Counter(image.category for image in read.images if image.use == "fit")
    assert {name: limits.usual.images for name, limits in read.category_limits.items()} == fit
    with torch.inference_mode():
        for path, expected in (("bolt/test/good/000.png", 0), ("tile/test/good/000.png", 1)):
            frame = torch.from_numpy(read_frame(mvtec_folder / path, 64)[None])
            out = model(frame)
            assert out["category"].item() == expected
            assert torch.isfinite(out["map"]).all()


def test_the_same_seed_gives_the_same_weights_and_another_does_not(mvtec_folder, tmp_path):
    states = [
        load_tensors(train_here(mvtec_folder, tmp_path / name, seed=seed) / "checkpoint.pt")
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert same_state(states[0], states[1])
    assert not same_state(states[0], states[2])


@pytest.mark.long
def test_killed_at_any_moment_it_resumes_to_the_same_weights(mvtec_folder, tmp_path, monkeypatch):
    """SIGKILL, several times, at moments that depend on nothing but the clock."""
    monkeypatch.chdir(tmp_path)
    settings = tmp_path / "small.toml"
    model = "\n".join(f"{key} = {value}" for key, value in SMALL.items())
    training = "epochs = 24\nbatch_size = 4\nversions = 1"
    settings.write_text(f"[model]\n{model}\n[training]\n{training}\n")
    begin = ["train", "--data", str(mvtec_folder), "--preset", "tiny", "--device", "cpu"]
    begin += ["--settings", str(settings), "--out"]
    # One thread: the same sums in the same order, however busy the machine is.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    monkeypatch.setattr("hvq_edge.training.trainer.SAVE_EVERY_S", 0.0)

    def train_to_its_end(arguments: list[str]) -> None:
        """In this process: a child would first import everything."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with pytest.raises(SystemExit) as ended:
                main(arguments)
        finally:
            torch.set_num_threads(threads)
        assert ended.value.code == 0

    train_to_its_end([*begin, "whole"])
    killed = 0
    arguments = [*begin, "killed"]
    state = tmp_path / "killed" / "training_state.pt"
    with subprocess.Popen(
        [sys.executable, "-c", _FORKS_TRAININGS],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as forking:
        assert forking.stdin is not None
        assert forking.stdout is not None
        for _ in range(3):
            mark = state.stat().st_mtime_ns if state.exists() else 0
            forking.stdin.write(f"{json.dumps(arguments)}\n")
            forking.stdin.flush()
            training = int(forking.stdout.readline())
            deadline = time.monotonic() + PATIENCE_SECONDS
            while time.monotonic() < deadline:
                if state.exists() and state.stat().st_mtime_ns != mark:
                    time.sleep(0.05)  # into some later epoch
                    break
                if select.select([forking.stdout], [], [], 0.005)[0]:
                    break  # it has ended
            os.kill(training, signal.SIGKILL)
            killed += int(forking.stdout.readline()) == signal.SIGKILL
            arguments = ["train", "--resume", "--device", "cpu", "--out", "killed"]
        forking.stdin.close()
    assert killed >= 2, "the kills came too late to test anything"
    train_to_its_end(arguments)
    assert same_state(
        load_tensors(tmp_path / "whole" / "checkpoint.pt"),
        load_tensors(tmp_path / "killed" / "checkpoint.pt"),
    )
    whole, resumed = read_run(tmp_path / "whole"), read_run(tmp_path / "killed")
    assert resumed.epochs_done == 24
    assert resumed.category_limits == whole.category_limits, "kept with the features"


_FORKS_TRAININGS = """
import json, os, sys
import sklearn.covariance, torch._dynamo, torch.utils.tensorboard  # what a training loads
import hvq_edge.training.trainer as trainer
from hvq_edge.cli.app import main
trainer.SAVE_EVERY_S = 0.0
for line in sys.stdin:
    training = os.fork()
    if not training:
        os.dup2(2, 1)
        main(json.loads(line))
    print(training, flush=True)
    # Its number stays its own until this process ends: a kill that comes late meets no other.
    ended = os.waitid(os.P_PID, training, os.WEXITED | os.WNOWAIT)
    print(ended.si_status if ended.si_code == os.CLD_KILLED else 0, flush=True)
"""
"""Trains in a process of its own for each line, which loads only once what takes seconds."""


def test_a_finished_run_is_not_overwritten(mvtec_folder, tmp_path):
    run = train_here(mvtec_folder, tmp_path / "run", epochs=1)
    with pytest.raises(RunError, match="already holds a finished run"):
        start_run(mvtec_folder, run, small_settings())
    before = (run / "checkpoint.pt").read_bytes()
    assert continue_run(run).epochs_done == 1
    assert (run / "checkpoint.pt").read_bytes() == before


def test_a_new_run_does_not_go_on_from_the_state_of_a_deleted_one(mvtec_folder, tmp_path):
    state = tmp_path / "run/training_state.pt"
    state.parent.mkdir()
    state.write_bytes(b"of another training")
    start_run(mvtec_folder, tmp_path / "run", small_settings())
    assert not state.exists()


def test_a_run_says_where_held_out_images_come_from_and_older_runs_say_nothing(
    mvtec_folder, tmp_path
):
    apart = mvtec_folder / "bolt/validation/good"
    apart.mkdir(parents=True)
    (mvtec_folder / "bolt/train/good/000.png").rename(apart / "000.png")
    record = start_run(mvtec_folder, tmp_path / "run", small_settings())
    assert record.held_out_from == {"bolt": "good images of validation/good"}
    assert read_run(tmp_path / "run", finished=False) == record
    older = json.loads((tmp_path / "run/run.json").read_text())
    del older["held_out_from"]
    (tmp_path / "run/run.json").write_text(json.dumps(older))
    assert read_run(tmp_path / "run", finished=False).held_out_from == {}


def test_resuming_with_changed_images_is_refused(mvtec_folder, tmp_path):
    run = tmp_path / "run"
    start_run(mvtec_folder, run, small_settings())
    (mvtec_folder / "bolt/train/good/003.png").write_bytes(
        (mvtec_folder / "bolt/train/good/004.png").read_bytes()
    )
    with pytest.raises(HvqEdgeError, match="not those that the run was trained with"):
        continue_run(run)


def test_a_changed_checkpoint_is_refused(mvtec_folder, tmp_path):
    run = train_here(mvtec_folder, tmp_path / "run", epochs=1)
    path = run / "checkpoint.pt"
    state = load_tensors(path)
    state["feature_mean"] += 1
    torch.save(state, path)
    with pytest.raises(CheckpointError, match="not the file this run wrote"):
        load_run(run)


def test_a_diverging_training_stops(tmp_path):
    model = small_model()
    features = features_of(model, 8)
    features[5, 0, 0] = np.inf
    category = np.arange(8) % 2
    with pytest.raises(HvqEdgeError, match="diverged"):
        train_epochs(tmp_path, model, *halves(features, category), small_settings().training)
    assert not (tmp_path / "training_state.pt").exists()


def test_versions_of_images_widen_what_counts_as_good(mvtec_folder, tmp_path):
    alone = train_here(mvtec_folder, tmp_path / "alone", versions=0)
    varied = train_here(mvtec_folder, tmp_path / "varied", versions=5)
    before, after = (load_run(run)[0].state_dict() for run in (alone, varied))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    # What is learnt, and what parts look like, is learnt of the images themselves.
    assert {"residual_whitening", "map_centre", "map_spread"} <= changed
    assert not any(name.startswith(("decoder", "codebooks", "prototypes")) for name in changed)
    assert after["map_spread"][0].mean() > before["map_spread"][0].mean()
    assert not list((tmp_path / "varied").glob("features_versions*"))
    limits, wider = (read_run(run).category_limits["bolt"].image for run in (alone, varied))
    assert wider.sharpness_low < limits.sharpness_low  # a softer lens is no fault


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "no images were named"),
        (["train", "--data", "nowhere"], "nowhere"),
        (["train", "--resume"], "no training run at runs/latest"),
        (
            ["train", "--resume", "--epochs", "3", "--preset", "edge", "--device", "cpu"],
            "so --preset and --epochs would change nothing",
        ),
        (["train", "--data", ".", "--device", "gpu"], "there is no 'gpu'"),
        (["train", "--data", ".", "--preset", "huge"], "'huge' is none of paper, paper-ot,"),
        (["train", "--data", ".", "--epochs", "0", "--batch-size", "-3"], "2 settings are wrong"),
    ],
)
def test_bad_usage_of_train(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_devices_that_are_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [choose_device(one) for one in ("auto", "cpu")] == ["cpu", "cpu"]
    with pytest.raises(MissingCapability, match="finds no CUDA device"):
        choose_device("cuda:0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    found = [choose_device(one) for one in ("auto", "cuda", "cuda:1")]
    assert found == ["cuda", "cuda", "cuda:1"]
    for name in ("cuda:2", "cuda:", "cuda:-1", "cuda:01", "CPU", ""):
        with pytest.raises(SettingsError, match="there is no"):
            choose_device(name)


def test_settings_of_a_width_that_heads_do_not_divide():
    with pytest.raises(SettingsError, match="multiple of heads"):
        load_settings("tiny", model={"width": 30, "heads": 4})
