"""What the site has beyond the pages of this folder: MkDocs calls these functions (mkdocs.yml).

Reference pages are made from the code: commands from Typer, the HTTP API from its OpenAPI document,
a bundle's manifest from its JSON Schema, records and the Python API by mkdocstrings. A link to the
code that such a page is made from leads to the page. Logo and colours are the product's. Pages of
other folders stand among those of docs/, and a link to a file that is no page leads to the
repository, or is its name only.
"""

from __future__ import annotations

import json
import posixpath
import re
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from schemas import http_page, schema_page  # MkDocs looks beside this file
from typer.cli import get_docs_for_click

from hvq_edge.cli.app import app as commands
from hvq_edge.design.palette import Scheme, palette
from hvq_edge.stream.live_page.api import Served
from hvq_edge.stream.live_page.app import make_app

ROOT = Path(__file__).parents[2]
FROM_THE_ROOT = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "examples/README.md": "reference/examples.md",
    "benchmarks/README.md": "project/benchmarks.md",
    "SECURITY.md": "project/security.md",
    "CHANGELOG.md": "project/changelog.md",
}
FILES = {f"hvq_edge/design/{name}.svg": f"site/{name}.svg" for name in ("logo", "icon")} | {
    f"examples/pictures/{path.name}": f"pictures/examples/{path.name}"
    for path in sorted((ROOT / "examples/pictures").iterdir())
}
MADE_FROM = {
    "hvq_edge/bundle/manifest.py": "reference/bundle-schema.md",
    "hvq_edge/cli/app.py": "reference/commands.md",
    "hvq_edge/stream/live_page/api.py": "reference/http.md",
}
ELSEWHERE = FROM_THE_ROOT | FILES | MADE_FROM
SCHEMES: dict[str, Scheme] = {"default": "light", "slate": "dark"}
"""Material's names for ours."""
RECORDS = {
    "run.json": "hvq_edge.run.record.RunRecord",
    "bundle.sig": "hvq_edge.bundle.integrity.signature.Signature",
    "The record beside an engine": "hvq_edge.runtime.tensorrt.engine_file.EngineRecord",
    "int8-plan.toml": "hvq_edge.calibration.search.plan.Plan",
    "learnt.json": "hvq_edge.bundle.learnt.WhatChanged",
    "bench.json": "hvq_edge.bench.report.BenchReport",
}
FUNCTIONS = {"evaluate", "export_bundle", "inspect", "load", "load_model", "open_engine", "train"}
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?\)")

RELEASE = re.compile(r"^(\[[^\]]+\]: )\.\./\.\./(.*)\n", re.MULTILINE)
"""The changelog's links, as GitHub reads them: from the page of a file to one of the repository."""


def on_startup(**_: object) -> None:
    """Lay the package out as it is installed: there ``export`` and ``calibration`` are in it."""
    package = ROOT / ".site" / "hvq_edge"
    shutil.rmtree(package, ignore_errors=True)
    package.mkdir(parents=True)
    for part in [*(ROOT / "hvq_edge").iterdir(), ROOT / "export", ROOT / "calibration"]:
        (package / part.name).symlink_to(part)


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add pages and pictures of other folders, and what is made from the code."""
    document = make_app(
        Served(**dict.fromkeys(("view", "access", "judge", "review", "explainer"), object()))
    ).openapi()
    made = {
        "reference/bundle-schema.md": "\n".join(schema_page()),
        "reference/commands.md": "\n".join(command_pages()),
        "reference/http.md": "\n".join(http_page(document)),
        "reference/openapi.json": json.dumps(document, indent=1),
        "reference/records.md": "\n".join(record_page()),
        "site/colours.css": "\n".join(colours()),
    }
    for name, uri in FROM_THE_ROOT.items():
        made[uri] = (ROOT / name).read_text(encoding="utf-8")
    for uri, content in made.items():
        files.append(File.generated(config, uri, content=content))
    for name, uri in FILES.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / name)))


def colours() -> Iterator[str]:
    """Yield the product's colours as style sheet: the page's button chooses the scheme."""
    for theirs, ours in SCHEMES.items():
        yield f'[data-md-color-scheme="{theirs}"] {{'
        yield from (f"  --{name}: rgb{colour};" for name, colour in palette()[ours].items())
        yield "}"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to where they lead on the site; put signatures into the page of the API."""
    uri = page.file.src_uri
    origin = {site: path for path, site in FROM_THE_ROOT.items()}.get(uri, f"docs/{uri}")
    code = re.split(r"(^```.*?^```|^    .*?$)", markdown, flags=re.MULTILINE | re.DOTALL)
    code[::2] = [
        LINK.sub(partial(led, origin, uri, config.repo_url, files), text) for text in code[::2]
    ]
    text = RELEASE.sub(rf"\1{config.repo_url}/\2\n" if config.repo_url else "", "".join(code))
    return re.sub(r"^## `hvq_edge\.(\w+)`$", signature, text, flags=re.M) if origin == API else text


