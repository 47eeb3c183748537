"""``hvq-edge stream``: inspect cameras, a video or a folder of images."""

from __future__ import annotations

import errno
import gc
import inspect
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from hvq_edge.cli.console import messages, print_json, progress_bars, results
from hvq_edge.cli.interruption import INTERRUPTED, StopSignals
from hvq_edge.cli.options import (
    CALIBRATION,
    ConfidenceOption,
    FalseRejectOption,
    ForceOption,
    JsonOption,
    MethodOption,
)
from hvq_edge.common.wording import counted

if TYPE_CHECKING:
    from hvq_edge.cli.calibrate import Asked
    from hvq_edge.stream.line import Line
    from hvq_edge.stream.settings import StreamSettings

_FILE = "Settings file"
_OTHER = "Other"
GENICAM = "genicam://"
"""Such a camera is every one: they are listed."""


def stream(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            help="Settings file (TOML); flags win over it.",
            show_default=False,
            rich_help_panel=_FILE,
        ),
    ] = None,
    print_config: Annotated[
        bool,
        typer.Option(
            "--print-config",
            help="Print the settings in force as TOML, and stop.",
            rich_help_panel=_FILE,
        ),
    ] = False,
    calibrate: Annotated[
        int | None,
        typer.Option(
            "--calibrate",
            min=1,
            help="Learn thresholds from N frames of good parts, and stop.",
            show_default=False,
            rich_help_panel=CALIBRATION,
        ),
    ] = None,
    false_reject: FalseRejectOption = None,
    confidence: ConfidenceOption = None,
    method: MethodOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
    **flags: Any,  # noqa: ANN401  # by parameter, as stream_flags lists them
) -> None:
    """Inspect cameras, videos or a folder, frame by frame.

    What cannot be judged leads to no decision. Ctrl-C (exit code 130), SIGTERM and SIGHUP (0) stop
    after the frames already captured; a second Ctrl-C stops at once.
    """
    inspects = calibrate is None and not print_config
    with ExitStack() as taking:
        # From the first moment on: what follows loads libraries and engines for seconds.
        signals = taking.enter_context(StopSignals()) if inspects else None
        from hvq_edge.cli.calibrate import asked
        from hvq_edge.cli.stream_flags import check_calibration, settings_from

        learning = {
            "--false-reject": false_reject,
            "--confidence": confidence,
            "--method": method,
            "--force": force or None,
        }
        check_calibration(calibrate, learning, flags)
        with _loading():
            settings = settings_from(config, flags, inspects=inspects)
        if any(one.camera == GENICAM for one in settings.cameras):
            _list_genicam(as_json=as_json)
        elif signals is not None:
            _inspect(settings, signals, as_json=as_json)
        elif calibrate is not None:
            wanted = asked(false_reject, confidence, method)
            _calibrate(settings, calibrate, wanted, force=force, as_json=as_json)
        else:
            results.print(settings.to_toml(), end="", markup=False, highlight=False, soft_wrap=True)
    if signals is not None and signals.interrupted:
        messages.print("Interrupted.")
        raise typer.Exit(INTERRUPTED)


@contextmanager
def _loading() -> Iterator[None]:
    """Load what stays until the end, and so is none of the garbage collector's business.

    It would walk through all of it while it loads, and again while frames are inspected. NumPy's
    linear algebra would start a thread a processor, which spin, and a stream has no work for them.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _list_genicam(*, as_json: bool) -> None:
    """List the industrial cameras that answer."""
    from dataclasses import asdict

    from rich.table import Table
    from rich.text import Text

    from hvq_edge.stream.sources.cameras.genicam import GenicamDevice, found_devices

    devices = [asdict(one) for one in found_devices()]
    if as_json:
        print_json({"cameras": devices})
        return
    if not devices:
        messages.print(
            "No camera answers: see to power and cable, and that its network is this machine's."
        )
        return
    table = Table(box=None, pad_edge=False)
    for name in GenicamDevice.__dataclass_fields__:
        table.add_column(name)
    for one in devices:
        table.add_row(*(Text(value) for value in one.values()))
    results.print(table)


class StreamCommand(TyperCommand):
    """The command with an option for each setting, made when it is called: not for other help.

    Its help lists options under headings, in the order of the first of each.
    """

    _explained = True
    """Whether the options have their help, for which the source of the settings is read."""

    @cached_property
    def _made(self) -> TyperCommand:
        from hvq_edge.cli.stream_flags import parameters

        def made(**given: Any) -> None:  # noqa: ANN401  # Typer has checked them
            stream(**given)

        own = inspect.signature(stream, eval_str=True).parameters.values()
        flags = parameters(explained=self._explained)
        every = [*flags, *(one for one in own if one.kind is not one.VAR_KEYWORD)]
        keywords = [one.replace(kind=one.KEYWORD_ONLY) for one in every]
        vars(made)["__signature__"] = inspect.Signature(keywords)
        made.__annotations__ = {one.name: one.annotation for one in keywords}
        application = typer.Typer(add_completion=False)
        application.command()(made)
        command = typer.main.get_command(application)
        assert isinstance(command, TyperCommand)
        return command

    def get_params(self, ctx: Any) -> list[Any]:  # noqa: ANN401 - Typer's own types
        """Return all options."""
        return list(self._made.get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - likewise
        """Say what is meant where an address was given to a flag that takes none."""
        from hvq_edge.cli.stream_flags import check_addresses

        check_addresses(args)
        self._explained = "--help" in args
        with _loading():
            return list(super().parse_args(ctx, args))

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - Typer's own types
        """Run the command."""
        return self._made.invoke(ctx)

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - Typer's own types
        """Write the options, a section each."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                name = getattr(parameter, "rich_help_panel", None) or _OTHER
                sections.setdefault(name, []).append(record)
        for name, records in sections.items():
            with formatter.section(name):
                formatter.write_dl(records)


