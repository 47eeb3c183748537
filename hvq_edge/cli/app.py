"""The command line's entry point.

Each command is a small file that imports only Typer; heavy libraries load when the command runs,
so ``hvq-edge --help`` answers at once with only the base dependencies installed.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from copy import copy
from typing import Any

import typer
from typer.core import TyperGroup

from hvq_edge.cli import (
    bench,
    build,
    bundle,
    calibrate,
    categories,
    data,
    demo,
    doctor,
    eval_,
    explain,
    export,
    learn,
    load,
    log,
    predict,
    report,
    review,
    runs,
    serve,
    sign,
    stream,
    train,
    verify,
)
from hvq_edge.cli.console import guard_output, messages
from hvq_edge.cli.interruption import INTERRUPTED, end_past_threads, interruption_said
from hvq_edge.cli.log_handler import install_handler
from hvq_edge.common.redaction import redacted_message
from hvq_edge.errors import HvqEdgeError, MissingCapability, SettingsError

UNFORESEEN = 70
"""Exit code after a fault of hvq-edge itself: ``EX_SOFTWARE`` of sysexits.h."""

_HELP = "--help"
_REPORTED = ("hvq-edge", "numpy", "opencv-python", "onnxruntime", "openvino", "torch", "tensorrt")


LISTED: dict[str, dict[str, Callable[..., Any] | typer.Typer]] = {
    "Start here": {"demo": demo.demo, "doctor": doctor.doctor},
    "Train and export": {
        "data": data.group,
        "train": train.train,
        "load": load.load,
        "runs": runs.runs,
        "add-category": categories.add,
        "remove-category": categories.remove,
        "rename-category": categories.rename,
        "eval": eval_.evaluate,
        "export": export.export,
        "verify": verify.verify,
        "build": build.build,
        "bench": bench.bench,
    },
    "Inspect": {
        "predict": predict.predict,
        "explain": explain.explain,
        "serve": serve.serve,
        "stream": stream.stream,
    },
    "Thresholds and review": {
        "calibrate": calibrate.calibrate,
        "review": review.review,
        "learn": learn.learn,
    },
    "Look after it": {
        "report": report.report,
        "sign": sign.sign,
        "bundle": bundle.group,
        "log": log.group,
    },
}
"""The commands, as the help lists them: in the order in which a newcomer meets them."""


class _Commands(TyperGroup):
    """All commands; a usage fault repeats what was given, here without credentials."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401, ARG002 - Typer's own types
        """Return the names; Typer alone has groups of commands behind all others."""
        return [name for named in LISTED.values() for name in named]

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - likewise
        """Write the commands, a section for each heading, below one another in one column."""
        widest = max(map(len, self.list_commands(ctx)))
        for heading, named in LISTED.items():
            gap = 2 + widest - max(map(len, named))
            limit = formatter.width - 6 - widest
            rows = [(name, self.commands[name].get_short_help_str(limit)) for name in named]
            with formatter.section(heading):
                formatter.write_dl(rows, col_spacing=gap)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 - likewise
        """Find the command, and note whether its help is asked for: a group alone shows it."""
        found = super().resolve_command(ctx, args)
        ctx.meta[_HELP] = _HELP in args or (len(args) == 1 and isinstance(found[1], TyperGroup))
        return found

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - likewise
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            if hasattr(error, "format_message"):  # Typer's: a version of it names the class anew
                said = vars(error)
                said["message"] = redacted_message(str(said.get("message", "")))
            raise


