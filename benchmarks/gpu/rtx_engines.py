"""What TensorRT-RTX makes of a bundle's graphs, for several GPUs and without any.

    python -m benchmarks.gpu.rtx_engines runs/demo/bundle

For a net of the `paper` preset's size, without training one: `benchmarks/gpu/paper_graphs.py`.

Each graph is built for each compute capability, in a process of its own so that its peak memory is
its own. Printed as a Markdown table: seconds of the build, MB of the plan, most MB of main memory,
the products (convolutions and matrix products) computed in Int8, in float16 and in float32, how
many of the graph's are quantised, and what does not agree with the graph.
"""

import argparse
import json
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.markdown_table import markdown_table
from hvq_edge.bundle.manifest import Precision

CHIPS = ("8.6", "8.9", "12.0")
MOST_FAULTS = 3
"""More are counted and the first is shown."""


@dataclass(frozen=True)
class Measured:
    """One build."""

    precision: str
    chip: str
    seconds: float
    plan_bytes: int
    peak_bytes: int
    products: dict[str, int]
    """Number of products by the types of their factors, such as ``Int8``."""
    quantised: int
    faults: list[str]


def measure(graph: Path, precision: Precision, chip: str) -> Measured:
    """Build one engine in this process."""
    import onnx

    from benchmarks.gpu.compiled_layers import check_layers, parse_layers
    from benchmarks.gpu.typed_nodes import factor_types, type_changes
    from hvq_edge.export.build.engine import build_engine
    from hvq_edge.export.build.memory import free_host_memory
    from hvq_edge.export.build.versions import version_of
    from hvq_edge.runtime.tensorrt.engine_file import BuildOptions
    from hvq_edge.runtime.tensorrt.library import load_backend

    module = load_backend("tensorrt-rtx")
    built = build_engine(
        module,
        version_of(module, "tensorrt-rtx"),
        graph,
        precision,
        BuildOptions(),
        free_host_memory(),
        capabilities=(chip,),
        log_layers=True,
    )
    model = onnx.load(graph)
    layers = parse_layers(built.layers)
    factors = factor_types(model)
    kinds = Counter("/".join(sorted(one.factors)) for one in layers if one.is_product)
    return Measured(
        precision=precision,
        chip=chip,
        seconds=built.seconds,
        plan_bytes=len(built.engine),
        peak_bytes=built.peak_memory or 0,
        products=dict(kinds),
        quantised=list(factors.values()).count("Int8"),
        faults=check_layers(layers, factors, type_changes(model)),
    )


def in_its_own_process(graph: Path, precision: str, chip: str) -> Measured:
    """Build one engine in a new process."""
    command = [sys.executable, "-m", "benchmarks.gpu.rtx_engines", str(graph.parent)]
    command += ["--only", graph.name, precision, chip]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{graph.name} for {chip} failed:\n{done.stderr}")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def row(one: Measured) -> list[str]:
    """Return a table's row."""
    known = {"Int8": "Int8", "float16": "Half", "float32": "Float"}
    counts = [str(one.products.get(name, 0)) for name in known.values()]
    faults = one.faults
    if len(faults) > MOST_FAULTS:
        faults = [f"{len(faults)}, such as: {faults[0]}"]
    mixed = [f"{n} in {kind}" for kind, n in one.products.items() if kind not in known.values()]
    return [
        one.precision,
        one.chip,
        f"{one.seconds:.1f}",
        f"{one.plan_bytes / 1e6:.1f}",
        f"{one.peak_bytes / 1e6:.0f}",
        *counts,
        str(one.quantised),
        "; ".join([*mixed, *faults]) or "none",
    ]


def main() -> None:
    """Build everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path, help="a bundle, or a folder of its graphs")
    parser.add_argument("--chips", nargs="+", default=CHIPS)
    parser.add_argument("--only", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        name, precision, chip = arguments.only
        print(json.dumps(asdict(measure(arguments.bundle / name, precision, chip))))
        return
    graphs = sorted(arguments.bundle.glob("model.*.onnx"))
    headings = ["graph", "for", "s", "MB", "peak MB"]
    headings += ["Int8", "float16", "float32", "quantised", "faults"]
    rows = [
        row(in_its_own_process(graph, graph.name.split(".")[1], chip))
        for graph in graphs
        for chip in arguments.chips
    ]
    print(markdown_table(headings, rows))


if __name__ == "__main__":
    main()