def add_stream(app: typer.Typer, heading: str | None = None) -> None:
    """Make the command one of an application's, listed under a heading."""
    said = inspect.getdoc(stream)
    app.command("stream", cls=StreamCommand, help=said, rich_help_panel=heading)(lambda: None)


def _inspect(settings: StreamSettings, signals: StopSignals, *, as_json: bool) -> None:
    """Inspect until every camera has ended or a signal asks to stop.

    With a live page, files that have ended stay on it until then.
    """
    with _loading():
        from hvq_edge.cli.stream_view import (
            DecisionLines,
            PrintedJson,
            inspection_goes_on,
            live_counter,
            print_summary,
        )
        from hvq_edge.stream.from_settings import open_line
        from hvq_edge.stream.sources.open_source import is_image_file

    counter_shown = messages.is_terminal and not as_json
    # Above a live counter, lines must come from the console that draws it.
    lines = messages if counter_shown and results.is_terminal else results
    several = len(settings.cameras) > 1
    # Of an image that is asked for, its score is the answer.
    passes = all(
        is_image_file(Path(str(one.camera))) and not (one.play or one.triggered)
        for one in settings.cameras
    )
    told = PrintedJson() if as_json else DecisionLines(lines, several=several, passes=passes)
    with ExitStack() as opened:
        with _loading():
            line = opened.enter_context(open_line(settings, sinks=[told]))
        signals.stop = line.stop
        if signals.asked:  # and its exception was lost, as in a callback of a library
            line.stop()
        _announce(line)
        with live_counter(line.inspector, shown=counter_shown):
            try:
                for _ in line:
                    pass  # the sinks have it already
            except OSError as error:
                if error.errno not in (errno.EPIPE, errno.EIO):
                    raise
                # The reader of our output has gone, as head does, or the terminal: a way to end.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        line.finish()
        with inspection_goes_on():
            print_summary(messages if as_json else results, line.inspector, settings.out)
        if line.page is not None and not signals.asked:
            messages.print("All frames are inspected. The live page stays until Ctrl-C.")
            signals.wait()


def _announce(line: Line) -> None:
    names = ", ".join(camera.name for camera in line.inspector.statistics().cameras)
    info = line.info
    _say(f"Inspecting {names} with {info.precision} on {info.backend} ({info.device}).")
    for reason in line.reasons:
        _say(f"Why {reason}.")
    if line.log is not None:
        _say_what_it_adds_to(line.log)
    if line.without_threshold:
        missing = ", ".join(line.without_threshold)
        _say(
            f"Warning: the bundle has no {info.precision} threshold for {missing}: frames of these "
            "lead to no decision.\n"
            "Next:    run hvq-edge export again on a run trained with held-out good images"
        )
    for change in dict.fromkeys(line.older.values()):
        names = ", ".join(name for name, one in line.older.items() if one == change)
        _say(
            f"Warning: {change.why} set the thresholds of {', '.join(change.precisions)} last "
            f"({names}); those of {info.precision}, which judge now, are of before.\n"
            f"Next:    run with --precision {change.precisions[0]}, or calibrate with --precision "
            f"{info.precision} as well"
        )
    if line.page is not None:
        _say(f"Live page: {line.page.token_url}")


def _say_what_it_adds_to(log: Path) -> None:
    """Say that the log has decisions of former runs already."""
    from datetime import datetime

    from hvq_edge.errors import InputError
    from hvq_edge.stream.log.reader import MOST_COUNTED, decisions_so_far

    try:
        found = decisions_so_far(log)
    except InputError:  # hvq-edge log verify says what is wrong with it
        return
    if found is not None:
        count, time = found
        over = "over " if count == MOST_COUNTED else ""
        first = datetime.fromtimestamp(time).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        _say(f"The log {log} adds to {over}{counted(count, 'decision')}, first of {first}.")


def _calibrate(
    settings: StreamSettings, frames: int, asked: Asked, *, force: bool, as_json: bool
) -> None:
    """Learn thresholds from a camera that shows good parts only."""
    from hvq_edge.cli import threshold_changes
    from hvq_edge.evaluation.acceptance.model_card import refresh_card
    from hvq_edge.stream.from_settings import learn_thresholds

    def ready(camera: str) -> None:
        _say(f"Show good parts only to {camera}: {counted(frames, 'frame')} will be taken.")

    with progress_bars() as bars:
        done = learn_thresholds(
            settings, frames, force=force, on_camera=ready, on_progress=bars, **asked
        )
    refresh_card(done.bundle.path)
    threshold_changes.show(done, {done.precision: done.thresholds}, as_json=as_json)


def _say(text: str) -> None:
    messages.print(text, markup=False, soft_wrap=True)
