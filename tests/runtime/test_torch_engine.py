"""The PyTorch model as an engine, on an untrained network of the smallest size."""

from __future__ import annotations

import sys
from contextlib import closing

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

from hvq_edge.errors import CheckpointError, InputError, MissingCapability, RunError, SettingsError
from hvq_edge.model.checkpoint import save_checkpoint
from hvq_edge.model.hvq_trans import HVQTrans
from hvq_edge.run.record import RunRecord, write_run
from hvq_edge.run.settings import Settings
from hvq_edge.runtime.cpu.torch_engine import TorchEngine
from hvq_edge.runtime.open_engine import is_run, open_engine

SIDE = 64
CATEGORIES = ("bolt", "nut", "washer plate")


def save_run(folder, *, chooses):
    settings = Settings.model_validate(
        {
            "model": {
                "input_side": SIDE,
                "width": 16,
                "heads": 2,
                "feedforward": 16,
                "layers": 1,
                "codes": 8,
            }
        }
    )
    torch.manual_seed(0)
    model = HVQTrans(settings.model, len(CATEGORIES)).eval()
    if chooses:
        model.classifier.fitted.fill_(True)
        model.classifier.centres.normal_()
    record = RunRecord(
        hvq_edge_version="0",
        created="2026-01-01T00:00:00+00:00",
        settings=settings,
        categories=CATEGORIES,
        backbone_weights="random",
        data=None,
        checkpoint_sha256=save_checkpoint(folder, model),
    )
    write_run(folder, record)
    return model


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {
        chooses: (folder / str(chooses), save_run(folder / str(chooses), chooses=chooses))
        for chooses in (False, True)
    }


def frames(batch):
    return np.random.default_rng(batch).integers(0, 256, (batch, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.mark.parametrize("given", [None, np.array([2, 0, 1], np.int32)])
def test_it_is_the_model(runs, given):
    run, model = runs[True]
    with TorchEngine(run, device="cpu") as engine:
        output = engine.run(frames(3), given)
    with torch.inference_mode():
        category = None if given is None else torch.from_numpy(given).long()
        wanted = model(torch.from_numpy(frames(3)), category)
    assert output["codes"].shape == (3, 2, (SIDE // 16) ** 2)
    for name, dtype in {"score": "f4", "map": "f4", "codes": "i4", "category": "i4"}.items():
        assert output[name].dtype == np.dtype(dtype)
        np.testing.assert_allclose(output[name], wanted[name].numpy(), rtol=1e-5)
    if given is not None:
        np.testing.assert_array_equal(output["category"], given)


def test_read_only_frames_are_fine(runs, recwarn):
    images = frames(1)
    images.setflags(write=False)
    with TorchEngine(runs[True][0], device="cpu") as engine:
        engine.run(images, np.zeros(1, np.int32))
    assert not [one for one in recwarn if "writ" in str(one.message)]


def test_the_mode_says_whether_it_can_choose(runs):
    with TorchEngine(runs[True][0], device="cpu") as engine:
        assert engine.info.category_mode == "auto"
    with TorchEngine(runs[False][0], device="cpu") as engine:
        assert engine.info.category_mode == "input"
        with pytest.raises(CheckpointError):
            engine.run(frames(1))


@pytest.mark.parametrize(
    ("batch", "category"),
    [
        (np.zeros((1, SIDE, SIDE, 3), np.float32), None),
        (np.zeros((1, SIDE + 16, SIDE, 3), np.uint8), None),
        (frames(2), np.array([0, 3], np.int32)),
        (frames(2), np.zeros(1, np.int32)),
    ],
)
def test_bad_input_is_refused(runs, batch, category):
    with TorchEngine(runs[True][0], device="cpu") as engine, pytest.raises(InputError):
        engine.run(batch, category)


def test_closing_twice_is_fine_and_running_afterwards_is_not(runs):
    engine = TorchEngine(runs[True][0], device="cpu")
    engine.close()
    engine.close()
    with pytest.raises(InputError, match="closed"):
        engine.run(frames(1))


def test_a_run_folder_opens_as_the_model(runs):
    run, _ = runs[True]
    assert is_run(run)
    with closing(open_engine(run, category="nut")) as engine:
        assert (engine.info.backend, engine.info.categories) == ("torch", ("nut",))
        fixed = engine.run(frames(2))
    with TorchEngine(run) as reference:
        given = reference.run(frames(2), np.array([1, 1], np.int32))
    np.testing.assert_allclose(fixed["score"], given["score"], rtol=1e-5)
    np.testing.assert_array_equal(fixed["category"], [0, 0])
    with pytest.raises(InputError, match="no category 'gear'; it has bolt, nut, washer plate"):
        open_engine(run, category="gear")


def test_an_unfinished_run_is_refused(tmp_path):
    write_run(
        tmp_path,
        RunRecord(
            hvq_edge_version="0",
            created="2026-01-01T00:00:00+00:00",
            settings=Settings(),
            categories=CATEGORIES,
            backbone_weights="random",
            data="images",
        ),
    )
    with pytest.raises(RunError, match="has not finished"):
        open_engine(tmp_path)


def test_what_the_machine_lacks(runs, monkeypatch):
    with pytest.raises(SettingsError, match="threads"):
        TorchEngine(runs[True][0], threads=0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MissingCapability, match="no CUDA device"):
        TorchEngine(runs[True][0], device="cuda")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingCapability) as caught:
        TorchEngine(runs[True][0])
    assert "hvq-edge[train]" in caught.value.next_step
