"""``hvq-edge predict`` as a user calls it, and the folder that it keeps."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
from helpers.bright_parts import bundle  # noqa: F401  # fixtures
from helpers.browser import browser, needs_chromium  # noqa: F401  # fixtures
from helpers.commands import exit_code
from helpers.images import flat, write_png
from helpers.paths import ROOT


@pytest.fixture
def images(tmp_path):
    for name, level in {"1.png": 40, "bad/2.png": 230, "bad/=cmd.png": 240}.items():
        write_png(tmp_path / "in" / name, flat(level))
    (tmp_path / "in" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return tmp_path / "in"


@pytest.fixture
def predict(bundle):
    def call(*arguments: object) -> int:
        return exit_code("predict", *map(str, arguments), "--bundle", str(bundle.path))

    return call


def test_a_line_an_image(predict, images, capsys):
    assert predict(images, images / "1.png") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["pass", "reject", "reject", "no", "pass", "5"]
    assert f"pass         {images}/1.png  score 0.1569 of 0.5  p " in lines[0]
    assert "64x64 px at 0,0" in lines[1]
    assert lines[3].count("broken.png") == 1
    assert "broken.png  cannot be used" in lines[3]
    assert lines[-1] == "5 images: 2 pass, 2 reject, 1 no decision."


def test_images_of_which_none_can_be_read_are_an_error(predict, images, tmp_path, capsys):
    for name in ("1.png", "2.png"):
        shutil.copy(images / "broken.png", tmp_path / name)
    named = tmp_path / "1.png", tmp_path / "2.png"
    assert predict(*named, "--save", tmp_path / "out", "--fail-on-reject") == 2
    said = capsys.readouterr()
    assert said.out.count("no decision  ") == 2
    assert "Error: none of the 2 images can be read." in said.err
    assert (tmp_path / "out" / "index.html").is_file()
    assert predict(*named, images / "1.png") == 0


def test_it_says_what_judges_and_why_unless_that_was_asked(predict, images, capsys):
    image = images / "1.png"
    assert predict(image) == 0
    said = capsys.readouterr().err
    assert re.search(
        r"^Judging 1 image with fp32 on .*\nWhy fp32: the bundle has no int8 model;", said, re.M
    ), said
    assert predict(image, "--precision", "fp32", "--backend", "onnxruntime") == 0
    assert "Why" not in capsys.readouterr().err


def test_what_cannot_be_read_is_said_before_an_engine_is_opened(
    predict, images, capsys, monkeypatch
):
    def opened(*_: object, **__: object) -> None:
        raise AssertionError("an engine was opened")

    monkeypatch.setattr("hvq_edge.predict.predictor.open_stream_engine", opened)
    for name in ("none.png", "broken.png"):
        assert predict(images / name) == 2
        assert name in capsys.readouterr().err


def test_a_name_makes_no_line_of_its_own(predict, images, capsys):
    write_png(images / "a\nreject  forged.png", flat(20))
    assert predict(images / "a\nreject  forged.png") == 0
    assert r"a\nreject  forged.png" in capsys.readouterr().out.splitlines()[0]


def test_lines_of_json_for_pipes(predict, images, capsys, monkeypatch):
    content = (images / "bad/2.png").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert predict("-", images / "1.png", "--json") == 0
    lines = capsys.readouterr().out.splitlines()
    found = [json.loads(line) for line in lines]
    assert [one["image"] for one in found] == ["stdin", str(images / "1.png")]
    assert [one["verdict"] for one in found] == ["reject", "pass"]
    assert found[0]["threshold"] == 0.5


@pytest.mark.parametrize(("name", "code"), [("1.png", 0), ("bad/2.png", 1), ("", 1)])
def test_scripts_can_ask_for_a_code(predict, images, name, code, capsys):
    assert predict(images / name, "--fail-on-reject") == code
    assert ("did not pass" in capsys.readouterr().err) == bool(code)


def test_no_decision_is_no_pass(predict, images, tmp_path):
    assert predict(images / "1.png", images / "broken.png", "--fail-on-reject") == 1


def test_faults_leave_nothing(predict, images, tmp_path, capsys):
    out = tmp_path / "out"
    assert exit_code("predict", str(images), "--bundle", str(tmp_path), "--save", str(out)) == 2
    assert predict(images / "none.png", "--save", out, "--backend", "none") == 2
    assert predict("-", "-") == 2
    assert not out.exists()
    assert predict(images / "broken.png") == 2  # named alone, it is the user's mistake
    (tmp_path / "file").touch()
    assert predict(images, "--save", tmp_path / "file") == 2
    assert capsys.readouterr().out == ""


def test_a_kept_folder(predict, images, tmp_path):
    out = tmp_path / "out"
    assert predict(images, images / "1.png", "--save", out) == 0
    kept = json.loads((out / "results.json").read_text("utf-8"))
    assert [one["verdict"] for one in kept] == ["pass", "reject", "reject", "no_decision", "pass"]
    for one in kept:
        wanted = {"overlay", "heat", "mask"} if one["score"] is not None else {"overlay"}
        assert set(one["files"]) == wanted
        assert all((out / name).is_file() for name in one["files"].values())
    assert len({name for one in kept for name in one["files"].values()}) == 13  # 1.png twice
    rows = list(csv.DictReader((out / "results.csv").open(encoding="utf-8", newline="")))
    assert [row["verdict"] for row in rows] == [one["verdict"] for one in kept]
    assert rows[1]["image"] == str(images / "bad/2.png")
    assert float(rows[1]["score"]) == kept[1]["score"]


def test_parts_have_their_serial_number(predict, images, tmp_path, capsys):
    write_png(images / "cell SN0042 top.png", flat(60))
    assert predict(images, "--part-from", r"SN\d+", "--save", tmp_path / "out", "--json") == 0
    found = {
        one["image"]: one["part"] for one in map(json.loads, capsys.readouterr().out.splitlines())
    }
    assert found.pop(str(images / "cell SN0042 top.png")) == "SN0042"
    assert set(found.values()) == {None}
    rows = list(csv.DictReader((tmp_path / "out/results.csv").open(encoding="utf-8", newline="")))
    assert "SN0042" in {row["part"] for row in rows}
    assert "part SN0042" in (tmp_path / "out/index.html").read_text("utf-8")
    assert predict(images, "--part-from", "(") == 2
    assert predict(images, "--part-code", "none") == 2


def test_a_folder_is_not_judged_with_what_was_kept_in_it(predict, images, capsys):
    assert predict(images, "--save", images / "out") == 0
    first = capsys.readouterr().out.splitlines()
    assert predict(images, "--save", images / "out") == 0
    again = capsys.readouterr()
    assert again.out.splitlines() == first
    assert "Left out: " in again.err
    assert predict(images / "out", "--save", images / "out") == 2


def test_own_images_in_the_kept_folder_are_judged(predict, images, monkeypatch, capsys):
    """Whoever works in the folder of the images keeps the results there."""
    monkeypatch.chdir(images)
    assert predict("bad", "1.png", "--save", ".") == 0
    first = capsys.readouterr().out.splitlines()
    assert first[-1] == "Gallery: index.html"
    assert "3 images: 1 pass, 2 reject" in first[-2]
    assert predict("bad", "1.png", "--save", ".") == 0
    assert capsys.readouterr().out.splitlines() == first
    write_png(Path("bad/cut.overlay.2.png"), flat(60))  # not quite a name of ours
    assert predict(".", "--save", ".") == 0
    again = capsys.readouterr()
    assert "5 images: 2 pass, 2 reject, 1 no decision." in again.out
    assert re.search(r"^Left out: [0-9]+ images in \., ", again.err, re.M)


def test_names_that_are_no_text_are_kept_with_escapes(predict, images, tmp_path, capsys):
    """Files from an old Windows share: their names are Latin-1."""
    for source in ("1.png", "broken.png"):
        shutil.copy(images / source, images / os.fsdecode(b"teil_\xfc " + source.encode()))
    out = tmp_path / "out"
    assert predict(images, "--save", out) == 0
    assert capsys.readouterr().out.count(r"teil_\udcfc broken.png") == 1
    kept = json.loads((out / "results.json").read_text("utf-8"))
    (one,) = (one for one in kept if one["image"] == rf"{images}/teil_\udcfc 1.png")
    assert one["files"]["heat"] == r"teil_\udcfc 1.heat.png"
    rows = csv.DictReader((out / "results.csv").open(encoding="utf-8", newline=""))
    assert [row["image"] for row in rows] == [one["image"] for one in kept]
    page = (out / "index.html").read_text("utf-8")
    links = re.findall(r'src="([^"]+)"', page)
    assert len(links) == len(kept) == 6
    assert all((out / unquote(link)).is_file() for link in links)


def test_names_stay_in_the_folder_and_are_no_formulas(bundle, images, tmp_path):
    import hvq_edge
    from hvq_edge.predict.results_folder import ResultsFolder

    folder = ResultsFolder(tmp_path / "out", "Title <b>")
    with hvq_edge.load(bundle) as model:
        result = model.predict(images / "1.png")
        for place in ("../../a.png", "/etc/a.png", "a.jpg", "=1+1", "<u>&.png"):
            folder.add(result, place)
    written = folder.finish()
    inside = list((tmp_path / "out").rglob("*.png"))
    assert len(inside) == 15
    assert not (tmp_path / "a.overlay.png").exists()
    page = written[2].read_text("utf-8")
    assert "Title &lt;b&gt;" in page
    assert "<u>" not in page
    assert "%3Cu%3E%26.overlay.png" in page


@needs_chromium
def test_the_gallery_in_a_browser(predict, images, tmp_path, browser):
    """It opens from the disk, without a network, the worst first; and can be filtered."""
    out = tmp_path / "out"
    assert predict(images, "--save", out) == 0
    page = browser.new_page(viewport={"width": 390, "height": 844}, offline=True)
    faults = []
    page.on("console", lambda message: faults.append(message.text))
    page.on("requestfailed", lambda request: faults.append(request.url))
    page.goto(f"file://{out}/index.html")
    names = page.locator("figcaption div")
    assert names.all_text_contents() == ["broken.png", "bad/=cmd.png", "bad/2.png", "1.png"]
    for picture in page.locator("figure img").all():
        picture.scroll_into_view_if_needed()
        page.wait_for_function("image => image.naturalWidth > 0", arg=picture.element_handle())
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 390
    page.get_by_text("reject", exact=False).first.click()
    visible = [one.is_visible() for one in page.locator("figure").all()]
    assert visible == [False, True, True, False]
    assert faults == []


def test_the_pages_commands_and_lines_run_as_they_stand(
    small_bundle, solar_cells, tmp_path, monkeypatch, capsys
):
    pages = [(ROOT / name).read_text("utf-8") for name in ("README.md", "docs/how-to/predict.md")]
    named = {line for page in pages for line in re.findall(r"hvq-edge (predict [^`\n]+)", page)}
    assert len(named) >= 4
    monkeypatch.chdir(tmp_path)
    shutil.copytree(solar_cells / "solar_cell_mono" / "test", "photos")
    for copy in ("photos/part.png", "part.png"):
        shutil.copy(next(Path("photos/good").glob("*.png")), copy)
    Path("runs").mkdir()
    Path("runs/latest").symlink_to(small_bundle.parent)
    for line in named:
        content = Path("part.png").read_bytes()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        words = [
            word.replace("~/.cache/hvq-edge/solar-cells", str(solar_cells))
            for word in shlex.split(line)
        ]
        assert exit_code(*words) == 0, words
    assert Path("judged/index.html").is_file()
    assert capsys.readouterr().out.count("Gallery: judged/index.html") >= 1
    (code,) = re.findall(r"^```python\n(.*?)^```", pages[1], re.DOTALL | re.MULTILINE)
    exec(compile(code, "docs/how-to/predict.md", "exec"), {})  # as a reader would
    assert Path("judged/part.overlay.png").is_file()
    assert capsys.readouterr().out.split()[0] in ("pass", "reject", "no_decision")
