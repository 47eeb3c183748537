"""What the paper's third part is worth: transport losses in training, transport scores in maps.

    python -m benchmarks.accuracy.transport DATA --epochs 24
    python -m benchmarks.accuracy.transport DATA --seeds 0 --losses none conditional
    python -m benchmarks.accuracy.transport DATA --table

For every seed and start of the codebooks the network is trained without a transport loss and with
each; on the weights of each, maps without transport scores and with those of all levels are judged.
What is finished is written at once and skipped the next time; several processes with the same --out
share the work, each taking rows that no other has begun.

*Start* is the preset's (codes begin at tokens, unused ones are revived), or the paper's (codes
begin anywhere, and stay where no token chooses them): the paper's claim that transport keeps codes
from collapsing is one about the second.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.accuracy.ablation_rows import Row
from benchmarks.accuracy.ablations import finished_rows, make_plan, run_rows
from benchmarks.accuracy.row_training import RowResult, Workshop
from benchmarks.markdown_table import markdown_table
from hvq_edge.cli.console import progress_bars
from hvq_edge.errors import HvqEdgeError
from hvq_edge.evaluation.table import percent
from hvq_edge.model.device import choose_device
from hvq_edge.run.settings import ModelSettings, Settings, load_settings

WEIGHT = 0.1
"""Of a transport loss."""
NONE = "none"
KEPT = "none, codes stay"
"""The control: codes that no token chooses stay where they are, as with a loss, and nothing pulls
them. Settings allow that only beside a loss, so this one weighs next to nothing."""
LOSSES: Mapping[str, Mapping[str, Any]] = {
    NONE: {},
    KEPT: {"conditional_transport_weight": 1e-12, "codebook_learning": "both"},
    "conditional": {"conditional_transport_weight": WEIGHT, "codebook_learning": "both"},
    "entropic": {"entropic_transport_weight": WEIGHT, "codebook_learning": "both"},
    "both": {
        "conditional_transport_weight": WEIGHT,
        "entropic_transport_weight": WEIGHT,
        "codebook_learning": "both",
    },
}
STARTS: Mapping[str, Mapping[str, Any]] = {
    "preset's": {},
    "paper's": {"codebook_start": "random", "revive_codes": False},
}


class Variant(NamedTuple):
    """One line of the table."""

    start: str
    loss: str
    scores: str


def score_forms(model: ModelSettings) -> dict[str, dict[str, Any]]:
    """Settings of the map: all levels share a weight of 1/2, that of the prototypes."""
    levels = {"transport_weight": 0.5, "transport_levels": (1 / model.levels,) * model.levels}
    return {
        NONE: {},
        "all levels": levels,
        "all levels, sharp": {**levels, "transport_temperature": model.width / 16},
    }


def rows_of(
    settings: Settings, starts: Sequence[str], losses: Sequence[str], seeds: Sequence[int]
) -> dict[Variant, list[Row]]:
    """Rows by variant, one a seed; maps with scores use the weights of the one without."""
    rows: dict[Variant, list[Row]] = {}
    for start in starts:
        for loss in losses:
            training = {**STARTS[start], **LOSSES[loss]}
            for scores, model in score_forms(settings.model).items():
                for seed in seeds:
                    trained = f"start {start}, loss {loss}, seed {seed}"
                    name = trained if scores == NONE else f"{trained}, scores {scores}"
                    weights = "" if scores == NONE else trained
                    row = Row(name, model, {**training, "seed": seed}, weights_of=weights)
                    rows.setdefault(Variant(start, loss, scores), []).append(row)
    return rows


def by_seed(rows: Mapping[Variant, Sequence[Row]]) -> list[Row]:
    """The order of work: all variants of a seed before the next one's."""
    return [row for same_seed in zip(*rows.values(), strict=True) for row in same_seed]


def table(rows: Mapping[Variant, Sequence[Row]], results: Mapping[str, RowResult]) -> str:
    """A line a variant: means over the seeds that are finished, and the lowest and highest."""
    headings = [
        *("start, loss, transport scores", "seeds", "image AUROC", "recall at 5 %", "pixel AUROC"),
        *("pseudo-defects", "codes used, %", "perplexity", "s an epoch"),
    ]
    lines = []
    for variant, own in rows.items():
        found = [results[row.name] for row in own if row.name in results]
        if not found:
            continue
        seconds = [one.fit_images / one.images_per_second for one in found if one.images_per_second]
        lines.append(
            [
                ", ".join(variant),
                str(len(found)),
                _mean(found, lambda one: one.evidence.mean.image_auroc),
                _mean(found, lambda one: one.evidence.mean.image_recall_at_5),
                _mean(found, lambda one: one.evidence.mean.pixel_auroc),
                _mean(found, lambda one: one.evidence.pseudo_mean),
                _levels(found, lambda use: f"{100 * use[0]:.0f}") if seconds else "–",
                _levels(found, lambda use: f"{use[1]:.0f}") if seconds else "–",
                f"{statistics.mean(seconds):.1f}" if seconds else "–",
            ]
        )
    return markdown_table(headings, lines)


def _mean(found: Sequence[RowResult], value: Callable[[RowResult], float | None]) -> str:
    values = [one for one in map(value, found) if one is not None]
    if not values:
        return "–"
    ends = f" ({percent(min(values))} .. {percent(max(values))})" if len(values) > 1 else ""
    return percent(statistics.mean(values)) + ends


def _levels(found: Sequence[RowResult], text: Callable[[tuple[float, float]], str]) -> str:
    """Level 0 first, the top last."""
    uses = [one.code_use for one in found]
    means = (
        (statistics.mean(use[0] for use in level), statistics.mean(use[1] for use in level))
        for level in zip(*uses, strict=True)
    )
    return " / ".join(text(level) for level in means)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is not finished and print all that is."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="folder of images with test images")
    parser.add_argument("--out", type=Path, default=Path("runs/transport"))
    parser.add_argument("--preset", default="tiny", choices=["tiny", "edge", "paper"])
    parser.add_argument("--settings", type=Path, help="TOML file; what all rows start from")
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--losses", nargs="+", default=[*LOSSES], choices=[*LOSSES])
    parser.add_argument("--starts", nargs="+", default=[*STARTS], choices=[*STARTS])
    parser.add_argument("--table", action="store_true", help="print what is finished, and end")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    given = parser.parse_args(arguments)
    failed = []
    try:
        settings = load_settings(given.preset, given.settings, training={"epochs": given.epochs})
        rows = rows_of(settings, given.starts, given.losses, given.seeds)
        if not given.table:
            device = choose_device(given.device)
            torch.backends.cudnn.allow_tf32 = False  # features in full float32, as they are judged
            work = by_seed(rows)
            with progress_bars() as bars:
                plan = make_plan(given.data, given.out, settings, bars)
                failed = run_rows(Workshop(plan, given.out, device, work), work, given.out, bars)
    except HvqEdgeError as error:
        parser.exit(error.exit_code, f"{error}\n")
    results = finished_rows(given.out, by_seed(rows))
    print(f"Means over categories and seeds, lowest and highest seed\n\n{table(rows, results)}")
    if failed:
        names = ", ".join(row.name for row, _ in failed)
        parser.exit(failed[0][1].exit_code, f"rows that could not be run: {names}\n")


if __name__ == "__main__":
    main()
