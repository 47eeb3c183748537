"""The whole path as a user walks it, on real images; and what a user may do wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.patience import HANG_SECONDS
from helpers.small_disk import mounted_tmpfs

import hvq_edge
from hvq_edge.bundle.opened import open_bundle
from hvq_edge.cli.app import main
from hvq_edge.data.dataset import find_dataset
from hvq_edge.data.images import read_frame, read_image
from hvq_edge.data.video import write_video


def run_cli(*arguments: object) -> int:
    with pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    return int(exit_.value.code or 0)


def test_the_short_form_works_after_an_export(solar_run, solar_bundle, solar_cells, tmp_path):
    """`stream --camera VIDEO` in a folder where a run was trained and exported.

    In a process of its own: what a user types, with nothing imported or patched before.
    """
    (tmp_path / "runs").mkdir()
    shutil.copytree(solar_run, tmp_path / "runs" / "solar")
    (tmp_path / "runs" / "latest").symlink_to("solar")
    test = find_dataset(solar_cells).test()
    images = [read_image(image.path) for image in test]
    write_video(tmp_path / "parts.avi", images, 5.0, len(images))

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "hvq_edge", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=HANG_SECONDS,
            check=False,
            env={**os.environ, "DISPLAY": "", "WAYLAND_DISPLAY": ""},
        )

    streamed = command("stream", "--camera", "parts.avi", "--json", "--out", "found")
    assert streamed.returncode == 0, streamed.stderr
    decisions = [json.loads(line) for line in streamed.stdout.splitlines()]
    assert [decision["frame"] for decision in decisions] == list(range(len(images)))
    assert {decision["verdict"] for decision in decisions} <= {"pass", "reject", "no_decision"}
    manifest = json.loads((tmp_path / "runs/latest/bundle/bundle.json").read_text())
    precision = re.search(r"with (fp32|int8) on ", streamed.stderr)[1]  # whichever is faster here
    judged = [decision for decision in decisions if decision["verdict"] != "no_decision"]
    assert len(judged) > 0.8 * len(decisions)
    for decision in judged:
        threshold = manifest["thresholds"][precision][decision["category"]]["value"]
        assert (decision["verdict"] == "reject") == (decision["score"] > threshold)
    right = [d["category"] == p.category for d, p in zip(decisions, test, strict=True)]
    assert np.mean(right) > 0.9, "the graph chooses the category itself"
    rejected = [decision for decision in judged if decision["verdict"] == "reject"]
    assert len(list((tmp_path / "found/rejects").glob("*_overlay.jpg"))) == len(rejected)
    assert (tmp_path / "found/annotated.mp4").stat().st_size > 10_000


def test_a_video_gives_the_verdicts_of_its_images(solar_bundle, solar_cells, tmp_path):
    images = [read_image(image.path) for image in find_dataset(solar_cells).test()]
    write_video(tmp_path / "parts.avi", images, 5.0, len(images))
    (tmp_path / "parts").mkdir()
    for number, image in enumerate(images):
        cv2.imwrite(str(tmp_path / f"parts/{number:03}.png"), image[..., ::-1])
    of_video, of_folder = (
        list(hvq_edge.inspect(solar_bundle, camera=str(tmp_path / name), precision="fp32"))
        for name in ("parts.avi", "parts")
    )
    assert len(of_video) == len(of_folder) == len(images)
    assert [one.verdict for one in of_video] == [one.verdict for one in of_folder]
    assert {"pass", "reject"} <= {one.verdict for one in of_video}


def test_eval_of_run_and_bundle_agree(solar_run, solar_bundle, solar_cells, tmp_path, capsys):
    metrics = []
    for target, extra in ((solar_run, []), (solar_bundle, ["--precision", "fp32"])):
        out = tmp_path / target.name
        arguments = ["eval", target, "--data", solar_cells, "--out", out, "--json", *extra]
        assert run_cli(*arguments) == 0
        metrics.append(json.loads(capsys.readouterr().out))
        report = (out / "report.html").read_text()
        assert "solar_cell_mono" in report
        assert "http://" not in report.replace("http://www.w3.org", "")
    # A bundle that chooses the category itself, against the run when it chooses too.
    chosen, exported = metrics[0]["evaluations"][-1], metrics[1]["evaluations"][0]
    for ours, theirs in zip(chosen["categories"], exported["categories"], strict=True):
        assert theirs["category"] == ours["category"]
        assert theirs["image_auroc"] == pytest.approx(ours["image_auroc"], abs=1e-3)


def test_python_api(solar_run, solar_bundle, solar_cells):
    image = find_dataset(solar_cells).test()[0]
    frames = read_frame(image.path, open_bundle(solar_bundle).manifest.input_side)[None]
    import torch

    model = hvq_edge.load_model(solar_run)
    with torch.inference_mode():
        ours = model(torch.from_numpy(frames))
    engine = hvq_edge.open_engine(solar_bundle, precision="fp32")
    theirs = engine.run(frames)
    engine.close()
    np.testing.assert_array_equal(theirs["codes"], ours["codes"].numpy())
    np.testing.assert_allclose(theirs["score"], ours["score"].numpy(), rtol=1e-3)
    folder = image.path.parent
    decisions = list(hvq_edge.inspect(solar_bundle, camera=str(folder)))
    assert len(decisions) == len(list(folder.iterdir()))
    assert all(isinstance(decision, hvq_edge.Decision) for decision in decisions)


# --- what may be wrong ---


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def failed(capsys, code: int, *arguments: object) -> str:
    assert run_cli(*arguments) == code
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    assert "Next:" in err, err
    assert out == ""
    return " ".join(err.split())


def test_an_empty_folder(here, capsys):
    (here / "empty").mkdir()
    assert "empty" in failed(capsys, 2, "train", "--data", "empty")
    assert not (here / "runs").exists()


def test_a_folder_without_good_images(here, mvtec_folder, capsys):
    for path in (mvtec_folder / "bolt/train/good").iterdir():
        path.unlink()
    assert "bolt" in failed(capsys, 2, "train", "--data", mvtec_folder)
    assert not (here / "runs").exists()


@pytest.mark.parametrize("content", [b"hello", b"\xff\xd8\xff\xe0 cut short", b""])
def test_a_training_image_that_is_none(content, here, mvtec_folder, capsys):
    broken = mvtec_folder / "bolt/train/good/zz kaputt ü.png"
    broken.write_bytes(content)
    arguments = ("train", "--data", mvtec_folder, "--preset", "tiny", "--epochs", "1")
    assert "zz kaputt ü.png" in failed(capsys, 2, *arguments)
    assert not list(here.rglob("checkpoint.pt"))


def test_a_changed_byte_in_a_bundle(here, solar_bundle, capsys):
    bundle = Path(shutil.copytree(solar_bundle, here / "bundle"))
    path = bundle / "model.int8.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    message = failed(
        capsys, 2, "stream", "--bundle", bundle, "--camera", ".", "--precision", "int8"
    )
    assert "is not the file that was exported" in message


def test_a_missing_run(here, capsys):
    assert "runs/latest" in failed(capsys, 2, "export", "--int8")
    assert "no bundle at runs/latest/bundle" in failed(capsys, 2, "stream", "--camera", ".")
    assert not list(here.iterdir())


def test_an_unknown_category(here, solar_run, capsys):
    message = failed(capsys, 2, "export", solar_run, "--category", "gadget", "--out", "b")
    assert "solar_cell_mono, solar_cell_poly" in message
    assert not list(here.iterdir())


def test_a_camera_that_is_not_there(here, solar_bundle, capsys):
    message = failed(capsys, 3, "stream", "--bundle", solar_bundle, "--camera", "63")
    assert "63" in message


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte, or a skip where it cannot be mounted."""
    with mounted_tmpfs(tmp_path / "disk", "1m") as folder:
        yield folder


