"""``hvq-edge demo``: the whole path on real images, with the commands a user would type."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hvq_edge.cli.console import messages, print_json, progress_bars, results
from hvq_edge.cli.interruption import INTERRUPTED, advice_if_interrupted
from hvq_edge.cli.options import JsonOption

if TYPE_CHECKING:
    from hvq_edge.data.dataset import DatasetImage

TRAIN_GOOD = 200
TEST_EACH = 60
FRAMES_PER_SECOND = 4.0
AFTER_CTRL_C = "Run it again: it goes on from what is there."


@dataclass(frozen=True)
class Stage:
    """One command of the demo."""

    name: str
    command: str
    """What the user would type; shown before it runs."""
    done: Callable[[], bool]
    """Whether its result is there already."""
    run: Callable[[], None]


def demo(
    out: Annotated[Path, typer.Option("--out", help="The run's folder.")] = Path("runs/demo"),
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Where the images are laid out. Default: a cache folder."),
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Default: 32.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Try everything on images of solar cells, in some minutes.

    It trains, evaluates, exports, verifies and inspects. The images come from the package
    elpv-dataset (CC BY-NC-SA 4.0). What is there already is not done again.
    """
    from hvq_edge.bundle.verification import VERIFY_NAME
    from hvq_edge.common.cache_folder import default_cache
    from hvq_edge.errors import GateFailed
    from hvq_edge.run.latest import point_latest
    from hvq_edge.run.record import BUNDLE_FOLDER, REPORT_NAME

    images = data or default_cache() / "solar-cells"
    stages = demo_stages(out, images, epochs or 32)
    seconds: dict[str, float] = {}
    failed_gate: GateFailed | None = None
    # The commands' tables go to standard error where standard output is for the JSON.
    with redirect_stdout(sys.stderr) if as_json else nullcontext():
        for number, stage in enumerate(stages, start=1):
            began = time.perf_counter()
            messages.rule(f"{number}/{len(stages)} {stage.name}", align="left")
            if stage.done():
                messages.print("Done before; its result is kept.")
            else:
                messages.print(f"$ {stage.command}", markup=False, soft_wrap=True)
                try:
                    with advice_if_interrupted(lambda: AFTER_CTRL_C):
                        stage.run()
                except typer.Exit as stop:  # the stream's own way to end after Ctrl-C
                    if stop.exit_code == INTERRUPTED:
                        messages.print(AFTER_CTRL_C)
                    raise
                except GateFailed as error:  # the rest is still worth seeing
                    failed_gate = error
                    messages.print(f"Gate failed: {error}", markup=False, soft_wrap=True)
            seconds[stage.name] = round(time.perf_counter() - began, 1)
        point_latest(out)
    files = [
        ("annotated video", out / "inspection" / "annotated.mp4"),
        ("rejected images", out / "inspection" / "rejects"),
        ("evaluation", out / REPORT_NAME),
        ("verification", out / BUNDLE_FOLDER / VERIFY_NAME),
    ]
    if as_json:
        print_json({"seconds": seconds, "files": {name: str(path) for name, path in files}})
    else:
        _show_verdicts(out / "inspection", images)
        _show_end(seconds, files, out, images)
    if failed_gate is not None:
        raise failed_gate


