"""``hvq-edge predict``: the verdict on images that are named."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hvq_edge.cli.console import messages, one_line, print_json, results
from hvq_edge.cli.options import (
    BackendOption,
    JsonOption,
    LanguageOption,
    PrecisionOption,
    ProviderOption,
    bundle_folder,
)
from hvq_edge.common.wording import counted
from hvq_edge.run.latest import DEFAULT_BUNDLE

if TYPE_CHECKING:
    from rich.text import Text

    from hvq_edge.predict.images import NamedImage
    from hvq_edge.predict.result import Result
    from hvq_edge.stream.capture.part_number import PartReader

_STYLES = {"pass": "green", "reject": "bold red", "no_decision": "yellow"}


def predict(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE|FOLDER|GLOB|URL...",
            help="What to judge; - reads an image from standard input.",
        ),
    ],
    bundle: Annotated[
        Path,
        typer.Option("--bundle", help="Bundle or run that judges.", callback=bundle_folder),
    ] = DEFAULT_BUNDLE,
    save: Annotated[
        Path | None,
        typer.Option(
            "--save",
            metavar="DIR",
            help="Keep overlay, heat map and mask of each image, results.csv, results.json and "
            "index.html, a gallery.",
            show_default=False,
        ),
    ] = None,
    category: Annotated[
        str | None,
        typer.Option(
            "--category",
            help="What the images show, where the bundle must be told.",
            show_default=False,
        ),
    ] = None,
    precision: PrecisionOption = "auto",
    backend: BackendOption = "auto",
    provider: ProviderOption = None,  # noqa: ARG001  # it is in the backend
    part_from: Annotated[
        str | None,
        typer.Option(
            "--part-from",
            metavar="REGEX",
            help="Find each part's serial number in its image's path: the group named part, else "
            "the first group, else all that matches.",
            show_default=False,
        ),
    ] = None,
    part_code: Annotated[
        str | None,
        typer.Option(
            "--part-code",
            metavar="KIND",
            help="Read it from a code in the image: qr, data-matrix, code-128 or any.",
            show_default=False,
        ),
    ] = None,
    fail_on_reject: Annotated[
        bool,
        typer.Option("--fail-on-reject", help="Exit with 1 unless every image passes."),
    ] = False,
    language: LanguageOption = None,  # noqa: ARG001  # its callback keeps it
    as_json: JsonOption = False,
) -> None:
    """Judge images that you name: verdict and score of each.

    The exit code is 0 whatever the verdicts, and 2 where no image can be read. With --json, one
    line of JSON for each image.
    """
    from hvq_edge.bundle.opened import open_bundle
    from hvq_edge.errors import GateFailed, ImageError
    from hvq_edge.predict.predictor import load
    from hvq_edge.predict.results_folder import GALLERY, ResultsFolder
    from hvq_edge.runtime.engine_names import AUTO
    from hvq_edge.verdict.judgement import count_verdicts

    opened = open_bundle(bundle)
    found = _found(images, save)
    alone = len(found) == 1 and found[0].alone
    if alone:
        found = [_read(found[0])]  # what cannot be read is said before an engine is opened
    parts = _part_reader(part_from, part_code)
    verdicts = []
    read = False
    why: list[str] = []
    chosen = why.append if precision == AUTO else None
    with load(
        opened, precision=precision, backend=backend, category=category, on_choice=chosen
    ) as model:
        info = model.info
        folder = (
            None if save is None else ResultsFolder(save, f"{counted(len(found), 'image')} judged")
        )
        _say(
            f"Judging {counted(len(found), 'image')} with {info.precision} on {info.backend}, "
            f"{bundle}."
        )
        for reason in why:
            _say(f"Why {reason}.")
        for one, result in zip(found, model.each(found, strict=alone, parts=parts), strict=True):
            verdicts.append(result.verdict)
            read = read or result.image is not None
            if folder is not None:
                folder.add(result, one.place)
            if as_json:
                print_json(result.to_dict())
            else:
                results.print(result_line(result), soft_wrap=True)
    counts = count_verdicts(verdicts)
    said = messages if as_json else results
    said.print(
        f"{counted(counts.total, 'image')}: {counts.passed} pass, {counts.rejected} reject, "
        f"{counts.no_decision} no decision."
    )
    if folder is not None:
        folder.finish()
        said.print(f"Gallery: {folder.folder / GALLERY}", markup=False, soft_wrap=True)
    if not read:
        raise ImageError(
            f"none of the {counted(counts.total, 'image')} can be read.",
            next_step="see above what is wrong with each; hvq-edge data check looks at a data set",
        )
    if fail_on_reject and counts.passed < counts.total:
        raise GateFailed(
            f"{counts.total - counts.passed} of {counted(counts.total, 'image')} did not pass.",
            next_step="look at them, with --save DIR also at where they differ",
        )


def _read(named: NamedImage) -> NamedImage:
    image = named.read()
    return replace(named, read=lambda: image)


def result_line(result: Result) -> Text:
    """Return the line for one image."""
    from rich.text import Text

    from hvq_edge.verdict.decision import as_text

    line = Text(f"{result.verdict.replace('_', ' '):<11}", _STYLES[result.verdict])
    parts = [one_line(result.name)]
    if result.score is None or result.threshold is None:
        parts.append(one_line(result.reason.removeprefix(as_text(result.name)).strip()))
    else:
        parts.append(f"score {result.score:.4g} of {result.threshold:.4g}")
    if result.p_value is not None:
        parts.append(f"p {result.p_value:.2g}")
    if result.category:
        parts.append(result.category)
    if result.part:
        parts.append(f"part {result.part}")
    if result.regions:
        left, top, width, height = result.regions[0].box
        others = f", and {len(result.regions) - 1} more" if len(result.regions) > 1 else ""
        parts.append(f"{width}x{height} px at {left},{top}{others}")
    line.append("  " + "  ".join(parts), "")
    return line


def _found(named: list[str], save: Path | None) -> list[NamedImage]:
    """Find what was named; pictures that ``--save`` keeps in its folder are left out."""
    from hvq_edge.errors import InputError
    from hvq_edge.predict.images import STDIN, find_images
    from hvq_edge.predict.result import is_picture

    if named.count(STDIN) > 1:
        raise InputError("standard input holds one image.", next_step="name - once")
    found = [one for name in named for one in find_images(name, sys.stdin.buffer.read)]
    if save is None:
        return found
    kept = save.resolve()

    def written(path: Path) -> bool:
        return is_picture(path.name) and kept in path.resolve().parents

    judged = [one for one in found if one.alone or not written(Path(one.name))]
    if not judged:
        raise InputError(
            f"{', '.join(named)} holds no image but those that --save {save} wrote.",
            next_step="name the folder with the images, and keep results in another",
        )
    if len(judged) < len(found):
        _say(
            f"Left out: {counted(len(found) - len(judged), 'image')} in {save}, which --save wrote."
        )
    return judged


def _part_reader(part_from: str | None, part_code: str | None) -> PartReader | None:
    """Return what finds serial numbers, as a line's settings would say it."""
    if part_from is None and part_code is None:
        return None
    from hvq_edge.stream.capture.part_number import PartReader
    from hvq_edge.stream.settings import load_stream_settings

    given = {"part_from": part_from, "part_code": part_code}
    (camera,) = load_stream_settings(cameras=["image.png"], each_camera=given).cameras
    return PartReader(camera)


def _say(text: str) -> None:
    messages.print(text, markup=False, soft_wrap=True)
