"""A line from Python: with the same settings it does what ``hvq-edge stream`` does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import httpx
import pytest
from helpers.images import write_video
from helpers.patience import until
from helpers.running_line import parts, rows_of, save_film, save_line_bundle
from typer import Typer
from typer.testing import CliRunner

from hvq_edge.bundle.integrity.keys import new_key
from hvq_edge.bundle.integrity.signature import sign_bundle
from hvq_edge.bundle.opened import open_bundle
from hvq_edge.bundle.thresholds import save_threshold
from hvq_edge.cli.stream import add_stream
from hvq_edge.errors import InputError, SettingsError
from hvq_edge.stream.from_settings import learn_thresholds, open_line
from hvq_edge.stream.log.reviews import latest_reviews
from hvq_edge.stream.log.verification import verify_log
from hvq_edge.stream.settings import load_stream_settings

OF_THE_RUN = {"time", "latency_ms"}
"""What differs from run to run."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return save_line_bundle(tmp_path_factory.mktemp("line") / "bundle")


@pytest.fixture
def file(bundle, tmp_path):
    """Settings of many kinds: a region, a rotation, a rule over frames, and what is recorded."""
    film = save_film(tmp_path / "film.avi", 24)
    path = tmp_path / "stream.toml"
    path.write_text(
        f'bundle = "{bundle.path}"\nbackend = "onnxruntime"\ndisplay = false\nvideo = false\n'
        f'[[cameras]]\ncamera = "{film}"\nname = "left"\nrotate = 90\nroi = [4, 4, 48, 48]\n'
        '[decision]\nk_of_n = "1/2"\nmm_per_pixel = 0.5\n[sinks.rejects]\ncontext_frames = 1\n'
    )
    return path


def command(*arguments: object) -> str:
    app = Typer()
    add_stream(app)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None, result.output
    return result.stdout


def same(decisions: list[dict]) -> list[dict]:
    return [{k: v for k, v in one.items() if k not in OF_THE_RUN} for one in decisions]


def test_the_same_settings_give_the_same_decisions_and_files(file, tmp_path):
    printed = command("--config", file, "--out", tmp_path / "command", "--json")
    settings = load_stream_settings(file, flags={"out": tmp_path / "python"})
    with open_line(settings) as line:
        assert (line.page, line.without_threshold) == (None, ())
        decisions = [json.loads(decision.to_json()) for decision in line]
    assert same(decisions) == same([json.loads(each) for each in printed.splitlines()])
    assert {one["verdict"] for one in decisions} == {"pass", "reject"}
    assert any(one["part_verdict"] for one in decisions)

    def recorded(out: str) -> list[str]:
        return sorted(
            path.relative_to(tmp_path / out).as_posix()
            for path in (tmp_path / out).rglob("*")
            if path.parent.name != "rejects"  # their names begin with the time
        )

    assert recorded("python") == recorded("command")
    rejects = [len(list((tmp_path / out / "rejects").iterdir())) for out in ("python", "command")]
    assert rejects[0] == rejects[1] > 0
    ends = [json.loads(rows_of(tmp_path / out)[-1]["more"]) for out in ("python", "command")]
    assert ends[0]["counts"] == ends[1]["counts"]


def test_whoever_has_seen_enough_leaves_a_whole_log(file, tmp_path):
    settings = load_stream_settings(file, flags={"out": tmp_path / "out"})
    with open_line(settings) as line:
        for decision in line:
            if decision.verdict == "reject":
                break
    rows = rows_of(tmp_path / "out")
    counts = json.loads(rows[-1]["more"])["counts"]
    decided = counts["passed"] + counts["rejected"] + counts["no_decision"]
    assert decided == sum(row["verdict"] is not None for row in rows)
    assert counts["rejected"] == 1


def test_people_judge_what_a_line_decided_while_it_runs_and_when_it_has_ended(file, tmp_path):
    out = tmp_path / "out"
    settings = load_stream_settings(file, page={"port": 0}, flags={"out": out})
    with open_line(settings) as line:
        headers = {"authorization": f"Bearer {line.page.token}"}
        with httpx.Client(base_url=line.page.url, headers=headers, timeout=60) as asking:
            assert asking.get("/api/state").json()["can_review"] is True

            def judge_one() -> None:
                (first, *_) = asking.get("/api/review/queue?name=reject").json()["items"]
                asked = {"decision": first["id"], "judgement": "good", "by": "Ada"}
                answer = asking.post("/api/review", json=asked)
                assert answer.status_code == 200, answer.text
                assert rows_of(out)[answer.json()["id"] - 1]["kind"] == "review"

            for decision in line:
                if decision.frame == 10:
                    until(lambda: asking.get("/api/review").json()["queues"][0]["images"])
                    judge_one()
            line.finish()
            judge_one()
    assert len(latest_reviews(out)) == 2
    assert verify_log(out).whole
    assert [row["kind"] for row in rows_of(out)][-2:] == ["session_end", "review"]


def test_the_same_settings_learn_the_same_thresholds(bundle, tmp_path):
    good = [image for i, image in enumerate(parts(70)) if i % 10 != 3]
    film = write_video(tmp_path / "good.avi", good)
    of_command = Path(shutil.copytree(bundle.path, tmp_path / "command"))
    of_python = Path(shutil.copytree(bundle.path, tmp_path / "python"))
    asked = ["--calibrate", 60, "--false-reject", 0.1, "--confidence", 0.9]
    command("--bundle", of_command, "--camera", film, "--every", 1, *asked)
    settings = load_stream_settings(cameras=[str(film)], flags={"bundle": of_python})
    names: list[str] = []
    done = learn_thresholds(settings, 60, false_reject=0.1, confidence=0.9, on_camera=names.append)
    assert names == [str(film)]
    opened = [open_bundle(path) for path in (of_command, of_python)]
    opened = [open_bundle(path) for path in (of_command, of_python)]
    learnt = [one.manifest.thresholds["fp32"]["bolt"] for one in opened]
    assert learnt[0].value == learnt[1].value == done.thresholds["bolt"].value
    assert [one.bound.confidence for one in learnt] == [0.9, 0.9]
    assert learnt[0].bound.rate == learnt[1].bound.rate
    assert learnt[0].bound.expected == learnt[1].bound.expected == 0.1


def test_a_signature_that_does_not_hold_is_said_though_nobody_asked(bundle, tmp_path, caplog):
    signed = Path(shutil.copytree(bundle.path, tmp_path / "signed"))
    new_key(tmp_path / "office")
    sign_bundle(signed, tmp_path / "office")
    film = save_film(tmp_path / "film.avi", 4)
    settings = load_stream_settings(
        cameras=[str(film)], flags={"bundle": signed, "display": False, "out": tmp_path / "out"}
    )
    with open_line(settings):
        assert caplog.messages == []
    save_threshold(open_bundle(signed), "fp32", "bolt", 0.4)
    with open_line(settings):
        (said,) = caplog.messages
    assert f"the signature of {signed} does not hold: bundle.json was changed after" in said


def test_what_cannot_be_opened_is_said_before_the_block(file, tmp_path):
    settings = load_stream_settings(file, cameras=[str(tmp_path / "none.avi")])
    with pytest.raises(InputError), open_line(settings):
        pytest.fail("nothing is open")
    several = load_stream_settings(file, cameras=["0", "1"])
    with pytest.raises(SettingsError, match="one camera at a time"):
        learn_thresholds(several, 10)
