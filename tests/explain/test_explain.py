"""``hvq-edge explain``: shares that add up to the score, offline pages, clear refusals."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import jsonschema
import numpy as np
import pytest
from helpers.browser import browser, needs_chromium  # noqa: F401  # fixtures
from helpers.commands import exit_code
from helpers.exemplars import put_exemplars
from helpers.images import flat, write_png

from hvq_edge.bundle.integrity.content import CARD_NAME
from hvq_edge.bundle.opened import Bundle, open_bundle
from hvq_edge.errors import BundleError
from hvq_edge.evaluation.explain_run import RunInsight
from hvq_edge.explain.explanation import LEVEL, MAP, ROUNDING, BundleInsight, explain
from hvq_edge.explain.pages import render_codebook, render_explanation
from hvq_edge.explain.words import place_title
from hvq_edge.predict.images import NamedImage, find_images
from hvq_edge.predict.predictor import load

NUMBER, TEXT = {"type": "number"}, {"type": "string"}
SCHEMA = {
    "type": "object",
    "required": ["verdict", "score", "category", "places", "exemplars", "notes", "files"],
    "properties": {
        "places": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["box", "score", "shares", "cell", "nearest"],
                "properties": {
                    "box": {"type": "array", "items": {"type": "integer"}, "minItems": 4},
                    "score": NUMBER,
                    "shares": {"type": "object", "additionalProperties": NUMBER},
                    "nearest": {
                        "type": "array",
                        "minItems": 1,
                        "items": {
                            "type": "object",
                            "required": ["codebook", "code", "share_of_good_cells", "exemplars"],
                            "properties": {
                                "share_of_good_cells": {**NUMBER, "minimum": 0, "maximum": 1},
                                "code": {"type": "integer", "minimum": 0},
                                "distance": {"type": ["number", "null"]},
                            },
                        },
                    },
                },
            },
        },
        "files": {"type": "array", "items": TEXT},
    },
}


@pytest.fixture(scope="module")
def image(solar_cells) -> Path:
    return min(solar_cells.glob("solar_cell_poly/test/good/*"))


@pytest.fixture(scope="module")
def insight(small_run, small_bundle):
    return RunInsight(small_run, open_bundle(small_bundle))


@pytest.fixture(scope="module")
def with_exemplars(small_trained_bundle, insight, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("explained") / "bundle"
    shutil.copytree(small_trained_bundle, folder)
    put_exemplars(folder, insight)
    return folder


@pytest.fixture
def bundle_alone(with_exemplars, tmp_path) -> Path:
    """As it comes to a device: without its run."""
    return Path(shutil.copytree(with_exemplars, tmp_path / "device" / "bundle"))


def explained(bundle, named: Path, insight, precision: str, above: float | None = None):
    """Explain an image; with ``above``, at a threshold so far below its score."""
    with load(open_bundle(bundle), precision=precision, backend="onnxruntime") as model:
        if above is not None:
            score = model.predict(named).score
            model.thresholds = dict.fromkeys(model.thresholds, score - above)
        (result,) = model.each(find_images(named), strict=True)
        return explain(result, insight or BundleInsight(open_bundle(bundle)))


@pytest.mark.parametrize("above", [None, 0.5, 3.0])
def test_shares_add_up_to_the_score(above, small_bundle, image, insight):
    found = explained(small_bundle, image, insight, "fp32", above)
    assert len(found.places) == max(len(found.result.regions), 1)
    assert bool(found.result.regions) == (above is not None)
    assert ("no region" in place_title(1, found.places[0])) == (above is None)
    assert found.places[0].score == pytest.approx(found.result.score, rel=1e-6)
    for place, region in zip(found.places, found.result.regions, strict=False):
        assert (place.score, place.box) == (region.peak, region.box)
    for place in found.places:
        assert set(place.shares) == {
            *("distance", "transport level 0", "prototypes"),
            *(LEVEL, ROUNDING),
        }
        assert sum(place.shares.values()) == pytest.approx(place.score, abs=1e-9)
        # What the parts do not account for is what two engines differ by in float32.
        assert abs(place.shares[ROUNDING]) < 2e-4 * max(map(abs, place.shares.values()))
        assert all(place.shares[name] != 0 for name in ("distance", "prototypes"))


def test_of_int8_the_shares_add_up_to_what_int8_gave(small_bundle, image, insight):
    found = explained(small_bundle, image, insight, "int8", 0.5)
    for place in found.places:
        assert sum(place.shares.values()) == pytest.approx(place.score, abs=1e-9)
    assert found.places[0].score == pytest.approx(found.result.score, rel=1e-6)
    assert found.places[0].shares[ROUNDING] != 0


def test_the_cell_shown_is_one_of_the_place(small_bundle, image, insight):
    found = explained(small_bundle, image, insight, "fp32", 0.5)
    height, width = found.result.image.shape[:2]
    grid = found.result.map.shape[0]
    for place in found.places:
        row, column = divmod(place.token, grid)
        left, top, across, down = place.box
        assert left - width / grid <= (column + 0.5) * width / grid <= left + across + width / grid
        assert top - height / grid <= (row + 0.5) * height / grid <= top + down + height / grid
    highest = np.unravel_index(found.result.map.argmax(), found.result.map.shape)
    first = divmod(found.places[0].token, grid)
    assert found.result.map[first] >= 0.5 * found.result.map[highest]


def test_a_bundle_alone_tells_what_its_graph_gives(bundle_alone, image):
    found = explained(bundle_alone, image, None, "fp32", 0.5)
    (place, *_) = found.places
    assert set(place.shares) == {MAP, LEVEL}
    assert sum(place.shares.values()) == pytest.approx(place.score, abs=1e-6)
    assert [one.name for one in place.nearest] == ["level 0", "level 1", "top"]
    assert all(one.distance is None for one in place.nearest)
    assert any("missing: " in note for note in found.notes)


def test_a_bundle_and_its_run_name_the_same_codes(bundle_alone, small_run, image):
    """Both are of the same weights, and float32."""
    alone = explained(bundle_alone, image, None, "fp32")
    whole = explained(bundle_alone, image, RunInsight(small_run, open_bundle(bundle_alone)), "fp32")
    for mine, theirs in zip(alone.places[0].nearest, whole.places[0].nearest, strict=False):
        assert (mine.code, mine.share) == (theirs.code, theirs.share)
    assert len(whole.places[0].nearest) == len(alone.places[0].nearest) + 1


def test_a_device_needs_no_pytorch(bundle_alone, image, tmp_path):
    script = (
        "import sys\n"
        "for name in ('torch', 'sklearn', 'onnx', 'scipy'): sys.modules[name] = None\n"
        "from hvq_edge.cli.app import main\n"
        f"main(['explain', {str(image)!r}, '--bundle', {str(bundle_alone)!r}, '--save', "
        f"{str(tmp_path / 'out')!r}])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "of good cells choose it" in done.stdout
    assert "missing: which part of the map" in done.stderr
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_the_card_says_that_product_images_are_in_a_bundle(small_bundle, with_exemplars):
    said = "carries good training images"
    assert said in (with_exemplars / CARD_NAME).read_text("utf-8")
    assert said not in (small_bundle / CARD_NAME).read_text("utf-8")


def test_a_changed_file_of_exemplars_is_refused(bundle_alone, image, capsys):
    name = next(name for name in open_bundle(bundle_alone).manifest.files if "exemplars" in name)
    content = bytearray((bundle_alone / name).read_bytes())
    content[-400] ^= 1
    (bundle_alone / name).write_bytes(content)
    assert exit_code("explain", "--codebook", "--bundle", str(bundle_alone)) == 2
    assert "is not the file that was exported" in capsys.readouterr().err


def test_a_bundle_without_exemplars_says_what_to_do(small_bundle, image, tmp_path, capsys):
    alone = ("--bundle", str(shutil.copytree(small_bundle, tmp_path / "bundle")))
    assert exit_code("explain", "--codebook", *alone) == 2
    assert "carries no exemplars" in capsys.readouterr().err
    out = tmp_path / "out"
    assert exit_code("explain", str(image), *alone, "--save", str(out)) == 0, "with what it has"
    said = capsys.readouterr()
    assert "top, code" in said.out
    assert "good cell" not in said.out
    assert "--run RUN" in said.err.replace("\n", " ")
    assert "hvq-edge export --exemplars" in (out / f"{image.stem}.explain.html").read_text("utf-8")


def test_a_run_that_the_bundle_is_not_of_is_refused(small_bundle, small_run):
    bundle = open_bundle(small_bundle)
    other = bundle.manifest.model_copy(update={"checkpoint_sha256": "0" * 64})
    with pytest.raises(BundleError, match="does not come from"):
        RunInsight(small_run, Bundle(bundle.path, other))


def test_what_cannot_be_explained_exits_with_2(small_bundle, solar_cells, tmp_path, capsys):
    black = write_png(tmp_path / "black.png", flat(0, 300))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    out = tmp_path / "out"
    named = [[str(black)], [str(tmp_path / "broken.png")], [str(tmp_path / "none.png")]]
    named += [[str(solar_cells)], [], [str(black), "--codebook"]]
    for arguments in named:
        call = ("explain", *arguments, "--bundle", str(small_bundle), "--save", str(out))
        assert exit_code(*call) == 2, arguments
        assert "Next:" in capsys.readouterr().err
    assert not out.exists()
    assert exit_code("explain", "--codebook", "--category", "x", "--bundle", str(small_bundle)) == 2


def test_a_run_alone_explains_with_its_own_bundle(small_bundle, image, capsys):
    assert exit_code("explain", str(image), "--run", str(small_bundle.parent), "--json") == 0
    by_run = json.loads(capsys.readouterr().out)
    assert exit_code("explain", str(image), "--bundle", str(small_bundle), "--json") == 0
    assert by_run == json.loads(capsys.readouterr().out)


def test_the_command_keeps_a_page_a_picture_and_json(small_bundle, image, tmp_path, capsys):
    hostile = tmp_path / "<img src=x onerror=alert(1)>.png"
    shutil.copy(image, hostile)
    out = tmp_path / "out"
    call = ("explain", str(hostile), "--bundle", str(small_bundle), "--save", str(out), "--json")
    assert exit_code(*call) == 0
    said = json.loads(capsys.readouterr().out)
    jsonschema.validate(said, SCHEMA)
    page, picture, data = map(Path, said["files"])
    kept = json.loads(data.read_text("utf-8"))
    assert kept == {name: value for name, value in said.items() if name != "files"}
    images = said["exemplars"]["images"]
    for place in said["places"]:
        for own in (own for one in place["nearest"] for own in one["exemplars"]):
            assert re.fullmatch(r"[0-9a-f]{64}", images[own["image"]])
    assert cv2.imread(str(picture)).shape[0] > 480
    text = page.read_text("utf-8")
    assert "<img src=x" not in text
    assert "&lt;img src=x" in text
    opens_offline(text)


def opens_offline(page: str) -> None:
    text = re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)
    assert not re.search(r"https?:|//[a-z]|<script|<link(?! rel=\"icon\")|@import", text)
    assert set(re.findall(r"(?:url\(|src=\"|href=\")([a-z]+:)", page)) == {"data:"}
    assert "default-src 'none'" in page


def test_the_terminal_says_it_in_words(small_bundle, image, capsys):
    assert exit_code("explain", str(image), "--bundle", str(small_bundle)) == 0
    said = capsys.readouterr().out
    for words in ("distance from what was rebuilt", "top, code", "prototype ", "usual is"):
        assert words in said
    score = float(re.search(r"score ([\d.]+)", said)[1])
    first = said.split("\n\n")[1]
    shares = [float(value) for value in re.findall(r"^   ([+-][\d.]+) ", first, re.M)]
    assert sum(shares) == pytest.approx(score, rel=2e-3)


def test_codebooks_as_table_page_and_json(small_bundle, tmp_path, capsys):
    run = small_bundle.parent
    call = ("explain", "--codebook", "--bundle", str(run), "--save", str(tmp_path))
    assert exit_code(*call) == 0
    assert capsys.readouterr().out.count("Page: ") == len(list(tmp_path.glob("*.html"))) == 2
    assert exit_code(*call, "--category", "solar_cell_mono", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    (own,) = said["categories"]
    for book in own["codebooks"]:
        used = sum(cells > 0 for cells in book["cells_of_each_code"])
        assert book["dead"] == book["codes"] - used
        assert 1 <= book["perplexity"] <= used + 1e-6
        assert all(
            bool(shown) == bool(cells)
            for shown, cells in zip(book["exemplars"], book["cells_of_each_code"], strict=True)
        )
    (page,) = said["files"]
    opens_offline(Path(page).read_text("utf-8"))


def test_names_of_categories_are_text(insight):
    found = insight.exemplars("solar_cell_mono")
    hostile = type(found)(**{**vars(found), "category": "</style><script>alert(1)</script>"})
    page = render_codebook(hostile)
    assert "<script" not in page
    opens_offline(page)


@needs_chromium
def test_the_page_shows_its_patches_in_a_browser(small_bundle, image, insight, tmp_path, browser):
    found = explained(small_bundle, image, insight, "fp32", 0.5)
    path = tmp_path / "page.html"
    path.write_text(render_explanation(found), "utf-8")
    page = browser.new_page()
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.partition(":")[0]))
    page.goto(f"file://{path}")
    shown = page.eval_on_selector_all(
        ".patch", "all => all.map((one) => getComputedStyle(one).backgroundImage.slice(0, 15))"
    )
    page.close()
    wanted = sum(1 + sum(len(one.exemplars) for one in place.nearest) for place in found.places)
    assert shown == ['url("data:image'] * wanted
    assert faults == []
    assert set(asked) <= {"file", "data"}


def test_an_image_from_memory_is_explained(small_bundle, image, insight):
    pixels = cv2.cvtColor(cv2.imread(str(image)), cv2.COLOR_BGR2RGB)
    with load(open_bundle(small_bundle), precision="fp32", backend="onnxruntime") as model:
        (result,) = model.each([NamedImage("", "", lambda: pixels)])
        found = explain(result, insight)
    assert "<title>image</title>" in render_explanation(found)
