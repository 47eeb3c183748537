"""Throughput and latency of a Triton server against the number of clients, beside one engine here.

    make triton
    PYTHONPATH=tests python -m benchmarks.speed.triton runs/latest/bundle

The server is the one of `make triton`: without a GPU, with the models of its Python backend. Each
client is a thread with a connection of its own that sends one frame after the other, as a camera
that waits for its verdict. The numbers of clients, and the engine in this process with as many
threads that share it, take turns, so that a busy machine slows all of them; what is reported are
medians of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from helpers.triton_server import TritonServer, why_not

from benchmarks.markdown_table import markdown_table
from hvq_edge.bundle.opened import Bundle, open_bundle
from hvq_edge.bundle.precision import Precision
from hvq_edge.runtime.engine import Engine, Frames
from hvq_edge.runtime.engine_names import known_precision
from hvq_edge.runtime.open_engine import open_engine
from hvq_edge.runtime.triton.engine import model_name, open_triton_engine


def load(engines: list[Engine], frame: Frames, seconds: float) -> list[float]:
    """Ask each engine on a thread of its own, again and again; return the seconds of each call."""
    taken: list[float] = []
    end = perf_counter() + seconds

    def client(engine: Engine) -> None:
        while (began := perf_counter()) < end:
            engine.run(frame)
            taken.append(perf_counter() - began)

    threads = [threading.Thread(target=client, args=(engine,)) for engine in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return taken


def mean_batch(server: TritonServer, model: str) -> Callable[[], float]:
    """Return a call that gives the frames a batch since the call before."""
    before: dict[int, int] = {}

    def since() -> float:
        now = server.batches(model)
        new = {size: count - before.get(size, 0) for size, count in now.items()}
        before.update(now)
        runs = sum(new.values())
        return sum(size * count for size, count in new.items()) / runs if runs else 0.0

    since()
    return since


def measure(
    bundle: Bundle, precision: Precision, clients: list[int], rounds: int, seconds: float
) -> str:
    """Return a table."""
    height, width = bundle.manifest.frame_shape
    frame = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
    if bundle.manifest.category_mode == "input":
        raise SystemExit("give a bundle that needs no category from frame to frame")
    rates: dict[tuple[str, int], list[float]] = {}
    last: dict[tuple[str, int], list[float]] = {}
    batches: dict[int, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        server = opened.enter_context(TritonServer(Path(folder)))
        server.serve(bundle)
        here = opened.enter_context(open_engine(bundle, precision=precision, backend="openvino"))
        there: list[Engine] = [
            opened.enter_context(open_triton_engine(server.address, bundle, precision=precision))
            for _ in range(max(clients))
        ]
        since = mean_batch(server, model_name(precision))
        for number in range(rounds + 1):  # the first compiles graphs, and does not count
            for count in clients:
                ways: dict[str, list[Engine]] = {"here": [here] * count, "server": there[:count]}
                for way, engines in ways.items():
                    taken = load(engines, frame, seconds)
                    if number:
                        rates.setdefault((way, count), []).append(len(taken) / seconds)
                        p99 = float(np.percentile(taken, 99))
                        last.setdefault((way, count), []).append(1e3 * p99)
                    if way == "server":
                        batch = since()
                        if number:
                            batches.setdefault(count, []).append(batch)

    def ratio(of: list[float], to: list[float]) -> str:
        return f"{median(a / b for a, b in zip(of, to, strict=True)):.2f}"

    first = clients[0]
    rows = [
        [
            str(count),
            f"{median(rates['server', count]):.1f}",
            ratio(rates["server", count], rates["server", first]),
            ratio(rates["server", count], rates["here", count]),
            f"{median(batches[count]):.1f}",
            f"{median(last['server', count]):.0f}",
            ratio(last["server", count], last["here", count]),
        ]
        for count in clients
    ]
    headings = [
        "clients",
        "frames a second",
        f"against {first} client" + "s" * (first > 1),
        "against the engine here",
        "frames a batch",
        "p99 ms",
        "p99 against the engine here",
    ]
    return markdown_table(headings, rows)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path, help="folder that hvq-edge export wrote")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of a turn")
    arguments = parser.parse_args()
    lacking = why_not()
    if lacking:
        raise SystemExit(lacking)
    print(
        measure(
            open_bundle(arguments.bundle),
            known_precision(arguments.precision),
            arguments.clients,
            arguments.rounds,
            arguments.seconds,
        )
    )


if __name__ == "__main__":
    main()
