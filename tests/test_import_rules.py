"""Who may import whom: the layers of the package, kept.

A device runs a bundle without PyTorch, so the rooms it uses must never pull in the training stack,
not even inside a function; the command line answers `--help` at once, so it imports late.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.images import make_texture, write_png
from helpers.imports import imports_of, module_of
from helpers.paths import ROOT

TRAINING_STACK = ("torch", "onnx", "onnxscript", "onnx_graphsurgeon", "polygraphy", "sklearn")
TRAINING_ROOMS = tuple(
    f"hvq_edge.{room}" for room in ("model", "training", "evaluation", "export", "calibration")
)
DEVICE_ROOMS = (
    "common",
    "design",
    "verdict",
    "bundle",
    "data",
    "runtime",
    "stream",
    "predict",
    "explain",
    "doctor",
    "bench",
)
TORCH_ENGINE = ROOT / "hvq_edge" / "runtime" / "cpu" / "torch_engine.py"


def files_of(room: str) -> list[Path]:
    folder = ROOT / room if room in ("export", "calibration") else ROOT / "hvq_edge" / room
    return sorted(folder.rglob("*.py"))


def root_files() -> list[Path]:
    apart = ("__init__.py", "__main__.py")
    return sorted(path for path in (ROOT / "hvq_edge").glob("*.py") if path.name not in apart)


def breaches(
    files: list[Path], forbidden: tuple[str, ...], *, even_lazily: bool = True
) -> list[str]:
    assert files, "no file to check: was a room renamed?"
    return [
        f"{path.relative_to(ROOT)}:{found.line} imports {found.name}"
        for path in files
        for found in imports_of(path.read_text(encoding="utf-8"), module_of(path))
        if found.is_of(forbidden) and (even_lazily or not found.lazy)
    ]


def device_files() -> list[Path]:
    files = root_files() + [path for room in DEVICE_ROOMS for path in files_of(room)]
    assert TORCH_ENGINE in files
    return [path for path in files if path != TORCH_ENGINE]


def test_a_device_needs_no_training_stack():
    """A Jetson or an industrial PC runs a bundle: torch alone is gigabytes."""
    assert breaches(device_files(), TRAINING_STACK + TRAINING_ROOMS) == []


def test_the_torch_engine_loads_torch_on_first_use_only():
    """It is the reference that other engines are held to, so it may use the network; but whoever
    lists the engines must not pay for torch."""
    assert breaches([TORCH_ENGINE], TRAINING_STACK + TRAINING_ROOMS, even_lazily=False) == []
    allowed = ("torch", "hvq_edge.model")
    others = tuple(name for name in TRAINING_STACK + TRAINING_ROOMS if name not in allowed)
    assert breaches([TORCH_ENGINE], others) == []


def test_the_network_and_its_training_do_not_know_who_runs_them():
    """Else a change to the camera code could change what is learnt."""
    files = files_of("model") + files_of("training")
    users = ("runtime", "stream", "export", "calibration", "cli")
    assert breaches(files, tuple(f"hvq_edge.{room}" for room in users)) == []


def test_the_network_does_not_know_how_it_is_trained():
    """Export and the torch engine use the network without the trainer."""
    assert breaches(files_of("model"), ("hvq_edge.training", "hvq_edge.evaluation")) == []


def test_only_the_command_line_knows_the_command_line():
    """Everything a command does can be called from Python."""
    rooms = (*DEVICE_ROOMS, "model", "training", "evaluation", "export", "calibration")
    files = root_files() + [path for room in rooms for path in files_of(room)]
    assert breaches(files, ("hvq_edge.cli", "typer")) == []


def test_export_and_calibration_do_not_stream():
    """They make bundles on a host; what a camera sees is the device's business."""
    assert breaches(files_of("export") + files_of("calibration"), ("hvq_edge.stream",)) == []


