"""The options of ``hvq-edge stream`` that stand for a setting, made from the settings.

A sentence of help is written once: below the field that it explains.
"""

from __future__ import annotations

import ast
import inspect
import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from inspect import Parameter
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from hvq_edge.errors import SettingsError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from hvq_edge.stream.settings import StreamSettings


def numbers(flag: str, text: str, *, separator: str, count: int) -> list[int]:
    """Return whole numbers such as ``640x480`` or ``10,20,300,200``.

    Raises:
        SettingsError: it is something else.
    """
    try:
        values = [int(part) for part in text.lower().split(separator)]
    except ValueError:
        values = []
    if len(values) != count:
        example = separator.join(["10", "20", "300", "200"][-count:])
        raise SettingsError(
            f"{flag} {text!r} is not {count} whole numbers.",
            next_step=f"write it as {flag} {example}",
        )
    return values


def points(flag: str, text: str) -> list[list[int]]:
    """Return corners such as ``10,10;200,10;100,150``.

    Raises:
        SettingsError: it is something else.
    """
    return [numbers(flag, part, separator=",", count=2) for part in text.split(";")]


_ADDRESS = re.compile(r"\[?(?P<host>[^\s/=\[\]]*?)\]?:(?P<port>\d{1,5})")
_TAKES = {
    "--page": "no address",
    "--page-host": "a host alone",
    "--page-port": "a port alone",
    "--trigger-port": "a port alone",
}


def check_addresses(arguments: Sequence[str]) -> None:
    """Refuse ``HOST:PORT`` for a flag that takes a part of it or nothing.

    Args:
        arguments: as they were typed. Typer would only say that there is one too many.

    Raises:
        SettingsError: says which flags take its parts.
    """
    for argument, after in pairwise([*arguments, ""]):
        flag, equals, value = argument.partition("=")
        value = value if equals else after
        if flag not in _TAKES or value.startswith("-"):
            continue
        if flag == "--page" and value.isdecimal():
            parts = f"--page-port {value}"
        elif (found := _ADDRESS.fullmatch(value)) and not _is_ipv6(value):
            own = "trigger" if flag == "--trigger-port" else "page"
            host = f"--page-host {found['host']} " if own == "page" and found["host"] else ""
            parts = f"{host}--{own}-port {found['port']}"
        else:
            continue
        raise SettingsError(
            f"{flag} takes {_TAKES[flag]}, and {value} was given.", next_step=f"give {parts}"
        )


def _is_ipv6(text: str) -> bool:
    """Whether colons are those of an address without a port, such as ``::1``."""
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False


class Flag(NamedTuple):
    """An option that stands for a setting."""

    option: str
    field: str
    """Its table and name in the settings; a camera's is set for every camera."""
    kind: Any = str
    """Type of what is given."""
    form: str | None = None
    """How the text is written, where that is not its type."""
    read: Callable[[str, str], Any] | None = None
    """From option and text to the setting."""
    more: str = ""
    """What the option can beside the setting."""

    @property
    def parameter(self) -> str:
        """Its name in Python."""
        return self.option.partition("/")[0].lstrip("-").replace("-", "_")


RECORDED = "What is recorded and shown"
PAGE = "Live page"
PANELS = {
    "Cameras": (
        Flag("--camera", "cameras.camera", list[str], more="May be given several times."),
        Flag("--play", "cameras.play", bool),
        Flag("--max-frames", "max_frames", int),
        Flag(
            "--resolution",
            "cameras.resolution",
            form="WIDTHxHEIGHT",
            read=partial(numbers, separator="x", count=2),
        ),
        Flag("--fps", "cameras.fps", int),
        Flag("--every", "cameras.every", int),
        Flag("--rotate", "cameras.rotate", int),
        Flag(
            "--roi",
            "cameras.roi",
            form="X,Y,WIDTH,HEIGHT",
            read=partial(numbers, separator=",", count=4),
        ),
        Flag("--roi-polygon", "cameras.roi_polygon", form="X1,Y1;X2,Y2;...", read=points),
    ),
    "Triggers": (
        Flag("--trigger-file", "cameras.trigger_file", Path),
        Flag("--trigger-port", "cameras.trigger_port", int),
        Flag("--trigger-topic", "cameras.trigger_topic"),
        Flag("--trigger-frames", "cameras.trigger_frames", int),
        Flag("--trigger-delay", "cameras.trigger_delay", float),
    ),
    "Serial numbers of parts": (
        Flag("--part-from", "cameras.part_from", form="REGEX"),
        Flag("--part-code", "cameras.part_code", form="KIND"),
        Flag(
            "--part-code-region",
            "cameras.part_code_region",
            form="X,Y,WIDTH,HEIGHT",
            read=partial(numbers, separator=",", count=4),
        ),
    ),
    "Model and engine": (
        Flag("--bundle", "bundle", Path),
        Flag("--require-signature", "require_signature", Path),
        Flag("--precision", "precision"),
        Flag("--backend", "backend"),
        Flag("--provider", "provider"),
        Flag("--server", "server"),
        Flag("--category", "category"),
    ),
    "Decisions": (
        Flag("--policy", "policy"),
        Flag("--hysteresis", "decision.hysteresis", float),
        Flag("--k-of-n", "decision.k_of_n"),
        Flag("--mm-per-pixel", "decision.mm_per_pixel", float),
    ),
    RECORDED: (
        Flag("--out", "out", Path),
        Flag("--video/--no-video", "video", bool),
        Flag("--display/--no-display", "display", bool),
    ),
    PAGE: (
        Flag("--page", "page", bool),
        Flag("--page-host", "page.host"),
        Flag("--page-port", "page.port", int),
        Flag("--page-token-file", "page.token_file", Path),
        Flag("--page-language", "page.language"),
    ),
}
"""By heading of the help."""


