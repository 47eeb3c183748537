"""``hvq-edge review``: people judge what a line decided, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hvq_edge.cli.console import messages, one_line, print_json, results
from hvq_edge.cli.interruption import INTERRUPTED, StopSignals
from hvq_edge.cli.options import (
    HostOption,
    JsonOption,
    LanguageOption,
    NamesOption,
    PortOption,
    TokenFileOption,
)
from hvq_edge.common.wording import counted, per_cent
from hvq_edge.errors import SettingsError

if TYPE_CHECKING:
    from rich.table import Table

    from hvq_edge.explain.explainer import Explainer
    from hvq_edge.stream.live_page.settings import LivePageSettings
    from hvq_edge.stream.log.reviews import Review
    from hvq_edge.stream.review.desk import ReviewDesk
    from hvq_edge.stream.review.numbers import Estimate, LineNumbers
    from hvq_edge.stream.review.save import SavedImages

DEFAULT_PORT = 8644
"""Beside those of the live page and of ``hvq-edge serve``."""


def review(
    log: Annotated[
        Path,
        typer.Argument(
            metavar="LOG|FOLDER", help="decisions.sqlite, or the folder of hvq-edge stream --out."
        ),
    ],
    save: Annotated[
        Path | None,
        typer.Option(
            "--save",
            metavar="DIR",
            help="Write judged images as DIR/CATEGORY/good and DIR/CATEGORY/defective/KIND, and "
            "stop.",
            show_default=False,
        ),
    ] = None,
    numbers: Annotated[
        bool,
        typer.Option(
            "--numbers", help="Print false rejects and misses with intervals, by day, and stop."
        ),
    ] = False,
    days: Annotated[
        float | None,
        typer.Option(
            "--days",
            min=0.0,
            max=36500.0,
            metavar="N",
            help="Only decisions of today and the N days before. Default: all.",
            show_default=False,
        ),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            help="Bundle or run: with it, the page explains why a decision scores what it scores.",
            show_default=False,
        ),
    ] = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = DEFAULT_PORT,
    token_file: TokenFileOption = None,
    names: NamesOption = None,
    language: LanguageOption = None,
    head: Annotated[
        Path | None,
        typer.Option(
            "--head",
            help="The log's head, where it is kept elsewhere and no link beside the log leads to "
            "it.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Judge what a line decided, on a page: good or defective.

    Shows rejects, near misses, frames without a decision and a random sample of passes. What people
    say goes into the log. While an inspector records to it, use /review on its live page (stream
    --page). Ctrl-C (exit code 130) and SIGTERM (0) end it.
    """
    with StopSignals() as signals:
        from hvq_edge.stream.log.reviews import append_review
        from hvq_edge.stream.review.desk import ReviewDesk

        def write(said: Review) -> int:
            return append_review(log, said, head)

        desk = ReviewDesk(log, write, days=days)
        if save is not None:
            _save(desk, save, as_json=as_json)
        if numbers:
            _numbers(desk, as_json=as_json)
        if save is None and not numbers:
            from hvq_edge.stream.live_page.settings import LivePageSettings

            settings = LivePageSettings.of(
                host=host,
                port=port,
                token_file=token_file,
                names=tuple(names or ()),
                language=language,
            )
            _serve(desk, log, head, bundle, settings, signals, as_json=as_json)
    if signals.interrupted:
        messages.print("Interrupted.")
        raise typer.Exit(INTERRUPTED)


def _serve(
    desk: ReviewDesk,
    log: Path,
    head: Path | None,
    bundle: Path | None,
    settings: LivePageSettings,
    signals: StopSignals,
    *,
    as_json: bool,
) -> None:
    from hvq_edge.stream.live_page.serve import serve
    from hvq_edge.stream.log.reviews import check_takes_reviews

    desk.counts()  # a log that cannot be read is said here
    check_takes_reviews(log, head)
    with (
        _explaining(bundle) as explainer,
        serve(settings, None, review=desk, explainer=explainer) as serving,
    ):
        signals.stop = lambda: None  # from here on, a signal ends the wait
        if as_json:
            print_json(asdict(serving))
        else:
            counts = desk.counts()
            for one in counts:
                _say(
                    f"{_QUEUES[one.name]}: {one.images - one.judged} to judge, {one.judged} judged."
                )
            if not any(one.images for one in counts if one.name != "reject"):
                _say(
                    "No images of passes, near misses or frames without a decision were kept: "
                    "[sinks.images] of a line keeps some."
                )
            _say(f"Page: {serving.token_url}")
        signals.wait()


