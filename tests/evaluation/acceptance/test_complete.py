"""``hvq-edge report --complete``: what commands can measure is measured, once."""

from __future__ import annotations

import json
import shutil
from functools import partial

import pytest
from helpers.spotted_parts import bundle, data  # noqa: F401  # fixtures

from hvq_edge.bundle.opened import open_bundle
from hvq_edge.bundle.verification import NotRun, Verification
from hvq_edge.cli.app import main
from hvq_edge.evaluation.acceptance import complete as completion
from hvq_edge.evaluation.acceptance.acceptance import collect
from hvq_edge.evaluation.acceptance.complete import complete


@pytest.fixture(autouse=True)
def short_benchmark(monkeypatch):
    """Two calls of each engine: how fast they are is not the point."""
    short = partial(completion.run_benchmark, rounds=1, batches=(1,), memory=False)
    monkeypatch.setattr(completion, "run_benchmark", short)


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


def test_all_that_commands_can_close_is_closed(small_bundle, small_run, tmp_path, capsys):
    run_folder = shutil.copytree(small_run, tmp_path / "run")
    target = run_folder / "bundle"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(small_bundle, target)
    for path in [*target.glob("eval-*"), target / "verify"]:
        shutil.rmtree(path, ignore_errors=True)
    assert run("report", run_folder, "--complete", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["done"] == ["verify", "eval fp32", "eval int8", "bench"]
    assert [one["what"] for one in said["not_done"]] == ["TensorRT", "TensorRT-RTX"]
    assert all("no engine of it" in one["why"] for one in said["not_done"])
    assert not [one for one in collect(target).open_points if one.closed_by]
    open_words = " ".join(one["what"] for one in said["open_points"])
    assert "was not measured" not in open_words
    assert "were not compared" not in open_words
    card = (target / "MODEL.md").read_text(encoding="utf-8")
    assert "not measured" not in card
    # What is there is not done again.
    before = {path: path.stat().st_mtime_ns for path in target.glob("*/metrics.json")}
    assert len(before) == 2
    assert run("report", run_folder, "--complete", "--json") == 0
    assert json.loads(capsys.readouterr().out)["done"] == []
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_stopped_one_goes_on(bundle, data, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(completion, "run_benchmark", interrupted)
        with pytest.raises(KeyboardInterrupt):
            complete(bundle.path, data)
    assert [str(one) for one in complete(bundle.path, data).done] == ["bench"]


def test_what_cannot_be_done_is_said_with_the_reason(bundle, data, capsys):
    """The run is not beside this bundle, and without --data nobody knows its test images."""
    assert run("report", bundle.path, "--complete") == 0
    said = capsys.readouterr().out
    assert f"Not done here: verify: no training run at {bundle.path.parent}" in said
    for step in ("eval fp32", "eval int8"):
        assert f"Not done here: {step}: the bundle {bundle.path} is not in the folder of" in said
    assert "give a folder with test images with --data DIR" in said
    assert "Done: bench" in said
    assert run("report", bundle.path, "--complete", "--data", data) == 0
    said = capsys.readouterr().out
    assert "Done: eval fp32\nDone: eval int8\n" in said
    assert "Not done here: verify: no training run at" in said
    assert "Done: bench" not in said


def test_results_of_other_graphs_are_measured_again(bundle, data):
    complete(bundle.path, data)
    path = bundle.path / "eval-int8" / "metrics.json"
    older = json.loads(path.read_text()) | {"created": "2000-01-01T00:00:00+00:00"}
    path.write_text(json.dumps(older))
    (bundle.path / "bench.json").write_text("{}")
    assert [str(one) for one in complete(bundle.path, data).done] == ["eval int8", "bench"]


def test_engines_of_gpus_are_named_with_what_is_missing_here(bundle, monkeypatch):
    def no_gpu():
        raise completion.MissingCapability("this machine has no NVIDIA driver: no library.")

    manifest = open_bundle(bundle.path).manifest
    verification = Verification(
        passed=True,
        checkpoint_sha256=manifest.checkpoint_sha256,
        data="",
        images=1,
        models={name: manifest.files[file].sha256 for name, file in manifest.models.items()},
        precisions={},
        comparisons=(),
        not_run=(
            NotRun(runner="OpenVINO", precision=None, reason="it is not installed here"),
            NotRun(runner="TensorRT", precision=None, reason="the bundle has no engine of it"),
        ),
    )
    (bundle.path / "verify.json").write_text(verification.model_dump_json())
    monkeypatch.setattr(completion, "cuda_device", no_gpu)
    (one,) = [one for one in complete(bundle.path).not_done if one.what.startswith("Tensor")]
    assert one.why.startswith("The bundle has no engine of it. This machine has no NVIDIA driver")
    assert "build" in one.remedy


def test_images_are_for_complete_alone(bundle, data, capsys):
    assert run("report", bundle.path, "--data", data) == 2
    assert "add --complete" in capsys.readouterr().err
    assert not (bundle.path / "acceptance.html").exists()
