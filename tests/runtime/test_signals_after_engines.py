"""Ctrl-C still ends a process that opened and closed several engines."""

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


def test_nothing_else_opens_a_core_that_ends_before_its_process():
    rooms = ("hvq_edge", "export", "calibration", "benchmarks")
    files = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    found = {
        path.relative_to(ROOT).as_posix()
        for path in files
        if "openvino.Core()" in path.read_text(encoding="utf-8")
    }
    kept = {"hvq_edge/common/openvino_core.py", "benchmarks/speed/peers.py"}
    assert found == {*kept, "export/triton_model.py"}, "the last is a process of the server's"