@contextmanager
def _explaining(bundle: Path | None) -> Iterator[Explainer | None]:
    """Give what explains decisions with a bundle, opened at the first one; ``None`` without."""
    if bundle is None:
        yield None
        return
    from hvq_edge.bundle.opened import open_bundle
    from hvq_edge.explain.explainer import Explainer
    from hvq_edge.predict.predictor import load
    from hvq_edge.stream.live_page.judge import ImageJudge

    opened = open_bundle(bundle)
    if opened.manifest.category_mode == "input":
        raise SettingsError(
            f"the bundle {bundle} must be told the category of each image.",
            next_step="explain at the live page of its line, or with hvq-edge explain --category",
        )
    with ImageJudge(lambda: load(opened)) as judge:
        yield Explainer(opened, judge)


_QUEUES = {
    "reject": "Rejects",
    "near_miss": "Near misses",
    "no_decision": "No decision",
    "sample": "Sample of passes",
}


def _save(desk: ReviewDesk, folder: Path, *, as_json: bool) -> None:
    from hvq_edge.stream.review.save import save_judged

    saved = save_judged(desk.judged_images(), folder)
    if as_json:
        kinds: dict[str, dict[str, int]] = {}
        for (category, kind), count in sorted(saved.defective.items()):
            kinds.setdefault(category, {})[kind] = count
        print_json(
            {
                "good": dict(sorted(saved.good.items())),
                "defective": kinds,
                "gone": saved.gone,
                "without_category": saved.without_category,
                "others": list(saved.others),
            }
        )
        return
    for line in _saved_lines(saved, folder):
        _say(line)


def _saved_lines(saved: SavedImages, folder: Path) -> list[str]:
    lines = [
        f"{counted(count, 'good image')} of {one_line(category)} in {folder / category / 'good'}"
        for category, count in sorted(saved.good.items())
    ]
    lines += [
        f"{counted(count, 'image')} with {one_line(kind)} of {one_line(category)} in "
        f"{folder / category / 'defective' / kind}"
        for (category, kind), count in sorted(saved.defective.items())
    ]
    if not lines:
        lines.append("Nothing is saved: no decision with an image was called good or defective.")
    if saved.gone:
        lines.append(f"{counted(saved.gone, 'judged image')} are no longer there.")
    if saved.without_category:
        lines.append(
            f"{counted(saved.without_category, 'judged image')} have no category and are left out."
        )
    if saved.others:
        named = ", ".join(map(one_line, saved.others[:3]))
        more = ", and more" if len(saved.others) > 3 else ""
        lines.append(
            f"{counted(len(saved.others), 'image')} in {folder} of no review in force "
            f"stay as they are: {named}{more}."
        )
    return lines


def _numbers(desk: ReviewDesk, *, as_json: bool) -> None:
    together, days = desk.numbers()
    if as_json:
        print_json({"together": together.to_dict(), "days": [one.to_dict() for one in days]})
        return
    results.print(_table(together, days))
    if together.unsampled:
        _say(
            f"{counted(together.unsampled, 'pass', 'passes')} of sessions that kept no sample "
            "([sinks.images]) have no part in the misses."
        )
    judged, defective = together.near_misses
    if judged:
        _say(f"Near misses judged besides: {judged}, {defective} of them defective.")


def _table(together: LineNumbers, days: list[LineNumbers]) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 1), pad_edge=False)
    table.add_column("day")
    for name in ("rejects", "judged", "good after all", "passes", "judged", "defective"):
        table.add_column(name, justify="right", overflow="fold")
    for one in [*days, together]:
        table.add_row(
            "all" if one.day is None else one.day.isoformat(),
            str(one.rejects),
            str(one.false_rejects.judged),
            _share(one.false_rejects),
            str(one.passes),
            str(one.misses.judged),
            _share(one.misses),
        )
    return table


def _share(found: Estimate) -> str:
    """Say a share with its interval, in per cent."""
    if found.share is None:
        return "not known"
    value, low, high = map(per_cent, (found.share.value, found.share.low, found.share.high))
    return f"{value} %" if low == high else f"{value} % ({low} to {high})"


def _say(text: str) -> None:
    messages.print(text, markup=False, soft_wrap=True)
