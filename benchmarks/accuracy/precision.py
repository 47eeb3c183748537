"""What float16 and INT8 change: float32, float16, INT8 and INT8 with float16 around, side by side.

    python -m benchmarks.accuracy.precision BUNDLE DATA

BUNDLE has all four files (``hvq-edge export --int8 --fp16``), DATA test images. Every file judges
every test image, one at a time: image AUROC of each category, codes equal to float32's on the
worst level, images whose verdict changes (each file under its own thresholds). The files with
float16 are judged in emulation (benchmarks.accuracy.fp16_emulation): computed in float32, and
rounded to float16 wherever the file says so, which CPU engines do not do. Times are of OpenVINO,
batch 1, all files in turn in one run, as ratios to float32: what a GPU makes of float16 they do not
tell.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from benchmarks.accuracy.fp16_emulation import emulate_fp16
from benchmarks.markdown_table import markdown_table
from hvq_edge.bundle.manifest import Precision
from hvq_edge.bundle.opened import Bundle, open_bundle
from hvq_edge.bundle.precision import PRECISIONS
from hvq_edge.common.atomic import write_text
from hvq_edge.data.dataset import DatasetImage, find_dataset
from hvq_edge.data.images import read_frame
from hvq_edge.errors import HvqEdgeError, InputError
from hvq_edge.runtime.contract import Graph
from hvq_edge.runtime.cpu.onnxruntime_engine import OnnxRuntimeEngine
from hvq_edge.runtime.cpu.processor import processor_name
from hvq_edge.runtime.engine import Engine
from hvq_edge.runtime.open_engine import open_engine

WARM_UP = 3


class Judged(NamedTuple):
    """What a file gives on the test images."""

    scores: NDArray[np.float32]
    codes: NDArray[np.int32]
    rejected: NDArray[np.bool_]


def judge(engine: Engine, bundle: Bundle, precision: Precision, paths: Sequence[Path]) -> Judged:
    """Judge images one at a time, under the file's own thresholds."""
    thresholds = bundle.manifest.thresholds.get(precision, {})
    scores, codes, rejected = [], [], []
    for path in paths:
        output = engine.run(read_frame(path, bundle.manifest.frame_shape)[None])
        score = float(output["score"][0])
        threshold = thresholds.get(bundle.manifest.categories[int(output["category"][0])])
        scores.append(score)
        codes.append(output["codes"][0])
        rejected.append(threshold is not None and score > threshold.value)
    return Judged(np.array(scores, np.float32), np.stack(codes), np.array(rejected))


@contextmanager
def open_judge(bundle: Bundle, precision: Precision, threads: int) -> Iterator[Engine]:
    """Open what judges a file: OpenVINO; with float16, its emulation in ONNX Runtime."""
    if "fp16" not in precision:
        with open_engine(
            bundle, precision=precision, backend="openvino", threads=threads
        ) as engine:
            yield engine
        return
    manifest = bundle.manifest
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / "emulated.onnx"
        onnx.save(emulate_fp16(onnx.load(bundle.model_file(precision))), path)
        graph = Graph(
            path, precision, manifest.frame_shape, manifest.categories, manifest.category_mode
        )
        with OnnxRuntimeEngine(graph, threads=threads) as engine:
            yield engine


def aurocs(images: Sequence[DatasetImage], scores: NDArray[np.float32]) -> dict[str, float]:
    """Image AUROC by category, where it has both kinds of images."""
    found = {}
    for name in dict.fromkeys(image.category for image in images):
        mine = [i for i, image in enumerate(images) if image.category == name]
        bad = [not images[i].good for i in mine]
        if 0 < sum(bad) < len(bad):
            found[name] = float(roc_auc_score(bad, scores[mine]))
    return found


def time_in_turn(
    engines: dict[Precision, Engine], frame: NDArray[np.uint8], rounds: int
) -> dict[Precision, float]:
    """Median ratio of each engine's time to float32's, all engines once a round."""
    seconds: dict[Precision, list[float]] = {name: [] for name in engines}
    for turn in range(rounds + WARM_UP):
        for name, engine in engines.items():
            start = time.perf_counter()
            engine.run(frame)
            if turn >= WARM_UP:
                seconds[name].append(time.perf_counter() - start)
    reference = np.array(seconds["fp32"])
    return {name: float(np.median(np.array(own) / reference)) for name, own in seconds.items()}


