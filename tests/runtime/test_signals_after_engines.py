"""Ctrl-C still ends a process that opened and closed several engines."""

import ast
import subprocess
import sys

import pytest

pytest.importorskip("onnx")
pytest.importorskip("openvino")
from helpers.graphs import save_bundle
from helpers.paths import ROOT

OPEN_CLOSE_INTERRUPT = """
import gc, signal, sys
from hvq_edge.runtime.open_engine import open_engine
engines = [open_engine(sys.argv[1], precision="fp32", backend=sys.argv[2]) for _ in range(3)]
while engines:
    engines.pop(0).close()
gc.collect()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_signal_after_engines_were_closed_first_to_last(tmp_path, backend):
    bundle = save_bundle(tmp_path / "bundle")
    done = subprocess.run(
        [sys.executable, "-c", OPEN_CLOSE_INTERRUPT, bundle.path, backend],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


def names_a_core(source: str) -> bool:
    """Whether a file's code has OpenVINO's ``Core`` by that name: called, imported or passed on."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Name(id="Core") | ast.Attribute(attr="Core") | ast.alias(name="Core"):
                return True
    return False


@pytest.mark.parametrize(
    "source",
    [
        "import openvino\nopenvino.Core()",
        "import openvino as ov\nov.Core()",
        "import openvino\nopenvino.runtime.Core()",
        "from openvino import Core\nCore()",
        "from openvino import Core as Engines\nEngines()",
        "import openvino\nmake = openvino.Core\nmake()",
    ],
)
def test_a_core_is_seen_under_any_alias(source):
    assert names_a_core(source)
    assert not names_a_core("from hvq_edge.common.openvino_core import openvino_core  # Core()")


def test_nothing_else_opens_a_core_that_ends_before_its_process():
    rooms = ("hvq_edge", "export", "calibration", "benchmarks")
    files = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    found = {
        path.relative_to(ROOT).as_posix()
        for path in files
        if names_a_core(path.read_text(encoding="utf-8"))
    }
    kept = {"hvq_edge/common/openvino_core.py", "benchmarks/speed/peers.py"}
    assert found == {*kept, "export/triton_model.py"}, "the last is a process of the server's"