def test_commands_import_late():
    """`hvq-edge --help` reads every command's file: none may cost time there."""
    allowed = (
        *sys.stdlib_module_names,
        "typer",
        "hvq_edge.cli",
        "hvq_edge.errors",
        "hvq_edge.verdict.defaults",
        "hvq_edge.common.progress",
        "hvq_edge.common.redaction",
        "hvq_edge.common.wording",
        "hvq_edge.run.latest",
    )
    for path in files_of("cli"):
        here = (*allowed, "rich.console") if path.name == "console.py" else allowed
        early = [
            f"{path.name}:{found.line} imports {found.name}"
            for found in imports_of(path.read_text(encoding="utf-8"), module_of(path))
            if not found.lazy and not found.is_of(here)
        ]
        assert early == []


def test_the_package_itself_imports_nothing_early():
    """`import hvq_edge` comes before every other import of ours, `--help` included."""
    path = ROOT / "hvq_edge" / "__init__.py"
    early = [
        found.name
        for found in imports_of(path.read_text(encoding="utf-8"), "hvq_edge.__init__")
        if not found.lazy and not found.is_of((*sys.stdlib_module_names, "hvq_edge.errors"))
    ]
    assert early == []


def test_every_room_has_its_rule():
    """A new folder is a decision: give it a rule here, and architecture.md a line."""
    rooms = {path.parent.name for path in (ROOT / "hvq_edge").glob("*/__init__.py")}
    assert rooms == {*DEVICE_ROOMS, "cli", "evaluation", "model", "run", "training"}


def test_device_rooms_load_no_training_stack_when_imported():
    """What the rules promise, seen from outside: import all of it, then look what is loaded."""
    modules = [module_of(path).removesuffix(".__init__") for path in root_files()]
    modules += [
        module_of(path).removesuffix(".__init__")
        for room in DEVICE_ROOMS
        for path in files_of(room)
    ]
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print(*sorted(set({TRAINING_STACK!r}) & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.stdout.split() == []


NOT_ASKED_FOR = (
    *("fastapi", "uvicorn", "http.server", "asyncio", "cryptography"),
    *("hvq_edge.stream.live_page.serve", "hvq_edge.stream.line_page", "hvq_edge.explain"),
    *("hvq_edge.stream.calibrate_from_stream", "hvq_edge.run.settings", "hvq_edge.predict"),
)


def test_a_stream_loads_what_it_was_asked_for(small_bundle, tmp_path):
    """All of it takes twice as long until the first decision."""
    write_png(tmp_path / "part.png", make_texture(1))
    arguments = ["stream", "--bundle", str(small_bundle), "--camera", str(tmp_path), "--json"]
    code = (
        "import sys\n"
        "from hvq_edge.cli.app import main\n"
        "try:\n"
        f"    main({[*arguments, '--no-display']!r})\n"
        "finally:\n"
        f"    print(*(name for name in {NOT_ASKED_FOR!r} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    decision, loaded = done.stdout.splitlines()
    assert json.loads(decision)["image"] == "part.png"
    assert loaded.split() == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import torch.nn", [("torch.nn", False)]),
        ("from torch import nn", [("torch.nn", False)]),
        ("def f():\n    import torch", [("torch", True)]),
        ("class C:\n    import torch", [("torch", False)]),
        ("try:\n    import torch\nexcept ImportError:\n    pass", [("torch", False)]),
        ("async def f():\n    from torch import nn as n", [("torch.nn", True)]),
        ("from .model import load_run", [("hvq_edge.model.load_run", False)]),
        ("from . import bundle", [("hvq_edge.bundle", False)]),
        ("from importlib import import_module as i", [("importlib.import_module", False)]),
        ("importlib.import_module('torch')", [("torch", False)]),
        ("f = lambda: __import__('torch')", [("torch", True)]),
        ("if TYPE_CHECKING:\n    import torch\nelse:\n    import re", [("re", False)]),
    ],
)
def test_the_reader_of_imports_sees(source, found):
    assert [(one.name, one.lazy) for one in imports_of(source)] == found


def test_a_name_that_only_starts_alike_is_another_package():
    (found,) = imports_of("import torchvision")
    assert not found.is_of(("torch",))
