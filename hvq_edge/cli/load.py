"""``hvq-edge load``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hvq_edge.cli.console import messages, print_json
from hvq_edge.cli.options import JsonOption
from hvq_edge.common.wording import counted


def load(
    checkpoint: Annotated[Path, typer.Argument(help="Released HVQ-Trans checkpoint (.pth.tar).")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the new run.", show_default=False)],
    categories: Annotated[
        str | None,
        typer.Option(
            "--categories",
            help="Names in the order of the class index, a,b,c. Default: MVTec AD's 15.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Turn a released HVQ-Trans checkpoint into a run.

    Such a run has no training images on record, so export it with --category NAME or input, and
    give --calib DIR for INT8.
    """
    from hvq_edge.run.latest import point_latest
    from hvq_edge.training.load_released import load_released

    names = tuple(name.strip() for name in categories.split(",")) if categories else None
    record = load_released(checkpoint, out, names)
    point_latest(out)
    if as_json:
        print_json({"run": str(out), "categories": record.categories})
    else:
        messages.print(
            f"Loaded {counted(len(record.categories), 'category', 'categories')}: {out}\n"
            f"Next: hvq-edge eval --data DIR, or hvq-edge export --category {record.categories[0]}",
            markup=False,
            soft_wrap=True,
        )
