"""Where a graph's time goes in OpenVINO on this CPU, by what its operations are for.

    python -m benchmarks.speed.layer_times RUN/bundle                 # float32 and INT8
    python -m benchmarks.speed.layer_times RUN/bundle --threads 1     # on a busy machine

OpenVINO times each operation of its own, optimised graph, and gives the mean over all calls so far
in whole microseconds: from one call's mean to the next's its own time is worked out, which is exact
to as many microseconds as there were calls, so a graph is opened anew after ten. Of all calls the
least time of each operation counts: what another process took does not. Counting costs time itself,
so the sums are for shares, not for what an image takes.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.markdown_table import markdown_table
from hvq_edge.bundle.opened import Bundle, open_bundle
from hvq_edge.common.openvino_core import openvino_core
from hvq_edge.errors import HvqEdgeError
from hvq_edge.runtime.cpu.processor import processor_name

GROUPS = (
    ("early convolutions (stem, blocks 0 to 3)", r"^backbone\.(stem|blocks\.[0-3]\.)"),
    ("depthwise convolutions", r"^backbone\..*depthwise"),
    ("other convolutions", r"^backbone\.blocks"),
    ("attention products and softmax", r"attention/"),
    ("linears", r"^(encoder|decoder|input_projection|output)\b"),
    ("code distances", r"^codebooks"),
    ("prototype distances", r"^prototypes"),
    ("whitening", r"^whitening"),
)
CALLS = 10
"""Of one opening."""
_MOVES_AND_SUMS = ("MVN", "Add", "MulAdd", "FakeQuantize", "Gather", "Transpose", "Reorder")
REST = "norms, residuals, map, category, layout"


def group_of(name: str, kind: str) -> str:
    """Tell what an operation is for.

    Args:
        name: OpenVINO's, which is that of the last node fused into it.
        kind: OpenVINO's type of operation.
    """
    if kind in _MOVES_AND_SUMS and not name.startswith("prototypes"):
        return REST
    return next((group for group, pattern in GROUPS if re.search(pattern, name)), REST)


def layer_times(path: Path, threads: int, openings: int) -> dict[str, float]:
    """Milliseconds of each group, the least of each operation over all calls."""
    hints = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "PERF_COUNT": True,
    }
    # By place: OpenVINO numbers the operations that it makes itself anew with every opening.
    least: dict[int, float] = {}
    operations: dict[int, tuple[str, str]] = {}
    for _ in range(openings):
        model = openvino_core().read_model(path)
        frames = model.input("frames")
        # As the engine does for a camera's single frames.
        side = frames.partial_shape[1].get_length()
        model.reshape({frames: [1, side, side, 3]})
        compiled = openvino_core().compile_model(model, "CPU", hints)
        request = compiled.create_infer_request()
        frame = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
        before: dict[int, float] = {}
        for call in range(1, CALLS + 1):
            request.infer({0: frame})
            for place, one in enumerate(request.profiling_info):
                mean = one.real_time.total_seconds() * 1e3
                own = max(mean * call - before.get(place, 0.0), 0.0)
                before[place] = mean * call
                operations[place] = (one.node_name, one.node_type)
                if call > 1:  # the first call prepares kernels
                    least[place] = min(own, least.get(place, own))
    groups: dict[str, float] = defaultdict(float)
    for place, time in least.items():
        groups[group_of(*operations[place])] += time
    return dict(groups)


def measure(bundle: Bundle, threads: int, openings: int) -> str:
    """Return the table of a bundle's float32 and INT8 files."""
    names = [name for name in ("fp32", "int8") if name in bundle.manifest.models]
    columns = [layer_times(bundle.model_file(name), threads, openings) for name in names]
    order = [*(group for group, _ in GROUPS), REST]
    rows = [
        [group, *(f"{column.get(group, 0):.2f}" for column in columns)]
        for group in order
        if any(column.get(group) for column in columns)
    ]
    rows.append(["together", *(f"{sum(column.values()):.2f}" for column in columns)])
    return markdown_table(["ms", *names], rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path, help="category mode auto or one")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--openings", type=int, default=10)
    given = parser.parse_args(arguments)
    try:
        table = measure(open_bundle(given.bundle), given.threads, given.openings)
    except HvqEdgeError as error:
        parser.exit(error.exit_code, f"{error}\n")
    print(f"{processor_name()}, {given.threads} threads\n")
    print(table)


if __name__ == "__main__":
    main()
