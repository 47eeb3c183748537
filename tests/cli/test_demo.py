"""``hvq-edge demo``: where it writes, what is done again, and the page that it ends with."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
import webbrowser
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
import typer
from helpers.agreements import compare_one, outputs
from helpers.commands import exit_code
from helpers.graphs import save_bundle
from helpers.judged_images import UNDEFINED

from hvq_edge.bundle.verification import PrecisionVerdict, Verification
from hvq_edge.cli import demo, demo_end
from hvq_edge.cli.console import SafeConsole
from hvq_edge.evaluation.demo_page import CategoryVerdicts, judged_parts, write_demo_page
from hvq_edge.evaluation.metrics.metrics_file import EvaluationRecord, MetricsFile, write_metrics
from hvq_edge.evaluation.metrics.results import CategoryMetrics
from hvq_edge.run.record import read_run
from hvq_edge.verdict.judgement import VerdictCounts

pytest.importorskip("torch", reason="the demo asks for the train extra before anything else")

REJECTED = {1, 4, 5, 9, 12}
UNDECIDED = {7}


def inspected(inspection: Path, frames: int, time: str = "2") -> None:
    """Add what ``stream --out`` writes of so many frames."""
    inspection.mkdir(parents=True, exist_ok=True)
    with (inspection / "decisions.jsonl").open("a", encoding="utf-8") as lines:
        for frame in range(frames):
            verdict = (
                "reject" if frame in REJECTED else "no_decision" if frame in UNDECIDED else "pass"
            )
            score = None if verdict == "no_decision" else 1.0 + frame
            said = {"frame": frame, "verdict": verdict, "score": score, "reason": f"<{frame}>"}
            lines.write(json.dumps(said) + "\n")
            if verdict == "reject":
                (inspection / "rejects").mkdir(exist_ok=True)
                (inspection / f"rejects/{time}Z-{frame:06}_overlay.jpg").touch()
    count = len(list(inspection.glob("annotated*.mp4")))
    (inspection / f"annotated{f'-{count + 1}' if count else ''}.mp4").touch()


@pytest.fixture
def made(tmp_path, mvtec_folder) -> Path:
    """What the stages leave of 16 test images, 4 good and 4 defective ones of two categories."""
    run = tmp_path / "läufe und mehr" / "demo"
    inspected(run / "inspection", 16)
    categories = tuple(
        CategoryMetrics(
            **UNDEFINED.model_dump() | {"image_auroc": 0.875, "image_ap": 0.5},
            category=name,
            good=4,
            defective=4,
            image_f1_threshold=None,
        )
        for name in ("bolt", "tile")
    )
    mean = UNDEFINED.model_copy(update={"image_auroc": 0.875})
    record = EvaluationRecord(
        category="chosen", mean=mean, categories=categories, images=(), unreadable={}
    )
    content = MetricsFile(
        hvq_edge_version="0",
        created="2026-01-02T00:00:00+00:00",
        target="",
        data="",
        backend="torch",
        precision="fp32",
        device="",
        evaluations=(record,),
    )
    write_metrics(run / "metrics.json", content)
    rows = [compare_one(outputs(0), [("a", False, True)], "int8") for _ in range(2)]
    verification = Verification(
        passed=True,
        checkpoint_sha256="",
        data="",
        images=1,
        precisions={"int8": PrecisionVerdict(passed=True, faults=())},
        comparisons=tuple(rows),
    )
    (run / "bundle").mkdir()
    (run / "bundle/verify.json").write_text(verification.model_dump_json())
    (run / "report.html").touch()
    return run


class Links(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, _tag, attrs):
        self.found += [value for name, value in attrs if name in ("href", "src")]


@pytest.fixture
def ended(made, mvtec_folder, monkeypatch, capsys) -> tuple[str, str]:
    """The page of a demo whose stages have all been done, and what the demo printed."""
    monkeypatch.setattr(demo, "demo_stages", lambda *_: [])
    assert exit_code("demo", "--out", str(made), "--data", str(mvtec_folder)) == 0
    return (made / "index.html").read_text(encoding="utf-8"), capsys.readouterr().out


def test_the_page_leads_to_what_was_made_and_to_nothing_else(ended, made):
    page, _ = ended
    links = [one for one in Links(page).found if not one.startswith("data:")]  # but the icon
    assert sum(link.endswith("_overlay.jpg") for link in links) == 2 * len(REJECTED)
    assert {"report.html", "bundle/verify.json", "inspection/annotated.mp4"} <= set(links)
    for link in links:
        assert not Path(unquote(link)).is_absolute()
        assert (made / unquote(link)).exists(), link
    assert "://" not in page
    assert "&lt;7&gt;" in page, "why there was no decision, escaped"


def test_page_and_terminal_count_the_same(ended):
    page, printed = ended
    rows = re.findall(r"<tr><td>(bolt|tile)</td>(.*?)</tr>", page)
    assert len(rows) == 2
    good = bad = 0
    for name, cells in rows:
        _, _, rejected, found, _ = re.findall("<td>(.*?)</td>", cells)
        good, bad = good + int(rejected.split()[0]), bad + int(found.split()[0])
        assert re.search(rf"{name} +\W +{rejected} \W +{found} ", printed), name
    assert good + bad == len(REJECTED)
    assert f"<b>{bad} of 8</b>" in page
    assert f"<b>{good} of 8</b>" in page
    assert "<b>1 of 1</b>" in page, "INT8's verdict on the one image, once for all its engines"


def test_the_page_comes_first_and_each_next_command_names_what_is_there(ended, made):
    page, printed = ended
    first = printed.split("Look at:\n")[1].splitlines()[0]
    assert first.split("  ")[-1].strip() == str(made / "index.html")
    assert f"--bundle '{made}'/bundle" in printed
    assert f"--bundle &#39;{made}&#39;/bundle" in page


def test_an_inspection_that_was_interrupted_is_done_again(made, mvtec_folder):
    shutil.rmtree(made / "bundle")
    save_bundle(made / "bundle")
    (*_, stage) = demo.demo_stages(made, mvtec_folder, 1)
    assert stage.name == "stream"
    shutil.rmtree(made / "inspection")
    assert not stage.done()
    inspected(made / "inspection", 9)
    assert not stage.done(), "nine of its frames"
    inspected(made / "inspection", 16)
    assert stage.done()
    inspected(made / "inspection", 9)
    assert not stage.done(), "whole before, interrupted since"
    decisions = made / "inspection/decisions.jsonl"
    decisions.write_bytes(decisions.read_bytes()[:-9])
    assert not stage.done(), "torn"
    decisions.unlink()
    assert not stage.done(), "a video alone"


def test_a_verification_that_failed_or_cannot_be_read_is_done_again(made, mvtec_folder):
    path = made / "bundle/verify.json"
    passed = path.read_text()
    shutil.rmtree(made / "bundle")
    save_bundle(made / "bundle")
    stage = next(one for one in demo.demo_stages(made, mvtec_folder, 1) if one.name == "verify")
    assert not stage.done()
    path.write_text(passed)
    assert stage.done()
    path.write_text(passed.replace('"passed":true', '"passed":false', 1))
    assert not stage.done(), "the demo would end with 0"
    path.write_text(passed[:-9])
    assert not stage.done(), "torn"


def test_the_newest_pictures_of_rejects_and_the_newest_video_are_shown(made, mvtec_folder):
    inspected(made / "inspection", 16, time="3")
    images = demo._in_the_video(mvtec_folder)
    parts = judged_parts(made / "inspection", images)
    shown = {part.overlay for part in parts} - {None}
    assert len(shown) == len(REJECTED)
    assert all("/3Z-" in one for one in shown)
    os.utime(made / "inspection/annotated.mp4", (1, 1))
    page = write_demo_page(made, parts, []).read_text(encoding="utf-8")
    assert "inspection/annotated-2.mp4" in page
    assert "inspection/annotated.mp4" not in page


def test_a_narrow_terminal_still_tells_categories_apart(monkeypatch):
    written = io.StringIO()
    narrow = SafeConsole(file=written, width=60, highlight=False)
    monkeypatch.setattr(demo_end, "results", narrow)
    counts = VerdictCounts(rejected=3, passed=54, no_decision=3)
    names = ("solar_cell_mono", "solar_cell_poly")
    demo_end.show_verdicts([CategoryVerdicts(name, counts, counts) for name in names])
    assert all(name in written.getvalue() for name in names)
    assert max(map(len, written.getvalue().splitlines())) <= 60


def test_what_is_not_installed_is_said_before_anything_is_made(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "elpv_dataset", None)
    assert exit_code("demo", "--out", str(tmp_path / "run")) == 3
    said = capsys.readouterr().err
    assert "torch, elpv_dataset" in said
    assert "pip install 'hvq-edge[train,demo]'" in said
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_to_is_said_at_once(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert exit_code("demo", "--out", str(tmp_path / "file" / "run")) == 2
    assert "--out" in capsys.readouterr().err.partition("Next:")[2]


def test_a_run_of_other_images_is_left_alone(small_run, tmp_path, monkeypatch, capsys):
    def stages(*_: object) -> list[demo.Stage]:
        raise typer.Exit(9)

    monkeypatch.setattr(demo, "demo_stages", stages)
    run = ("demo", "--out", str(small_run))
    assert exit_code(*run, "--data", str(tmp_path)) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "not of the demo's images" in said
    assert "--out" in said.partition("Next:")[2]
    assert exit_code(*run, "--data", read_run(small_run).data) == 9


@pytest.mark.parametrize("home", ["a file", "nobody's"])
def test_without_a_home_the_images_lie_beside_the_run(home, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    if home == "a file":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    else:
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("none")))
    given: list[Path] = []

    def stages(out: Path, images: Path, epochs: int) -> list[demo.Stage]:
        given.append(images)
        raise typer.Exit(9)

    monkeypatch.setattr(demo, "demo_stages", stages)
    assert exit_code("demo", "--out", str(tmp_path / "runs" / "demo")) == 9
    assert given == [tmp_path / "runs" / "solar-cells"]
    assert str(given[0]) in capsys.readouterr().err.replace("\n", "")


class Browser:
    def __init__(self, name: str) -> None:
        self.name = name
        self.opened: list[str] = []

    def open(self, url: str) -> bool:
        self.opened.append(url)
        return True


@pytest.mark.parametrize(
    ("environment", "name", "opens"),
    [
        ({"DISPLAY": ":0"}, "xdg-open", True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "firefox", True),
        ({}, "xdg-open", False),
        ({"DISPLAY": ":0"}, "/usr/bin/w3m", False),
        ({"DISPLAY": "localhost:10.0", "SSH_CONNECTION": "a b c d"}, "xdg-open", False),
        ({"DISPLAY": ":0", "CI": "true"}, "xdg-open", False),
    ],
)
def test_it_opens_where_somebody_sits_before_a_screen(environment, name, opens, monkeypatch):
    browser = Browser(name)
    monkeypatch.setattr(webbrowser, "get", lambda: browser)
    assert demo_end.open_at_a_screen(Path("/läufe/index.html"), environment) == opens
    assert browser.opened == ["file:///l%C3%A4ufe/index.html"] * opens


def test_what_is_printed_into_a_file_opens_nothing(made, mvtec_folder, monkeypatch):
    """On a desktop too: whoever asks for it is not looking."""
    monkeypatch.setattr(demo, "demo_stages", lambda *_: [])
    browser = Browser("xdg-open")
    monkeypatch.setattr(webbrowser, "get", lambda: browser)
    monkeypatch.setenv("DISPLAY", ":0")
    arguments = ["demo", "--out", str(made), "--data", str(mvtec_folder)]
    assert exit_code(*arguments) == 0
    assert browser.opened == []
    for variable in ("CI", "SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(type(demo.results), "is_terminal", True)
    assert exit_code(*arguments, "--no-open") == 0
    assert browser.opened == []
    assert exit_code(*arguments) == 0
    assert browser.opened == [(made / "index.html").as_uri()]
