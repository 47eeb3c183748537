"""The examples run as they stand, on a real bundle, with the public API alone."""

import ast
import base64
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.paths import ROOT
from helpers.patience import HANG_SECONDS
from helpers.thresholds import threshold_at

pytest.importorskip("onnx")
from helpers.graphs import SIDE, save_bundle

from hvq_edge.bundle.manifest import write_manifest
from hvq_edge.data.dataset import find_dataset

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
TAKE_A_BUNDLE = [path for path in EXAMPLES if "import hvq_edge" in path.read_text("utf-8")]
PUBLIC = {"hvq_edge", "numpy", "cv2", "torch"}


def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "examples" / name, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        timeout=HANG_SECONDS,
    )


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


def test_there_are_examples():
    assert len(EXAMPLES) >= 3


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_uses_the_public_api_alone(example):
    names: set[str] = set()
    for node in ast.walk(ast.parse(example.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("numpy" if node.module == "numpy.typing" else node.module)
    assert {name for name in names if name.split(".")[0] not in sys.stdlib_module_names} <= PUBLIC


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_says_what_it_does(example):
    done = run(example.name, "--help")
    assert done.returncode == 0, done.stderr
    docstring = ast.get_docstring(ast.parse(example.read_text(encoding="utf-8")))
    assert docstring
    assert f"python examples/{example.name} " in docstring
    assert docstring.splitlines()[0] in " ".join(done.stdout.split())


def test_rendered_washers_are_a_dataset_of_images_that_differ(tmp_path):
    done = run("rendered_washers.py", tmp_path / "washers", "--train", 4, "--test", 3)
    assert done.returncode == 0, done.stderr
    dataset = find_dataset(tmp_path / "washers")
    assert dataset.categories == ("washer",)
    assert len(dataset.train_good()) == 4
    assert [image.good for image in dataset.test()].count(False) == 3
    contents = {image.path.read_bytes() for image in dataset.images}
    assert len(contents) == 10


@pytest.mark.parametrize("example", TAKE_A_BUNDLE, ids=lambda path: path.name)
def test_an_example_names_a_bundle_that_is_not_there(example, tmp_path):
    arguments = [tmp_path / "nowhere"] + [tmp_path] * (example.name != "engine_speed.py")
    done = run(example.name, *arguments)
    assert done.returncode == 1
    assert "no bundle at" in done.stderr
    assert "Traceback" not in done.stderr


def test_inspect_folder_names_the_rejects(bundle, images):
    done = run("inspect_folder.py", bundle, images(60, 200, 90))
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines[:3]] == [
        ["0", "pass"],
        ["1", "reject"],
        ["2", "pass"],
    ]
    assert lines[3] == "2 pass, 1 reject"


def test_inspect_folder_ends_well_when_all_is_well(bundle, images):
    done = run("inspect_folder.py", bundle, images(60, 90))
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "2 pass")


@pytest.mark.parametrize(
    ("levels", "said"),
    [
        ((200, 60, 200, 200, 60), None),
        ((60, 200, 200, 200, 60), "STOP: 3 x reject in a row, frame 3: "),
    ],
)
def test_stop_the_line_stops_on_rejects_in_a_row(bundle, images, levels, said):
    done = run("stop_the_line.py", bundle, images(*levels), "--rejects", 3)
    assert done.returncode == (0 if said is None else 1), done.stderr
    assert done.stdout.startswith(said or "")
    assert bool(done.stdout) == bool(said)


def test_stop_the_line_stops_when_the_camera_is_blind(bundle, images):
    folder = images(60, 60, 60)
    for name in ("1.png", "2.png"):
        (folder / name).write_bytes(b"not an image")
    done = run("stop_the_line.py", bundle, folder, "--blind", 2)
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("STOP: 2 x no_decision in a row, frame 2: ")


def test_engine_speed_names_engine_and_times(bundle):
    done = run("engine_speed.py", bundle, "--frames", 5, "--backend", "onnxruntime")
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("fp32 on onnxruntime, ")
    median, slow = (float(part.split()[-2]) for part in second.split(","))
    assert 0 < median <= slow


def test_the_notebook_runs_and_its_results_show_themselves(bundle, images):
    """As Jupyter would run it, with a bundle and images of ours in its cell of parameters."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(ROOT / "examples" / "judge_images.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells), "save it without outputs"
    folder = images(60, 200, 90)
    (parameters,) = (c for c in notebook.cells if "parameters" in c.metadata.get("tags", ()))
    parameters.source = (
        f"from pathlib import Path\nRUN, IMAGES = {str(bundle)!r}, Path({str(folder)!r})"
    )
    for cell in notebook.cells:
        cell.source = cell.source.replace('"*/*.png"', '"*.png"')
    nbclient.NotebookClient(notebook, timeout=HANG_SECONDS).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output.output_type == "error"]
    shown = [
        output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})
    ]
    pictures = [
        cv2.imdecode(np.frombuffer(base64.b64decode(one), np.uint8), cv2.IMREAD_COLOR)
        for one in shown
    ]
    assert len(pictures) == 2
    assert all(picture.shape[1] >= 480 for picture in pictures)
    text = "".join(output.get("text", "") for output in outputs)
    assert text.count("pass ") >= 2
    assert "image.overlay.png" not in text
    assert "0.overlay.png" in text