def test_a_full_disk_leaves_nothing_half_written(here, solar_run, small_disk, capsys):
    message = failed(capsys, 2, "export", solar_run, "--out", small_disk / "bundle")
    assert "no space is left" in message
    assert not list(small_disk.iterdir())


def test_a_full_disk_while_training(here, mvtec_folder, small_disk, capsys):
    arguments = ["train", "--data", mvtec_folder, "--preset", "tiny", "--epochs", "1"]
    message = failed(capsys, 2, *arguments, "--out", small_disk / "run")
    assert "no space is left" in message
    left = {path.name for path in (small_disk / "run").iterdir()}
    assert left <= {"run.json"}, "the run may go on once there is space, and nothing else is left"


def test_a_read_only_output(here, solar_run, small_disk, capsys):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    message = failed(capsys, 2, "export", solar_run, "--out", small_disk / "bundle")
    assert "read-only" in message


def test_grey_rgba_and_16_bit_images_train(here, mvtec_folder):
    import cv2

    folder = mvtec_folder / "tile" / "train" / "good"
    paths = sorted(folder.iterdir())
    for path, change in zip(
        paths,
        (
            lambda p: p[:, :, 0],
            lambda p: np.dstack([p, p[:, :, :1]]),
            lambda p: p.astype(np.uint16) * 257,
            lambda p: p[:, :, 0].astype(np.uint16) * 257,
        ),
        strict=False,
    ):
        changed = change(cv2.imread(str(path)))
        path.write_bytes(cv2.imencode(".png", changed)[1].tobytes())
    settings = here / "small.toml"
    model = "[model]\ninput_side = 64\nwidth = 16\nheads = 2\ncodes = 8\n"
    settings.write_text(f"{model}[training]\nversions = 1\n")
    arguments = ["train", "--data", mvtec_folder, "--preset", "tiny", "--settings", settings]
    assert run_cli(*arguments, "--epochs", "1", "--out", "runs/ü run") == 0
    assert (here / "runs/latest/checkpoint.pt").is_file()