def demo_stages(out: Path, data: Path, epochs: int) -> list[Stage]:
    """Return the demo's commands, in order."""
    from hvq_edge.bundle.manifest import MANIFEST_NAME, open_bundle
    from hvq_edge.bundle.verification import VERIFY_NAME
    from hvq_edge.cli import eval_, export, stream, train, verify
    from hvq_edge.common.atomic import sha256_of
    from hvq_edge.errors import RunError
    from hvq_edge.run.record import CHECKPOINT_NAME, RECORD_NAME, REPORT_NAME, read_run

    bundle = out / "bundle"
    video = out / "parts.avi"
    inspection = out / "inspection"

    def trained() -> bool:
        try:
            return read_run(out).checkpoint_sha256 is not None
        except RunError:
            return False

    def exported() -> bool:
        if not (bundle / MANIFEST_NAME).is_file():
            return False
        manifest = open_bundle(bundle).manifest
        same = manifest.checkpoint_sha256 == sha256_of(out / CHECKPOINT_NAME)
        return same and "int8" in manifest.models

    def newer(result: Path, source: Path) -> bool:
        return result.exists() and result.stat().st_mtime >= source.stat().st_mtime

    def since_export(result: Path) -> bool:
        # bundle.json changes with its model card, so after verify and eval too
        return newer(result, bundle / open_bundle(bundle).manifest.models["fp32"])

    def start_or_resume() -> None:
        if (out / RECORD_NAME).exists():
            train.train(resume=True, out=out)
        else:
            train.train(data=data, preset="tiny", out=out, epochs=epochs)

    return [
        Stage(
            "images",
            f"(lay out the images of elpv-dataset in {data})",
            lambda: False,  # returns at once when complete, and repairs what is not
            lambda: _lay_out(data),
        ),
        Stage(
            "train",
            f"hvq-edge train --data {data} --preset tiny --epochs {epochs} --out {out}",
            trained,
            start_or_resume,
        ),
        Stage(
            "eval",
            f"hvq-edge eval {out} --data {data}",
            lambda: newer(out / REPORT_NAME, out / CHECKPOINT_NAME),
            lambda: eval_.evaluate(data=data, target=out),
        ),
        Stage(
            "export",
            f"hvq-edge export {out} --int8",
            exported,
            lambda: export.export(run=out, int8=True),
        ),
        Stage(
            "verify",
            f"hvq-edge verify {bundle} --data {data}",
            lambda: since_export(bundle / VERIFY_NAME),
            lambda: verify.verify(bundle=bundle, data=data),
        ),
        Stage(
            "video",
            f"(write the test images as a video, {video})",
            video.exists,
            lambda: _write_video(video, data),
        ),
        Stage(
            "stream",
            f"hvq-edge stream --bundle {bundle} --camera {video} --out {inspection}",
            lambda: since_export(inspection / "annotated.mp4"),
            lambda: stream.stream(
                camera=[str(video)], bundle=bundle, out=inspection, display=False
            ),
        ),
    ]


def _lay_out(data: Path) -> None:
    from hvq_edge.data.solar_cells import lay_out_solar_cells

    with progress_bars() as bars:
        lay_out_solar_cells(data, train_good=TRAIN_GOOD, test_each=TEST_EACH, on_progress=bars)


def _write_video(path: Path, data: Path) -> None:
    """Write one frame a test image."""
    from hvq_edge.data.images import read_image
    from hvq_edge.data.video import write_video

    order = _in_the_video(data)
    images = (read_image(each.path) for each in order)
    with progress_bars() as bars:
        write_video(path, images, FRAMES_PER_SECOND, len(order), bars)


def _in_the_video(data: Path) -> list[DatasetImage]:
    """Return the test images in a mixed order that is the same every time."""
    import random

    from hvq_edge.data.dataset import find_dataset

    order = sorted(find_dataset(data).test(), key=lambda image: image.path)
    return random.Random(0).sample(order, len(order))  # noqa: S311  # no secret


def _show_verdicts(inspection: Path, data: Path) -> None:
    """Print what the stream said of good and of defective parts, by category."""
    import json

    from rich.table import Table

    from hvq_edge.verdict.judgement import count_verdicts

    order = _in_the_video(data)
    lines = (inspection / "decisions.jsonl").read_text(encoding="utf-8").splitlines()
    said = [json.loads(line)["verdict"] for line in lines[-len(order) :]]
    table = Table(title="What the stream said of the parts", title_justify="left")
    for heading in ("category", "good rejected", "defects found", "no decision"):
        table.add_column(heading, justify="left" if heading == "category" else "right")
    for category in sorted({image.category for image in order}):
        good, defective = (
            count_verdicts(
                verdict
                for image, verdict in zip(order, said, strict=True)
                if image.category == category and image.good == kind
            )
            for kind in (True, False)
        )
        table.add_row(
            category,
            f"{good.rejected} of {good.total}",
            f"{defective.rejected} of {defective.total}",
            f"{good.no_decision} good, {defective.no_decision} defective",
        )
    results.print()
    results.print(table)


def _show_end(
    seconds: dict[str, float], files: list[tuple[str, Path]], out: Path, data: Path
) -> None:
    from rich.table import Table

    table = Table(title="Wall time", title_justify="left")
    table.add_column("stage")
    table.add_column("seconds", justify="right")
    for name, value in seconds.items():
        table.add_row(name, f"{value:.1f}")
    table.add_row("all", f"{sum(seconds.values()):.1f}")
    results.print()
    results.print(table)
    results.print("\nLook at:")
    for name, path in files:
        results.print(f"  {name:<18} {path}", markup=False, soft_wrap=True)
    results.print(
        f"\nNext: hvq-edge predict {shlex.quote(str(data))} --save judged judges these images, or "
        "any that you name; "
        f"hvq-edge report {out} --complete gathers all of it for a signature; "
        f"hvq-edge stream --camera 0, or --camera {out / 'parts.avi'}, inspects",
        markup=False,
        soft_wrap=True,
    )
