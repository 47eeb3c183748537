"""``hvq-edge demo``: the whole path on real images, with the commands a user would type."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from hvq_edge.cli.console import messages, print_json, progress_bars, results
from hvq_edge.cli.demo_end import (
    activation,
    next_steps,
    open_at_a_screen,
    show_end,
    show_verdicts,
)
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
    no_open: Annotated[
        bool,
        typer.Option("--no-open", help="Open no browser at the end, where there is a screen."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Try everything on images of solar cells, in some minutes.

    It trains, evaluates, exports, verifies and inspects, and shows all of it on one page. The
    images come from the package elpv-dataset (CC BY-NC-SA 4.0). What is there already is not done
    again.
    """
    from hvq_edge.bundle.verification import VERIFY_NAME
    from hvq_edge.errors import GateFailed
    from hvq_edge.evaluation.demo_page import (
        PAGE_NAME,
        judged_parts,
        newest_video,
        verdicts_by_category,
        write_demo_page,
    )
    from hvq_edge.run.latest import point_latest
    from hvq_edge.run.record import BUNDLE_FOLDER, REPORT_NAME

    _check_installed()
    _check_place(out / PAGE_NAME)
    images = data or _default_images(out)
    _check_run(out, images)
    for line in (f"Writes {out.resolve()}", f"and images to {images.resolve()}."):
        messages.print(line, markup=False, soft_wrap=True)
    messages.print("It takes some minutes; Ctrl-C stops it, and the same command goes on.")
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
    parts = judged_parts(out / "inspection", _in_the_video(images))
    steps = next_steps(out, images, parts)
    page = write_demo_page(out, parts, steps, activation())
    files = [
        ("all on one page", page),
        ("annotated video", newest_video(out / "inspection")),
        ("rejected images", out / "inspection" / "rejects"),
        ("evaluation", out / REPORT_NAME),
        ("verification", out / BUNDLE_FOLDER / VERIFY_NAME),
    ]
    if as_json:
        print_json({"seconds": seconds, "files": {name: str(path) for name, path in files}})
    else:
        show_verdicts(verdicts_by_category(parts))
        show_end(seconds, files, steps)
        if not no_open and results.is_terminal and open_at_a_screen(page, os.environ):
            messages.print("The page opens in your browser.")
    if failed_gate is not None:
        raise failed_gate


def demo_stages(out: Path, data: Path, epochs: int) -> list[Stage]:
    """Return the demo's commands, in order."""
    from hvq_edge.bundle.manifest import MANIFEST_NAME
    from hvq_edge.bundle.opened import open_bundle
    from hvq_edge.bundle.verification import VERIFY_NAME, read_verification
    from hvq_edge.cli import eval_, export, stream, train, verify
    from hvq_edge.common.atomic import sha256_of
    from hvq_edge.errors import InputError, RunError
    from hvq_edge.evaluation.demo_page import is_whole, newest_video
    from hvq_edge.run.record import CHECKPOINT_NAME, RECORD_NAME, REPORT_NAME, read_run

    bundle = out / "bundle"
    video = out / "parts.avi"
    inspection = out / "inspection"
    run, images = quote(str(out)), quote(str(data))

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

    def verified() -> bool:
        path = bundle / VERIFY_NAME
        try:
            # One that failed is run again, so that it is not taken for passed.
            return since_export(path) and read_verification(path).passed
        except InputError:
            return False

    def inspected() -> bool:
        # After Ctrl-C there is a video as well, of the frames until then.
        return since_export(newest_video(inspection)) and is_whole(
            inspection, len(_in_the_video(data))
        )

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
            f"hvq-edge train --data {images} --preset tiny --epochs {epochs} --out {run}",
            trained,
            start_or_resume,
        ),
        Stage(
            "eval",
            f"hvq-edge eval {run} --data {images}",
            lambda: newer(out / REPORT_NAME, out / CHECKPOINT_NAME),
            lambda: eval_.evaluate(data=data, target=out),
        ),
        Stage(
            "export",
            f"hvq-edge export {run} --int8",
            exported,
            lambda: export.export(run=out, int8=True),
        ),
        Stage(
            "verify",
            f"hvq-edge verify {run}/bundle --data {images}",
            verified,
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
            f"hvq-edge stream --bundle {run}/bundle --camera {run}/parts.avi "
            f"--out {run}/inspection",
            inspected,
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


def _check_installed() -> None:
    """Check at once for what the first stages do without.

    Raises:
        MissingCapability: packages are missing.
    """
    from importlib.util import find_spec

    from hvq_edge.common.extras import EXTRA_OF, pip_install
    from hvq_edge.errors import MissingCapability

    needed = [name for name, extra in EXTRA_OF.items() if extra in ("train", "learn", "demo")]
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise MissingCapability(
            f"the demo needs what is not installed: {', '.join(missing)}.",
            next_step=pip_install("train,demo"),
        )


def _check_place(path: Path) -> None:
    from hvq_edge.common.atomic import check_writable
    from hvq_edge.errors import OutputError

    try:
        check_writable(path)
    except OutputError as error:
        remedy = "go to a folder that you may write to, or name one with --out"
        raise OutputError(error.cause, next_step=remedy) from error


def _check_run(out: Path, images: Path) -> None:
    """Refuse a run of other images: the demo would go on with its training, and replace its report.

    Raises:
        SettingsError: the folder has one.
    """
    from hvq_edge.errors import RunError, SettingsError
    from hvq_edge.run.record import read_run

    try:
        trained_on = read_run(out, finished=False).data
    except RunError:  # none yet; one that cannot be read is said where it is needed
        return
    if trained_on is None or Path(trained_on).resolve() != images.resolve():
        raise SettingsError(
            f"{out} is a run of {trained_on or 'a released checkpoint'}, not of the demo's images "
            f"in {images}.",
            next_step="choose another folder with --out, or name the demo's images with --data",
        )


def _default_images(out: Path) -> Path:
    """Return the cache's folder; beside the run where a user has no home, as in a container."""
    from hvq_edge.common.atomic import check_writable
    from hvq_edge.common.cache_folder import default_cache
    from hvq_edge.data.solar_cells import MARKER_NAME
    from hvq_edge.errors import OutputError

    try:
        images = default_cache() / "solar-cells"
        if not (images / MARKER_NAME).is_file():
            check_writable(images / MARKER_NAME)
    except (OutputError, OSError, RuntimeError):
        return out.with_name("solar-cells")
    return images
