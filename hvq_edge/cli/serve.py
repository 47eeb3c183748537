"""``hvq-edge serve``: images are judged over HTTP, without a line."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hvq_edge.cli.console import messages, print_json
from hvq_edge.cli.interruption import INTERRUPTED, StopSignals
from hvq_edge.cli.options import (
    BackendOption,
    HostOption,
    JsonOption,
    LanguageOption,
    NamesOption,
    PortOption,
    PrecisionOption,
    ProviderOption,
    TokenFileOption,
    bundle_folder,
)
from hvq_edge.run.latest import DEFAULT_BUNDLE

if TYPE_CHECKING:
    from hvq_edge.predict.predictor import Predictor

DEFAULT_PORT = 8643
"""Beside that of the live page."""


def serve(
    bundle: Annotated[
        Path,
        typer.Option("--bundle", help="Bundle or run that judges.", callback=bundle_folder),
    ] = DEFAULT_BUNDLE,
    host: HostOption = "127.0.0.1",
    port: PortOption = DEFAULT_PORT,
    token_file: TokenFileOption = None,
    names: NamesOption = None,
    language: LanguageOption = None,
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
    as_json: JsonOption = False,
) -> None:
    """Judge images over HTTP; serve a page to drop images on.

    Ctrl-C (exit code 130) and SIGTERM (0) end it. With --json, one line of JSON says where it is.
    """
    with StopSignals() as signals:
        from hvq_edge.predict.predictor import load
        from hvq_edge.stream.live_page.judge import ImageJudge
        from hvq_edge.stream.live_page.serve import serve as serving_at
        from hvq_edge.stream.live_page.settings import LivePageSettings

        settings = LivePageSettings.of(
            host=host, port=port, token_file=token_file, names=tuple(names or ()), language=language
        )

        def open_model() -> Predictor:
            return load(bundle, precision=precision, backend=backend, category=category)

        with (
            ImageJudge(open_model) as judge,
            serving_at(settings, None, judge=judge) as serving,
        ):
            info = judge.open().info
            signals.stop = lambda: None  # from here on, a signal ends the wait
            if as_json:
                print_json({**asdict(serving), **asdict(info)})
            else:
                _say(f"Judging images with {info.precision} on {info.backend}, {bundle}.")
                _say(f"Page: {serving.token_url}")
            signals.wait()
    if signals.interrupted:
        messages.print("Interrupted.")
        raise typer.Exit(INTERRUPTED)


def _say(text: str) -> None:
    messages.print(text, markup=False, soft_wrap=True)