app = typer.Typer(
    name="hvq-edge",
    cls=_Commands,
    help="From a folder of good product photos to an INT8 engine watching a camera.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for _heading, _named in LISTED.items():
    for _name, _what in _named.items():
        if isinstance(_what, typer.Typer):
            app.add_typer(_what, name=_name, rich_help_panel=_heading)
        elif _what is stream.stream:
            stream.add_stream(app, _heading)
        else:
            app.command(_name, rich_help_panel=_heading)(_what)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    if version:
        from importlib.metadata import version as installed_version

        typer.echo(f"hvq-edge {installed_version('hvq-edge')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        return
    # A page is written, and an image annotated, long after a command began.
    from hvq_edge.design.language import current

    try:
        current()
    except SettingsError as error:
        if not context.meta.get(_HELP):
            raise
        messages.print(f"Warning: {error.cause}", markup=False, soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with a code (docs/explanation/architecture.md, "Exit codes").

    0 done; 1 a gate failed; 2 bad input or usage; 3 something the machine lacks; 70 a fault of
    hvq-edge itself; 130 interrupted.

    Args:
        arguments: the command's; ``None``: those of the process, which ends with the command.
    """
    if arguments is None:
        guard_output()
    with end_past_threads() if arguments is None else nullcontext():
        try:
            _run(arguments)
        except Exception as error:  # noqa: BLE001  # the last net: nobody is shown a bare traceback
            _say_unforeseen(error, sys.argv[1:] if arguments is None else arguments)
            sys.exit(UNFORESEEN)


def _run(arguments: Sequence[str] | None) -> None:
    try:
        install_handler()
        _with_what_is_called(sys.argv[1:] if arguments is None else arguments)(args=arguments)
    except HvqEdgeError as error:
        messages.print(f"Error: {error.cause}", markup=False, soft_wrap=True)
        if error.next_step:
            messages.print(f"Next:  {error.next_step}", markup=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except ImportError as error:
        from hvq_edge.common.extras import EXTRA_OF, missing_library, pip_install

        lacking = missing_library(error)
        if lacking is not None:
            messages.print(f"Error: {lacking.cause}", markup=False, soft_wrap=True)
            messages.print(f"Next:  {lacking.next_step}", markup=False, soft_wrap=True)
            sys.exit(lacking.exit_code)
        package = (error.name or "").partition(".")[0]
        if package not in EXTRA_OF or not isinstance(error, ModuleNotFoundError):
            raise
        messages.print(f"Error: this command needs {package}, which is not installed.")
        messages.print(f"Next:  {pip_install(EXTRA_OF[package])}", markup=False)
        sys.exit(MissingCapability.exit_code)
    except SystemExit as stop:  # how Typer ends, Ctrl-C (130) and usage errors (2) included
        if isinstance(stop.__context__, BrokenPipeError):
            sys.exit(0)  # the reader of our output went away; Typer's 1 would mean a failed gate
        said = interruption_said(stop) if stop.code == INTERRUPTED else None
        if said is not None:
            messages.print(said, markup=False, soft_wrap=True)
        raise


def _with_what_is_called(arguments: Sequence[str]) -> typer.Typer:
    """Return the application with the command that is called: Typer makes options of all it has.

    Where none is, for the help or because it is misspelt, it has all of them.
    """
    named = arguments[0] if arguments else ""
    commands = [one for one in app.registered_commands if one.name == named]
    groups = [one for one in app.registered_groups if one.name == named]
    if not commands and not groups:
        return app
    called = copy(app)
    called.registered_commands, called.registered_groups = commands, groups
    return called


def _say_unforeseen(error: Exception, arguments: Sequence[str]) -> None:
    """Say that hvq-edge itself failed, and where the report of it lies."""
    what = f"hvq-edge failed in a way that it does not foresee ({type(error).__name__})"
    report = _report(error, arguments)
    try:
        # Readable by its owner alone: messages of libraries can quote addresses with passwords.
        handle, name = tempfile.mkstemp(prefix="hvq-edge-report-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(report)
    except OSError as unwritten:
        why = unwritten.strerror
        said = f"Error: {what}; no report can be written ({why}):\n{report}"
        messages.print(said, markup=False, soft_wrap=True)
        return
    messages.print(f"Error: {what}.", markup=False, soft_wrap=True)
    messages.print(
        f"Next:  look through the report {name}, then send it to those who maintain hvq-edge",
        markup=False,
        soft_wrap=True,
    )


def _report(error: Exception, arguments: Sequence[str]) -> str:
    """Return what is needed to find the fault; of the arguments the names alone."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed_version

    names = [one.partition("=")[0] if one.startswith("-") else "..." for one in arguments]
    if names and arguments[0].isalpha():
        names[0] = arguments[0]
    versions = []
    for package in _REPORTED:
        try:
            versions.append(f"{package} {installed_version(package)}")
        except PackageNotFoundError:
            continue
    return "\n".join(
        (
            f"command: hvq-edge {' '.join(names)}",
            f"system: {platform.platform()}, Python {platform.python_version()}",
            f"packages: {', '.join(versions)}",
            "",
            "".join(traceback.format_exception(error)),
        )
    )
