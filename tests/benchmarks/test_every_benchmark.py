"""Each benchmark can be started, and those of speed give ratios that can be right."""

import re
from pathlib import Path

import pytest
from helpers.commands import benchmark as run
from helpers.graphs import SIDE, save_bundle
from helpers.paths import ROOT

from benchmarks.speed import scale

FOLDER = ROOT / "benchmarks"
SCRIPTS = sorted(
    path.relative_to(FOLDER).as_posix()
    for path in FOLDER.rglob("*.py")
    if "ArgumentParser" in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_it_tells_what_it_takes(script, monkeypatch, capsys):
    """It imports what there is, and its arguments fit together."""
    with pytest.raises(SystemExit) as ended:
        run(script, monkeypatch, capsys, "--help")
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: ")


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_test_runs_it_on_something_small(script):
    """By its name in a test: as ``module`` in what is imported or ``folder/module.py``."""
    folder, _, name = f"benchmarks/{script.removesuffix('.py')}".rpartition("/")
    package = folder.replace("/", ".")
    short = f"{package}.{name}".removeprefix("benchmarks.")
    named = rf'{package}\.{name}\b|from {package} import [^#]*\b{name}\b|"({script}|{short})"'
    tests = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    assert any(re.search(named, text) for text in tests)


def test_each_engine_beside_pytorch(small_run, small_bundle, monkeypatch, capsys):
    assert small_bundle == small_run / "bundle"
    options = ("--rounds", 2, "--threads", 1)
    said = run("speed/engines.py", monkeypatch, capsys, small_run, *options)
    cell = r"([\d.]+)"
    rows = re.findall(
        rf"^\| (\S.*?) +\| +{cell} \| +{cell} \({cell} \.\. {cell}\) \|$", said, re.MULTILINE
    )
    assert len(rows) == 5, said
    for name, _, *ratio in rows:
        middle, low, high = map(float, ratio)
        assert 0 < low <= middle <= high, name
    assert [float(ratio) for name, _, ratio, *_ in rows if "torch" in name.lower()] == [1.0]


def test_the_inspector_beside_its_engine(small_bundle, bolts: Path, monkeypatch, capsys):
    options = ("--video", bolts, "--frames", 4, "--rounds", 2, "--cameras", "1,2")
    said = run("speed/inspector_overhead.py", monkeypatch, capsys, small_bundle, *options)
    times = [
        float(one)
        for pair in re.findall(r"([\d.]+) ms a frame, processor time ([\d.]+) ms", said)
        for one in pair
    ]
    assert len(times) == 6, "the engine, and both numbers of cameras"
    assert min(times) > 0
    ratios = re.findall(r"(?:seconds|processor) (\S+) % \(quartiles (\S+) to (\S+) %", said)
    assert len(ratios) == 6, "the overhead of both, and two cameras beside one"
    for ratio in ratios:
        (middle, low, high) = map(float, ratio)
        assert -100 < low <= middle <= high
    assert "2 rounds of 4 frames" in said
    assert re.search(r"p50 of each stage in the last round: \w+ [\d.]+ ms", said)


@pytest.mark.long
def test_a_start_beside_others(small_bundle, bolts: Path, monkeypatch, capsys):
    options = ("--images", bolts, "--rounds", 1, "--backend", "onnxruntime")
    said = run("speed/start.py", monkeypatch, capsys, small_bundle, *options)
    rows = [line.split(" | ") for line in said.splitlines() if line.startswith("| ")][2:]
    names = [row[0].strip("| ") for row in rows]
    assert names == ["as it is", "nothing kept", "with the page"]
    for name, (_, processor, ratio, seconds, memory) in zip(names, rows, strict=True):
        for cell in (processor, ratio, seconds):
            middle, low, high = map(float, re.findall(r"[\d.]*\d", cell))
            assert 0 < low <= middle <= high, name
        assert float(memory.strip(" |")) > 0
    assert rows[0][2].split()[0] == "1.00"


def test_a_graph_beside_itself_takes_its_own_time(tmp_path):
    bundle = save_bundle(tmp_path / "b")
    here = (bundle.path / "model.fp32.onnx", SIDE)
    for engine in scale.ENGINES:
        said = scale.ratio(engine, here, here, 1, 3)["ratio"]
        low, middle, high = (float(re.findall(r"[\d.]+", said)[place]) for place in (1, 0, 2))
        assert 0 < low <= middle <= high
