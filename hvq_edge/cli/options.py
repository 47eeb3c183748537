"""Options that several commands share, defined once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hvq_edge.verdict.defaults import CONFIDENCE, FALSE_REJECT


def bundle_folder(path: Path) -> Path:
    """Let a run's folder stand for the bundle in it."""
    from hvq_edge.bundle import opened

    return opened.bundle_folder(path)


_NAMED = "bundle"


def _keep_named(context: typer.Context, named: Path | None) -> Path | None:
    context.meta[_NAMED] = named
    return named


def named_or_given(context: typer.Context, param: typer.CallbackParam, path: Path) -> Path:
    """Return the bundle that ``--bundle`` named, else what the argument says."""
    named = context.meta.get(_NAMED)
    if named is None:
        return path
    source = context.get_parameter_source(str(param.name))
    if source is not None and source.name != "DEFAULT":
        raise typer.BadParameter("name the bundle once.", ctx=context, param_hint="--bundle")
    return bundle_folder(named)


def _bundle_given(context: typer.Context, param: typer.CallbackParam, path: Path) -> Path:
    return bundle_folder(named_or_given(context, param, path))


RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a training run.")]
BundleArgument = Annotated[
    Path,
    typer.Argument(
        metavar="BUNDLE",
        help="Bundle folder that hvq-edge export wrote, or the run's folder around it.",
        callback=_bundle_given,
    ),
]
BundleOption = Annotated[
    Path | None,
    typer.Option(
        "--bundle",
        help="The bundle, or the run that has it: instead of the argument.",
        show_default=False,
        is_eager=True,
        callback=_keep_named,
    ),
]
"""Read before the argument, which has it afterwards: a command only lists it."""
RunOption = Annotated[
    Path | None, typer.Option("--run", help="The run it came from. Default: BUNDLE's parent.")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print machine-readable JSON on standard output.")
]
LogArgument = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", help="decisions.sqlite, or the folder that hvq-edge stream --out wrote."
    ),
]
_PROVIDER = "provider"


def _keep_provider(context: typer.Context, provider: str | None) -> str | None:
    context.meta[_PROVIDER] = provider
    return provider


def _with_provider(context: typer.Context, backend: str) -> str:
    from hvq_edge.runtime.cpu.onnxruntime_providers import with_provider

    return with_provider(backend, context.meta.get(_PROVIDER))


BackendOption = Annotated[
    str,
    typer.Option(
        "--backend",
        help="auto, openvino, onnxruntime, torch, or an engine that hvq-edge build made: tensorrt "
        "or tensorrt-rtx.",
        callback=_with_provider,
    ),
]
ProviderOption = Annotated[
    str | None,
    typer.Option(
        "--provider",
        help="With --backend onnxruntime: cpu (default), or for GPUs cuda, tensorrt, tensorrt-rtx.",
        show_default=False,
        is_eager=True,
        callback=_keep_provider,
    ),
]
"""Read before the backend, whose value has it afterwards: a command only lists it."""
PrecisionOption = Annotated[
    str, typer.Option("--precision", help="auto, fp32, int8, or for GPUs fp16 or int8-fp16.")
]
HostOption = Annotated[
    str,
    typer.Option("--host", help="Address to serve on; any that others reach needs --token-file."),
]
PortOption = Annotated[int, typer.Option("--port", help="Port; 0 takes any that is free.")]
TokenFileOption = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        help="File with the token to ask for. Default: a token is made and printed.",
        show_default=False,
    ),
]


def _use_language(code: str | None) -> str | None:
    from hvq_edge.design.language import use_language

    use_language(code)
    return code


LanguageOption = Annotated[
    str | None,
    typer.Option(
        "--language",
        help="Of the pages: en, de. Default: that of the environment variable HVQ_EDGE_LANGUAGE; "
        "of served ones, what the browser asks for.",
        show_default=False,
        callback=_use_language,
    ),
]
NamesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--name",
        help="Host name under which a browser may reach it, besides addresses and localhost. "
        "May be given several times.",
        show_default=False,
    ),
]

CALIBRATION = "Calibration"
"""Panel of these options in the help of ``hvq-edge stream``."""
FalseRejectOption = Annotated[
    float | None,
    typer.Option(
        "--false-reject",
        help=f"Share of good parts that may be rejected. Default: {FALSE_REJECT}.",
        show_default=False,
        rich_help_panel=CALIBRATION,
    ),
]
ConfidenceOption = Annotated[
    float | None,
    typer.Option(
        "--confidence",
        help=f"Of the bound that stands beside it. Default: {CONFIDENCE}.",
        show_default=False,
        rich_help_panel=CALIBRATION,
    ),
]
ForceOption = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Write thresholds that look harmful all the same.",
        rich_help_panel=CALIBRATION,
    ),
]
MethodOption = Annotated[
    str | None,
    typer.Option(
        "--method",
        help="expected-rate (default): that share is the one to expect. order-statistics: it is "
        "kept with the confidence, for any scores. extreme-value: fewer images, but rests on a "
        "model of the tail.",
        show_default=False,
        rich_help_panel=CALIBRATION,
    ),
]
