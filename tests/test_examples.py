"""The examples run as they stand, on a real bundle, with the public API alone."""

import ast
import re
import runpy
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from helpers.paths import ROOT
from helpers.patience import until
from helpers.receivers import MOSQUITTO, Broker, free_port
from helpers.thresholds import threshold_at
from paho.mqtt import publish

pytest.importorskip("onnx")
from helpers.commands import exit_code
from helpers.graphs import SIDE, save_bundle

from hvq_edge.bundle.manifest import write_manifest
from hvq_edge.data.dataset import find_dataset

FOLDER = ROOT / "examples"
EXAMPLES = sorted(FOLDER.rglob("*.py"))
TAKE_A_BUNDLE = [path for path in EXAMPLES if "import hvq_edge" in path.read_text("utf-8")]
PUBLIC = {"hvq_edge", "numpy", "cv2", "torch", "paho", "pymodbus", "tritonclient"}


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(monkeypatch, capsys):
    """Run an example as ``python FILE`` would, in this process, which has what they import."""

    def ran(name: str, *arguments: object) -> Done:
        path = str(FOLDER / name)
        monkeypatch.setattr(sys, "argv", [path, *map(str, arguments)])
        code: object = 0
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as stop:
            code = stop.code
        said = capsys.readouterr()
        if isinstance(code, str):  # Python prints it
            return Done(1, said.out, said.err + code)
        return Done(int(code or 0), said.out, said.err)

    return ran