def parameters(*, explained: bool) -> Iterator[Parameter]:
    """Yield each flag as the parameter that Typer makes an option of.

    Args:
        explained: whether with its help, for which the source of the settings is read.
    """
    from hvq_edge.stream.live_page.settings import LivePageSettings
    from hvq_edge.stream.settings import CameraSettings, StreamSettings
    from hvq_edge.verdict.decision_settings import DecisionSettings

    tables: dict[str, type[BaseModel]] = {
        "": StreamSettings,
        "cameras": CameraSettings,
        "decision": DecisionSettings,
        "page": LivePageSettings,
    }
    sentences = {table: _sentences(model) if explained else {} for table, model in tables.items()}
    for panel, flags in PANELS.items():
        for flag in flags:
            table, _, name = flag.field.rpartition(".")
            field = tables[table].model_fields[name]
            sentence = " ".join(sentences[table].get(name, "").replace("``", "").split())
            default = field.default if isinstance(field.default, (str, int, Path)) else None
            said = (sentence, flag.more, f"Default: {default}." if default else "")
            option = typer.Option(
                flag.option,
                help=" ".join(part for part in said if part),
                metavar=flag.form,
                show_default=False,
                rich_help_panel=panel,
            )
            yield Parameter(
                flag.parameter,
                Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[flag.kind | None, option],
            )


def _sentences(model: type[BaseModel]) -> dict[str, str]:
    """Return what stands below the fields of a table of settings, by name."""
    (table,) = ast.parse(dedent(inspect.getsource(model))).body
    assert isinstance(table, ast.ClassDef)
    return {
        field.target.id: str(below.value.value)
        for field, below in pairwise(table.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
    }


def settings_from(
    config: Path | None, given: Mapping[str, Any], *, inspects: bool
) -> StreamSettings:
    """Merge a settings file and flags, and check the whole.

    Args:
        config: the file; ``None``: none.
        given: values of flags by parameter; ``None``: not given.
        inspects: whether decisions will be made.

    Raises:
        SettingsError: lists every fault with its key.
    """
    from hvq_edge.stream.settings import load_stream_settings

    tables: dict[str, dict[str, Any]] = {"": {}, "cameras": {}, "decision": {}, "page": {}}
    for flag in (flag for flags in PANELS.values() for flag in flags):
        value = given.get(flag.parameter)
        if flag.read is not None and value is not None:
            value = flag.read(flag.option, value)
        table, _, name = flag.field.rpartition(".")
        tables[table][name] = value
    page_asked = [tables[""].pop("page"), *tables["page"].values()]
    return load_stream_settings(
        config,
        cameras=tables["cameras"].pop("camera") or (),
        each_camera=tables["cameras"],
        decision=tables["decision"],
        page=tables["page"] if any(value is not None for value in page_asked) else None,
        flags=tables[""],
        inspects=inspects,
    )


def check_calibration(
    calibrate: int | None, learning: Mapping[str, object], given: Mapping[str, Any]
) -> None:
    """Refuse flags that would have no effect with, or without, ``--calibrate``.

    Args:
        calibrate: frames to learn from; ``None``: the run inspects.
        learning: flags for learning thresholds and their values; ``None``: not given.
        given: values of all other flags by parameter, likewise.

    Raises:
        SettingsError: names every such flag.
    """
    if calibrate is None:
        idle = [flag for flag, value in learning.items() if value is not None]
        if idle:
            names = ", ".join(idle)
            raise SettingsError(
                f"{names} {'is' if len(idle) == 1 else 'are'} for learning thresholds, and "
                "--calibrate is not given.",
                next_step=f"add --calibrate N, or leave out {names}",
            )
        return
    idle = [
        flag.option.partition("/")[0]
        for panel, flags in PANELS.items()
        for flag in flags
        if (panel in (RECORDED, PAGE) or flag.field == "max_frames")
        # What is not wanted (--no-video) does not come anyway.
        and (value := given.get(flag.parameter)) is not None
        and value is not False
    ]
    if idle:
        names = ", ".join(idle)
        raise SettingsError(
            f"--calibrate learns thresholds and stops: nothing would come of {names}.",
            next_step=f"leave out {names}, or calibrate first and inspect afterwards",
        )
