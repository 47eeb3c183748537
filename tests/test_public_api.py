"""`hvq_edge.__all__` is the public API: documented, complete, and cheap to import."""

import ast
import dataclasses
import importlib
import importlib.metadata
import inspect
import os
import re
import subprocess
import sys

import pytest
from helpers.paths import ROOT

import hvq_edge

API_PAGE = ROOT / "docs/reference/api.md"
TRAINING_ONLY = {"load_model", "train", "export_bundle", "evaluate"}
FUNCTIONS = TRAINING_ONLY | {"open_engine", "inspect", "load"}
NAMES = FUNCTIONS | {"Decision", "Predictor", "Result", "HvqEdgeError", "__version__"}


def section_of(name: str) -> str:
    page = API_PAGE.read_text(encoding="utf-8")
    match = re.search(rf"^## `hvq_edge\.{name}`$(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert match, f"docs/reference/api.md has no section on {name}"
    return match[1]


def first_column(name: str, head: str) -> list[str]:
    """The names in the table headed ``| head | meaning |`` of a section."""
    table = section_of(name).partition(f"| {head} | meaning |")[2]
    return re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)


def test_the_public_names_are_these():
    assert len(hvq_edge.__all__) == len(NAMES)
    assert set(hvq_edge.__all__) == NAMES


def test_the_page_documents_each_name_and_no_other():
    page = API_PAGE.read_text(encoding="utf-8")
    documented = re.findall(r"^## `hvq_edge\.(\w+)`$", page, re.MULTILINE)
    assert sorted(documented) == sorted(NAMES)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_each_name_is_there(name):
    if name in TRAINING_ONLY:
        pytest.importorskip("torch")
    value = getattr(hvq_edge, name)
    assert name in dir(hvq_edge)
    if name != "__version__":
        assert inspect.getdoc(value)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_the_page_documents_the_parameters_in_order(name):
    if name in TRAINING_ONLY:
        pytest.importorskip("torch")
    parameters = inspect.signature(getattr(hvq_edge, name)).parameters
    assert first_column(name, "parameter") == list(parameters)


@pytest.mark.parametrize(
    ("command", "name", "more"),
    [
        ("train", "train", ()),
        ("export", "export_bundle", ()),
        ("eval_", "evaluate", ("minimum", "provider", "language", "named")),
    ],
)
def test_a_function_has_the_settings_of_its_command(command, name, more):
    """``more``: what only a command has an exit code for, and what its backend has in it."""
    pytest.importorskip("torch")
    module = importlib.import_module(f"hvq_edge.cli.{command}")
    options = inspect.signature(getattr(module, name.removesuffix("_bundle"))).parameters
    parameters = inspect.signature(getattr(hvq_edge, name)).parameters
    assert set(options) - {"as_json", *more} == set(parameters) - {"on_progress"}


def test_the_page_documents_the_fields_of_a_decision():
    fields = [field.name for field in dataclasses.fields(hvq_edge.Decision)]
    assert first_column("Decision", "field") == fields


def test_the_page_documents_what_a_result_has():
    members = {name for name in dir(hvq_edge.Result) if not name.startswith("_")}
    fields = {field.name for field in dataclasses.fields(hvq_edge.Result)}
    methods = set(re.findall(r"^\| `(\w+)\(", section_of("Result"), re.MULTILINE))
    assert set(first_column("Result", "field")) | methods == members | fields


def test_what_errors_name_is_public():
    """Whoever follows a next step must not end in a module that may change without notice."""
    named = {}
    for room in ("hvq_edge", "export", "calibration"):
        for path in (ROOT / room).rglob("*.py"):
            for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not isinstance(call, ast.Call):
                    continue
                raised = getattr(call.func, "id", "").endswith(("Error", "Failed", "Capability"))
                words = [key.value for key in call.keywords if key.arg == "next_step"]
                for value in [*(call.args if raised else []), *words]:
                    for name in re.findall(r"\bhvq_edge\.[\w.]*\w", ast.unparse(value)):
                        named[name] = f"{path.relative_to(ROOT)}:{call.lineno}"
    assert "hvq_edge.inspect" in named
    assert {name: place for name, place in named.items() if name[9:] not in NAMES} == {}


def test_the_engines_report_nothing_to_their_makers():
    """OpenVINO would as it is imported, ONNX Runtime at its first session."""
    ovc = pytest.importorskip("openvino.tools.ovc")
    assert type(ovc.telemetry).__module__ == "openvino.tools.ovc.telemetry_stub"
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


def test_the_version_is_the_installed_one():
    assert hvq_edge.__version__ == importlib.metadata.version("hvq-edge")


def test_a_misspelt_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="inspct"):
        _ = hvq_edge.inspct  # type: ignore[attr-defined]


HEAVY = ("cv2", "numpy", "onnx", "onnxruntime", "openvino", "pydantic", "sklearn", "torch", "typer")


def loaded_after(code: str) -> set[str]:
    code += f"\nimport sys; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy():
    assert loaded_after("import hvq_edge") == set()
    assert loaded_after("import hvq_edge; hvq_edge.HvqEdgeError") == set()


def test_opening_an_engine_loads_no_training_stack():
    assert loaded_after("from hvq_edge import open_engine, inspect, Decision").isdisjoint(
        {"torch", "onnx", "sklearn", "typer"}
    )