@pytest.fixture
def bundle(tmp_path) -> Path:
    """A bundle whose score is the brightest block of the frame, 0 to 1, with a threshold of 0.6."""
    opened = save_bundle(tmp_path / "a bundle")
    limit = threshold_at(0.6, images=5, rule="chosen for this test")
    thresholds = {"fp32": {opened.manifest.categories[0]: limit}}
    write_manifest(opened.path, opened.manifest.model_copy(update={"thresholds": thresholds}))
    return opened.path


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "Teile é"
    folder.mkdir()

    def save(*levels: int) -> Path:
        for i, level in enumerate(levels):
            noise = np.random.default_rng(i).integers(-5, 6, (SIDE, SIDE, 3))
            image = np.clip(level + noise, 0, 255).astype(np.uint8)
            (folder / f"{i}.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())
        return folder

    return save


def test_the_index_names_every_example_and_shows_pictures_that_are_there():
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", index)
    for link in links:
        assert (FOLDER / link).exists(), link
    named = {(FOLDER / link).resolve() for link in links}
    for path in FOLDER.iterdir():
        inside = {one for one in named if one.is_relative_to(path)}
        assert inside or path.name == "README.md", f"{path.name} is not in the index"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_uses_the_public_api_alone(example):
    names: set[str] = set()
    for node in ast.walk(ast.parse(example.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("numpy" if node.module == "numpy.typing" else node.module)
    tops = {name.split(".")[0] for name in names} - sys.stdlib_module_names
    assert tops <= PUBLIC
    assert {name for name in names if name.split(".")[0] == "hvq_edge"} <= {"hvq_edge"}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_says_what_it_does(example, run):
    name = example.relative_to(FOLDER).as_posix()
    done = run(name, "--help")
    assert done.returncode == 0, done.stderr
    docstring = ast.get_docstring(ast.parse(example.read_text(encoding="utf-8")))
    assert docstring
    assert f"python examples/{name} " in docstring
    assert docstring.splitlines()[0] in " ".join(done.stdout.split())


def test_rendered_washers_are_a_dataset_of_images_that_differ(tmp_path, run):
    done = run("rendered_washers.py", tmp_path / "washers", "--train", 4, "--test", 3)
    assert done.returncode == 0, done.stderr
    dataset = find_dataset(tmp_path / "washers")
    assert dataset.categories == ("washer",)
    assert len(dataset.train_good()) == 4
    assert [image.good for image in dataset.test()].count(False) == 3
    contents = {image.path.read_bytes() for image in dataset.images}
    assert len(contents) == 10


@pytest.mark.parametrize("example", TAKE_A_BUNDLE, ids=lambda path: path.stem)
def test_an_example_names_a_bundle_that_is_not_there(example, tmp_path, run):
    done = run(example.name, tmp_path / "nowhere", tmp_path)
    assert done.returncode == 1
    assert "no bundle at" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_inspector_has_twenty_lines_and_acts_on_rejects(bundle, images, run):
    source = (FOLDER / "inspector.py").read_text(encoding="utf-8")
    code = source.split('"""')[2].splitlines()
    assert sum(bool(line.strip()) for line in code) <= 20
    done = run("inspector.py", bundle, images(60, 200, 90))
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines[:4]] == [
        ["0", "pass"],
        ["1", "reject"],
        ["out", "with"],
        ["2", "pass"],
    ]
    assert lines[4] == "2 pass, 1 reject"


def test_the_inspector_ends_well_when_all_is_well(bundle, images, run):
    done = run("inspector.py", bundle, images(60, 90))
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "2 pass")


@pytest.mark.parametrize(
    ("levels", "said"),
    [
        ((200, 60, 200, 200, 60), None),
        ((60, 200, 200, 200, 60), "STOP: 3 x reject in a row, frame 3: "),
    ],
)
def test_stop_the_line_stops_on_rejects_in_a_row(bundle, images, levels, said, run):
    done = run("stop_the_line.py", bundle, images(*levels), "--rejects", 3)
    assert done.returncode == (0 if said is None else 1), done.stderr
    assert done.stdout.startswith(said or "")
    assert bool(done.stdout) == bool(said)


def test_stop_the_line_stops_when_the_camera_is_blind(bundle, images, run):
    folder = images(60, 60, 60)
    for name in ("1.png", "2.png"):
        (folder / name).write_bytes(b"not an image")
    done = run("stop_the_line.py", bundle, folder, "--blind", 2)
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("STOP: 2 x no_decision in a row, frame 2: ")


class FakeTriton:
    """In the place of tritonclient: the score is the brightest pixel, and of a black image none."""

    def __init__(self, _address: str = "") -> None:
        self.score = 0.0

    def set_data_from_numpy(self, frame: np.ndarray) -> None:
        self.score = float(frame.max() / 255) or float("nan")

    def infer(self, _model: str, inputs: list["FakeTriton"]) -> "FakeTriton":
        return inputs[0]

    def as_numpy(self, name: str) -> "np.ndarray | None":
        return np.array([self.score]) if name == "score" else None


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_triton_client_passes_nothing_that_was_not_judged(
    precision, bundle, images, monkeypatch, run
):
    """Not an image, a score that is no number, a precision without thresholds, no file at all."""
    grpc = SimpleNamespace(InferenceServerClient=FakeTriton, InferInput=lambda *_: FakeTriton())
    utils = SimpleNamespace(InferenceServerException=RuntimeError)
    monkeypatch.setitem(sys.modules, "tritonclient", SimpleNamespace(grpc=grpc))
    monkeypatch.setitem(sys.modules, "tritonclient.utils", utils)
    folder = images(60, 200)
    (folder / "2.png").write_bytes(b"")
    (folder / "3").mkdir()
    black = np.zeros((SIDE, SIDE, 3), np.uint8)
    (folder / "4.png").write_bytes(cv2.imencode(".png", black)[1].tobytes())
    done = run("triton_client.py", "nowhere:1", bundle, folder, "--precision", precision)
    assert done.returncode == 1, done.stderr
    verdicts = [re.search("pass|reject|no decision", line)[0] for line in done.stdout.splitlines()]
    judged = ["pass", "reject"] if precision == "fp32" else ["no decision"] * 2
    assert verdicts == [*judged, "no decision", "no decision"]
    done = run("triton_client.py", "nowhere:1", bundle / "nowhere", folder)
    assert (done.returncode, "nowhere/bundle.json" in done.stderr) == (1, True)


@pytest.fixture
def processes() -> dict[Path, subprocess.Popen[bytes]]:
    """Of :func:`started`, by what they print."""
    return {}


@pytest.fixture
def started(tmp_path, processes):
    """Examples that run until they are told to end; what they print is in a file."""

    def start(name: str, *arguments: object) -> Path:
        log = tmp_path / f"{Path(name).stem}.log"
        with log.open("w") as output:
            command = [sys.executable, FOLDER / name, *map(str, arguments)]
            processes[log] = subprocess.Popen(command, stdout=output, stderr=output)
        return log

    yield start
    for process in processes.values():
        process.terminate()
        process.wait()


def test_a_controllers_port_that_is_taken_is_said(run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("plc/simulator.py", "--port", taken.getsockname()[1])
    assert (done.returncode, "is taken" in done.stderr) == (1, True)


@pytest.fixture
def plant(started, tmp_path):
    """A broker, and what a controller and the bridge to it print: all real but the machine."""
    (tmp_path / "broker").mkdir()
    broker, port = Broker(tmp_path / "broker"), free_port()
    try:
        controller = started("plc/simulator.py", "--port", port)
        until(lambda: "Controller on port" in controller.read_text())
        addresses = ("--broker", f"127.0.0.1:{broker.port}", "--plc", f"127.0.0.1:{port}")
        bridge = started("plc/mqtt_to_plc.py", *addresses)
        until(lambda: "Listening" in bridge.read_text())
        yield broker, controller, bridge
    finally:
        broker.stop()


@pytest.mark.skipif(not MOSQUITTO, reason="there is no mosquitto: apt-get install mosquitto")
def test_a_reject_goes_over_a_broker_into_a_controllers_coil(bundle, images, plant, tmp_path):
    broker, controller, _ = plant
    line = (FOLDER / "plc/line.toml").read_text(encoding="utf-8")
    for written, ours in {
        "runs/latest/bundle": str(bundle),
        "parts.avi": str(images(60, 200, 210, 90)),
        '"inspection"': f'"{tmp_path / "inspection"}"',
        'line = "line-1"': f'line = "line-1"\nport = {broker.port}',
    }.items():
        assert written in line
        line = line.replace(written, ours)
    (tmp_path / "line.toml").write_text(line, encoding="utf-8")
    assert exit_code("stream", "--config", str(tmp_path / "line.toml")) == 0
    until(lambda: "the line stops" in controller.read_text(), controller.read_text())
    assert controller.read_text().splitlines()[1:] == [
        "coil 1 (inspector alive) on: the line runs, 0 ejected",
        "coil 0 (ejector) on, 1 ejected",
        "coil 0 (ejector) on, 2 ejected",
        "coil 0 (ejector) off, 2 ejected",
        "coil 1 (inspector alive) off: the line stops, 2 ejected",
    ]


@pytest.mark.skipif(not MOSQUITTO, reason="there is no mosquitto: apt-get install mosquitto")
@pytest.mark.parametrize("lost", ["broker", "bridge", "bridge, killed"])
def test_a_line_stops_where_its_bridge_hears_nothing_more(lost, plant, processes):
    """What is no decision changes nothing; the controller does not go on with the last it heard."""
    broker, controller, bridge = plant
    none = ["{", "[" * 10**5, "[]", "{}", '{"verdict": "?"}', "\udcff"]
    decisions = ['{"verdict": "reject"}', *none]
    topics = {"availability": ["online"], "left/decision": decisions}
    sent = [
        (f"hvq-edge/line-1/{topic}", one.encode("utf-8", "surrogateescape"), 1)
        for topic, payloads in topics.items()
        for one in payloads
    ]
    publish.multiple(sent, hostname="127.0.0.1", port=broker.port)
    until(lambda: bridge.read_text().count("left out") == len(none), bridge.read_text())
    assert controller.read_text().splitlines()[-1] == "coil 0 (ejector) on, 1 ejected"
    if lost == "broker":
        broker.stop()
    elif lost == "bridge":
        processes[bridge].terminate()
    else:
        time.sleep(1 + runpy.run_path(str(FOLDER / "plc/simulator.py"))["SILENT_SECONDS"])
        assert controller.read_text().splitlines()[-1] == "coil 0 (ejector) on, 1 ejected"
        processes[bridge].kill()
    until(lambda: "the line stops" in controller.read_text(), bridge.read_text())
    assert controller.read_text().splitlines()[-2:] == [
        "coil 0 (ejector) off, 1 ejected",
        "coil 1 (inspector alive) off: the line stops, 1 ejected",
    ]
    assert "Traceback" not in bridge.read_text()
