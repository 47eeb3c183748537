"""The notebook is committed as it ran, calls what there is, and runs."""

import ast
import base64
import re
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.paths import ROOT
from helpers.patience import HANG_SECONDS

pytest.importorskip("onnx")

import hvq_edge
from hvq_edge.data.dataset import find_dataset

NOTEBOOK = ROOT / "examples" / "photos_to_verdicts.ipynb"


@pytest.fixture
def notebook():
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("nbclient")
    read = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(read)
    return read


def shown_by(cells) -> list[np.ndarray]:
    """Pictures that cells put out."""
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output.output_type == "error"]
    found = [
        data
        for one in outputs
        for kind, data in one.get("data", {}).items()
        if kind in ("image/png", "image/jpeg")
    ]
    return [
        cv2.imdecode(np.frombuffer(base64.b64decode(one), np.uint8), cv2.IMREAD_COLOR)
        for one in found
    ]


def test_the_notebook_is_committed_as_it_ran(notebook):
    """From top to bottom, with outputs that are small and name nobody's folders."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert len(shown_by(code)) == 2
    assert len(NOTEBOOK.read_text(encoding="utf-8")) < 700_000
    outputs = [output for cell in code for output in cell.outputs]
    said = [one.get("text") or one.get("data", {}).get("text/plain", "") for one in outputs]
    assert "model.fp32.onnx" in "".join(said)
    assert not re.search(r"(^|[\s('\"=])/\w+/", "\n".join(said))


def parameters_of(name: str) -> ast.arguments:
    """Those of a function of the public API, read and not imported: two of them bring PyTorch."""
    module, _, own = hvq_edge._HOMES[name].rpartition(".")
    source = Path(find_spec(module).origin).read_text(encoding="utf-8")
    (found,) = (node for node in ast.parse(source).body if getattr(node, "name", "") == own)
    return found.args


def test_the_notebook_calls_what_there_is(notebook):
    called = set()
    for cell in notebook.cells:
        if cell.cell_type == "code" and "%run" not in cell.source:
            for node in ast.walk(ast.parse(cell.source)):
                if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("hvq_edge."):
                    name = ast.unparse(node.func).removeprefix("hvq_edge.")
                    called.add(name)
                    known = parameters_of(name)
                    assert len(node.args) <= len(known.args)
                    by_name = {one.arg for one in (*known.args, *known.kwonlyargs)}
                    assert {one.arg for one in node.keywords} <= by_name
    assert called == {"train", "export_bundle", "load"}


@pytest.mark.long
def test_the_notebook_runs(notebook, small_run, small_bundle, solar_cells, tmp_path):
    """As Jupyter would run it, on a run of ours: to train and to export takes what others have."""
    import nbclient

    (parameters,) = (c for c in notebook.cells if "parameters" in c.metadata.get("tags", ()))
    parameters.source = f"""
from pathlib import Path
from types import SimpleNamespace
import hvq_edge
from hvq_edge.bundle.opened import open_bundle
from hvq_edge.run.record import read_run
PHOTOS, RUN = Path({str(solar_cells)!r}), Path({str(small_run)!r})
hvq_edge.train = lambda data, out, **given: SimpleNamespace(path=out, record=read_run(out))
hvq_edge.export_bundle = lambda run: open_bundle(run / "bundle")
"""
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=HANG_SECONDS, resources=resources).execute()
    pictures = shown_by(notebook.cells)
    assert len(pictures) == 2
    assert all(picture.shape[1] >= 480 for picture in pictures)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    text = "".join(output.get("text", "") for output in outputs)
    assert "model.fp32.onnx" in text
    counted = re.findall(r"^(pass|reject|no_decision) +(\d+)$", text, re.MULTILINE)
    assert sum(int(number) for _, number in counted) == len(find_dataset(solar_cells).test())
    assert "overlay.png" in text