API = "docs/reference/api.md"


def led(origin: str, uri: str, repository: str | None, files: Files, link: re.Match[str]) -> str:
    """Return a Markdown link as the site needs it."""
    mark, text, path, anchor = link[1], link[2], link[3], link[4] or ""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(origin), path))
    if target.startswith("docs/") and files.get_file_from_path(target.removeprefix("docs/")):
        site = target.removeprefix("docs/")
    elif elsewhere := ELSEWHERE.get(target, ELSEWHERE.get(f"{target}/README.md")):
        site = elsewhere
    elif mark:
        return link[0]  # a picture that is nowhere: MkDocs refuses it
    else:
        there = f"{repository}/blob/HEAD/{target}" if repository else ""
        return f"[{text}]({there}{anchor})" if there else text
    return f"{mark}[{text}]({posixpath.relpath(site, posixpath.dirname(uri) or '.')}{anchor})"


def signature(heading: re.Match[str]) -> str:
    """Return a heading of the API's page with the signature of the code under it."""
    name = heading[1]
    if name not in FUNCTIONS | {"Predictor"}:
        return heading[0]
    hidden = [*("attributes", "description", "examples", "parameters"), "classes"]
    options: dict[str, Any] = {f"show_docstring_{part}": False for part in hidden}
    options["members"] = ["predict", "codes", "close"] if name == "Predictor" else []
    options["heading_level"] = 5
    listed = "".join(f"\n        {key}: {json.dumps(value)}" for key, value in options.items())
    made = f"::: hvq_edge.{name}\n    options:{listed}"
    return f'{heading[0]}\n\n<div class="made" markdown>\n\n{made}\n\n</div>\n'


def command_pages() -> Iterator[str]:
    """Yield the page of the commands: the help of each, as Typer knows it."""
    yield "# Commands\n\nThe help of every command, as `hvq-edge COMMAND --help` prints it.\n"
    command = typer.main.get_command(commands)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="hvq-edge", title="-")
    yield text.partition("**Commands**")[2].partition("\n## ")[2].join(("## ", ""))


def record_page() -> Iterator[str]:
    """Yield the page of the records: each file that is checked as a whole, and its keys."""
    yield (
        "# Records\n\nFiles that hvq-edge writes and reads back, checked as a whole: their keys, "
        "with types and defaults. `bundle.json` has [its own page](bundle-schema.md), the log of "
        "decisions is described with [the line](line.md#rows-of-the-log), a decision's keys in "
        "[the Python API](api.md#hvq_edgedecision), `metrics.json` under "
        "[metrics](metrics.md#metricsjson).\n"
    )
    options = "show_root_heading: false\n        members_order: source"
    for file, record in RECORDS.items():
        yield f"## `{file}`\n\n::: {record}\n    options:\n        {options}\n"
