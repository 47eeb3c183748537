"""The record of a run says what was trained on what, or that it is not finished."""

import json
from pathlib import Path

import pytest
from helpers.run_records import record
from hypothesis import given, settings
from hypothesis import strategies as st

from hvq_edge.errors import DatasetError, RunError
from hvq_edge.run.latest import DEFAULT_RUN
from hvq_edge.run.record import (
    RECORD_NAME,
    read_run,
    recorded_data,
    write_run,
)
from hvq_edge.run.runs import run_to_resume


def test_a_record_comes_back_as_it_was_written(tmp_path):
    write_run(tmp_path / "a run", record())
    assert read_run(tmp_path / "a run") == record()


def test_a_loaded_checkpoint_has_no_data(tmp_path):
    write_run(tmp_path, record(data=None, images=()))
    assert read_run(tmp_path).data is None
    with pytest.raises(DatasetError, match="no images on record") as caught:
        recorded_data(tmp_path)
    assert "--data DIR" in caught.value.next_step


def test_an_unfinished_run_says_how_to_go_on(tmp_path):
    unfinished = record(checkpoint_sha256=None, epochs_done=4)
    write_run(tmp_path, unfinished)
    with pytest.raises(RunError, match="has not finished") as caught:
        read_run(tmp_path)
    step = caught.value.next_step
    assert "--resume" in step
    assert str(tmp_path) in step
    assert read_run(tmp_path, finished=False) == unfinished


def test_where_nothing_has_finished_yet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    begun = Path("runs/begun")
    begun.mkdir(parents=True)
    write_run(begun, record(checkpoint_sha256=None, epochs_done=4))
    with pytest.raises(RunError, match="no training run at runs/latest") as caught:
        read_run(DEFAULT_RUN)
    assert "hvq-edge train --resume" in caught.value.next_step
    assert run_to_resume() == begun
    (tmp_path / "runs/newer").mkdir()
    created = "2026-01-02T00:00:00+00:00"
    write_run(Path("runs/newer"), record(checkpoint_sha256=None, created=created))
    assert run_to_resume() == Path("runs/newer")
    write_run(Path("runs/newer"), record(created=created))
    assert run_to_resume() == begun
    write_run(begun, record())
    assert run_to_resume() == DEFAULT_RUN


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(RunError, match="no training run at") as caught:
        read_run(tmp_path / "nowhere")
    assert "hvq-edge train" in caught.value.next_step


def test_a_bundle_in_the_place_of_its_run(tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "bundle.json").touch()
    with pytest.raises(RunError, match="no training run at") as caught:
        read_run(tmp_path / "bundle")
    assert caught.value.next_step.endswith("is a bundle: name the folder of its run")
    write_run(tmp_path, record())
    with pytest.raises(RunError) as caught:
        read_run(tmp_path / "bundle")
    assert caught.value.next_step.endswith(f"name the folder of its run, {tmp_path}")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "Invalid JSON"),
        (b"\xff\xfe", "codec can't decode"),
        (b"[" * 10_000, "Invalid JSON"),
        (b'{"format": "hvq-edge-run/1"}', "categories"),
    ],
)
def test_a_file_that_is_no_record(tmp_path, content, said):
    (tmp_path / RECORD_NAME).write_bytes(content)
    with pytest.raises(RunError, match=said) as caught:
        read_run(tmp_path)
    assert RECORD_NAME in caught.value.cause


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", "hvq-edge-run/9"),
        ("epochs_done", "many"),
        ("learning", 1),
        ("settings", {"a": 1}),
    ],
)
def test_a_wrong_key_is_named(tmp_path, key, value):
    write_run(tmp_path, record())
    content = json.loads((tmp_path / RECORD_NAME).read_text())
    content[key] = value
    (tmp_path / RECORD_NAME).write_text(json.dumps(content))
    with pytest.raises(RunError, match=key):
        read_run(tmp_path)


@given(content=st.binary(max_size=60))
@settings(deadline=None)
def test_any_bytes_are_refused_as_a_run_error(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp()
    (folder / RECORD_NAME).write_bytes(content)
    with pytest.raises(RunError):
        read_run(folder)