def measure(bundle: Bundle, data: Path, threads: int, rounds: int) -> dict[str, object]:
    """Return every number of the table."""
    lacking = [name for name in PRECISIONS if name not in bundle.manifest.models]
    if lacking:
        raise InputError(
            f"the bundle {bundle.path} has no {', '.join(lacking)} file.",
            next_step="run hvq-edge export --int8 --fp16",
        )
    served = set(bundle.manifest.categories)
    images = [one for one in find_dataset(data).test() if one.category in served]
    paths = [image.path for image in images]
    found: dict[Precision, Judged] = {}
    for name in PRECISIONS:
        with open_judge(bundle, name, threads) as engine:
            found[name] = judge(engine, bundle, name, paths)
    engines = {
        name: open_engine(bundle, precision=name, backend="openvino", threads=threads)
        for name in PRECISIONS
    }
    frame = read_frame(paths[0], bundle.manifest.frame_shape)[None]
    ratios = time_in_turn(engines, frame, rounds)
    for engine in engines.values():
        engine.close()
    reference = found["fp32"]
    rows = {}
    for name, judged in found.items():
        rows[name] = {
            "auroc": aurocs(images, judged.scores),
            "codes": float((judged.codes == reference.codes).mean((0, 2)).min()),
            "scores": float(np.corrcoef(judged.scores, reference.scores)[0, 1]),
            "changed": int((judged.rejected != reference.rejected).sum()),
            "bytes": bundle.manifest.files[bundle.manifest.models[name]].bytes,
            "time": ratios[name],
        }
    calibration = bundle.manifest.calibration
    return {
        "preset": bundle.manifest.preset,
        "images": len(images),
        "device": processor_name(),
        "threads": threads,
        "int8_layers": calibration.int8_layers if calibration else None,
        "float_layers": calibration.float_layers if calibration else None,
        "rows": rows,
    }


def table_of(numbers: dict[str, object]) -> str:
    """Lay the rows out, a column for each file."""
    rows: dict[str, dict[str, object]] = numbers["rows"]  # type: ignore[assignment]
    categories = list(rows["fp32"]["auroc"])  # type: ignore[call-overload]
    lines = [
        [f"image AUROC, {name}", *(f"{100 * row['auroc'][name]:.2f}" for row in rows.values())]  # type: ignore[index]
        for name in categories
    ]
    means = [float(np.mean(list(row["auroc"].values()))) for row in rows.values()]  # type: ignore[attr-defined]
    lines.append(["image AUROC, mean", *(f"{100 * mean:.2f}" for mean in means)])
    shown = {
        "equal codes (%)": lambda row: f"{100 * row['codes']:.1f}",
        "score correlation": lambda row: f"{row['scores']:.4f}",
        "changed verdicts": lambda row: f"{row['changed']} of {numbers['images']}",
        "MB": lambda row: f"{row['bytes'] / 1e6:.1f}",
        "CPU time / float32": lambda row: f"{row['time']:.2f}",
    }
    lines += [[name, *(show(row) for row in rows.values())] for name, show in shown.items()]
    return markdown_table(["", *rows], lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path, help="with all four files")
    parser.add_argument("data", type=Path, help="folder with test images")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--out", type=Path, help="JSON file")
    given = parser.parse_args(arguments)
    try:
        numbers = measure(open_bundle(given.bundle), given.data, given.threads, given.rounds)
        if given.out is not None:
            write_text(given.out, json.dumps(numbers, indent=2) + "\n")
    except HvqEdgeError as error:
        parser.exit(error.exit_code, f"{error}\n")
    layers = f"{numbers['int8_layers']} layers in int8, {numbers['float_layers']} kept in float"
    print(f"{numbers['preset']}, {numbers['images']} test images; {layers}; {numbers['device']}")
    print()
    print(table_of(numbers))


if __name__ == "__main__":
    main()
