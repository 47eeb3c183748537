"""``hvq-edge explain``: why an image scores what it scores, and what the codes stand for."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hvq_edge.cli.console import messages, one_line, print_json, progress_bars, results
from hvq_edge.cli.options import (
    BackendOption,
    JsonOption,
    LanguageOption,
    PrecisionOption,
    ProviderOption,
    RunOption,
)
from hvq_edge.run.latest import DEFAULT_RUN

if TYPE_CHECKING:
    from hvq_edge.bundle.opened import Bundle
    from hvq_edge.common.progress import ProgressCallback
    from hvq_edge.explain.exemplars import Exemplars
    from hvq_edge.explain.explanation import Explanation, Insight


def explain(
    image: Annotated[
        str | None,
        typer.Argument(
            metavar="IMAGE|URL",
            help="What to judge and explain; - reads it from standard input.",
            show_default=False,
        ),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            help=f"Bundle or run that judges. Default: --run, or {DEFAULT_RUN}.",
            show_default=False,
        ),
    ] = None,
    run: RunOption = None,
    codebook: Annotated[
        bool,
        typer.Option("--codebook", help="Show what the codes of a category stand for instead."),
    ] = False,
    category: Annotated[
        str | None,
        typer.Option(
            "--category",
            help="With --codebook: of this one. Else: what the image shows, where the bundle must "
            "be told.",
            show_default=False,
        ),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(
            "--save",
            metavar="DIR",
            help="Write a page; of an image a picture and JSON as well.",
            show_default=False,
        ),
    ] = None,
    precision: PrecisionOption = "auto",
    backend: BackendOption = "auto",
    provider: ProviderOption = None,  # noqa: ARG001  # it is in the backend
    language: LanguageOption = None,  # noqa: ARG001  # its callback keeps it
    as_json: JsonOption = False,
) -> None:
    """Say why an image scores what it scores.

    Of each region: what the image shows there, beside cells of good training images that stand for
    the nearest code of each level and the nearest prototype, and which part of the score each part
    of the map gave. These cells are found when they are first asked for, and kept in the run.
    """
    from hvq_edge.errors import SettingsError

    if codebook == (image is not None):
        raise SettingsError(
            "name either an image to explain or --codebook.",
            next_step="hvq-edge explain IMAGE, or hvq-edge explain --codebook",
        )
    bundle = bundle or run or DEFAULT_RUN
    if image is not None:
        _explain_image(image, bundle, run, category, save, precision, backend, as_json=as_json)
    else:
        _show_codebooks(bundle, run, category, save, as_json=as_json)


def _explain_image(
    image: str,
    target: Path,
    run: Path | None,
    category: str | None,
    save: Path | None,
    precision: str,
    backend: str,
    *,
    as_json: bool,
) -> None:
    from hvq_edge.bundle.opened import open_bundle
    from hvq_edge.errors import InputError
    from hvq_edge.explain.explanation import explain as explained
    from hvq_edge.explain.pages import save_explanation
    from hvq_edge.predict.images import find_images
    from hvq_edge.predict.predictor import load

    named = find_images(image, sys.stdin.buffer.read)
    if len(named) != 1 or not named[0].alone:
        raise InputError(
            f"{image} is not one image.", next_step="name an image file: one is explained at a time"
        )
    opened = open_bundle(target)
    with (
        load(opened, precision=precision, backend=backend, category=category) as model,
        progress_bars() as bars,
    ):
        (result,) = model.each(named, strict=True)
        found = explained(result, _insight(opened, run, bars))
    written = [] if save is None else save_explanation(found, save, Path(named[0].place).stem)
    if as_json:
        print_json({**found.to_dict(), "files": [str(path) for path in written]})
        return
    _print_explanation(found)
    if written:
        results.print(f"Page: {written[0]}", markup=False, soft_wrap=True)


def _print_explanation(found: Explanation) -> None:
    from hvq_edge.cli.predict import result_line
    from hvq_edge.explain.words import likeness_lines, place_title, share_lines

    results.print(result_line(found.result), soft_wrap=True)
    for number, place in enumerate(found.places, start=1):
        _print(f"\n{place_title(number, place)}")
        for line in share_lines(place):
            _print(f"   {line}")
        for one in place.nearest:
            _print(f"   {', '.join(likeness_lines(one))}")
    for note in found.notes:
        messages.print(f"Note: {note}.", markup=False, soft_wrap=True)


def _show_codebooks(
    target: Path, run: Path | None, category: str | None, save: Path | None, *, as_json: bool
) -> None:
    from hvq_edge.bundle.opened import is_run, open_bundle
    from hvq_edge.common.atomic import write_text
    from hvq_edge.errors import BundleError
    from hvq_edge.explain.pages import codebook_values, render_codebook

    with progress_bars() as bars:
        if run is None and is_run(target):
            from hvq_edge.evaluation.explain_run import RunInsight

            insight: Insight = RunInsight(target, on_progress=bars)
        else:
            insight = _insight(open_bundle(target), run, bars)
        names = insight.categories if category is None else (category,)
        found = [one for name in names if (one := insight.exemplars(name)) is not None]
    if not found:
        raise BundleError(
            f"the bundle {target} carries no exemplars.",
            next_step="name the run that it came from with --run RUN, or run hvq-edge export "
            "--exemplars, which puts product images into it",
        )
    pages: list[str] = []
    for one in found if save is not None else ():
        assert save is not None
        number = insight.categories.index(one.category)
        page = save / f"codebook-{number}-{re.sub(r'[^A-Za-z0-9]+', '-', one.category)}.html"
        write_text(page, render_codebook(one))
        pages.append(str(page))
    if as_json:
        print_json({"categories": [codebook_values(one) for one in found], "files": pages})
        return
    _print_codebooks(found)
    for path in pages:
        _print(f"Page: {path}")


def _print_codebooks(found: Sequence[Exemplars]) -> None:
    from rich.table import Table

    for one in found:
        table = Table(title=one_line(one.category), title_justify="left")
        table.add_column("codebook")
        for heading in ("codes", "in use", "dead", "perplexity"):
            table.add_column(heading, justify="right")
        for book in one.codebooks:
            codes = len(book.usage)
            numbers = (codes, codes - book.dead, book.dead, f"{book.perplexity:.1f}")
            table.add_row(book.name, *map(str, numbers))
        results.print(table)
        _print(f"As {one.looked_at} good training images use them.")


def _insight(bundle: Bundle, run: Path | None, on_progress: ProgressCallback) -> Insight:
    """Return the run that a bundle came from, if it is there and PyTorch is; else the bundle."""
    from importlib.util import find_spec

    from hvq_edge.bundle.opened import is_run
    from hvq_edge.explain.explanation import BundleInsight

    beside = bundle.path.resolve().parent
    if run is None and not (is_run(beside) and find_spec("torch")):
        return BundleInsight(bundle)
    from hvq_edge.evaluation.explain_run import RunInsight

    return RunInsight(run or beside, bundle, on_progress)


def _print(line: str) -> None:
    results.print(line, markup=False, soft_wrap=True)
