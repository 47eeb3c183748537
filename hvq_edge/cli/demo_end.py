"""The end of ``hvq-edge demo``: what it says, and the page that it opens."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from hvq_edge.cli.console import print_line, results

if TYPE_CHECKING:
    from hvq_edge.evaluation.demo_page import CategoryVerdicts, JudgedPart, NextStep

_NOBODY_SITS_HERE = {"SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY", "CI"}
"""Variables: a browser would open over the network, or for no one."""
_IN_THE_TERMINAL = {"www-browser", "links", "links2", "elinks", "lynx", "w3m"}
"""Browsers that would take the place of what was printed."""


def next_steps(out: Path, images: Path, parts: Sequence[JudgedPart]) -> list[NextStep]:
    """Return what to do after the demo.

    Args:
        out: the demo's run.
        images: the folder of its images.
        parts: what the stream said of them.
    """
    from importlib.util import find_spec

    from hvq_edge.common.extras import pip_install
    from hvq_edge.evaluation.demo_page import NextStep

    run = quote(str(out))
    worst = max(parts, key=lambda one: one.decision["score"] or 0.0)
    page = f"hvq-edge stream --bundle {run}/bundle --camera {run}/parts.avi --play --page"
    if find_spec("uvicorn") is None:
        page = f"{pip_install('factory')}\n{page}"
    return [
        NextStep("The live page, on the demo's video", page),
        NextStep(
            "Why an image scores what it scores",
            f"hvq-edge explain {quote(str(worst.image.path))} --bundle {run}/bundle --save why",
        ),
        NextStep(
            "Judge these images, or any others, and keep a gallery",
            f"hvq-edge predict {quote(str(images))} --bundle {run}/bundle --save judged",
        ),
        NextStep(
            "What was measured and what was not, on a page to sign",
            f"hvq-edge report {run} --complete",
        ),
        NextStep(
            "Your own: good images in photos/<category>/train/good, then a camera",
            "hvq-edge data check photos\nhvq-edge train --data photos\nhvq-edge export --int8\n"
            "hvq-edge stream --camera 0",
        ),
    ]


def activation() -> str:
    """Return the command that makes ``hvq-edge`` known to a shell; empty where it is already."""
    from shutil import which

    script = Path(sys.prefix) / "bin" / "activate"
    return "" if which("hvq-edge") or not script.is_file() else f". {quote(str(script))}"


def open_at_a_screen(page: Path, environment: Mapping[str, str]) -> bool:
    """Open a page in a browser, unless nobody sits before this machine's screen."""
    import webbrowser

    from hvq_edge.stream.drawing.window import has_screen

    if not has_screen(environment) or _NOBODY_SITS_HERE & environment.keys():
        return False
    try:
        browser = webbrowser.get()
    except webbrowser.Error:
        return False
    if Path(browser.name).name in _IN_THE_TERMINAL:
        return False
    return browser.open(page.resolve().as_uri())


def show_verdicts(verdicts: Sequence[CategoryVerdicts]) -> None:
    """Print what the stream said of good and of defective parts, by category."""
    from rich.table import Table

    table = Table(title="What the stream said of the parts", title_justify="left")
    table.add_column("category", no_wrap=True)  # of a narrow terminal the others are wrapped
    for heading in ("good rejected", "defects found", "no decision"):
        table.add_column(heading, justify="right")
    for one in verdicts:
        table.add_row(
            one.category,
            f"{one.good.rejected} of {one.good.total}",
            f"{one.defective.rejected} of {one.defective.total}",
            f"{one.good.no_decision} good, {one.defective.no_decision} defective",
        )
    results.print()
    results.print(table)


def show_end(
    seconds: Mapping[str, float],
    files: Sequence[tuple[str, Path]],
    steps: Sequence[NextStep],
) -> None:
    """Print how long it took, what to look at and what to do next."""
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
        print_line(f"  {name:<16} {path}")
    activate = activation()
    print_line(f"\nNext{f', after {activate}' if activate else ''}:")
    for step in steps:
        print_line(f"  {step.what}:")
        for command in step.command.splitlines():
            print_line(f"    {command}")
