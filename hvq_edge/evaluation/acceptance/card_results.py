"""What a model card says of results: metrics, thresholds, engines, or what would measure them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hvq_edge.bundle.judged_images import METRICS_NAME
from hvq_edge.bundle.manifest import BundleManifest, Precision
from hvq_edge.bundle.opened import Bundle
from hvq_edge.bundle.thresholds import threshold_records
from hvq_edge.bundle.verification import (
    VERIFY_NAME,
    Verification,
    of_these_graphs,
    read_verification,
)
from hvq_edge.common.markdown import bullets, code, table, text
from hvq_edge.errors import HvqEdgeError
from hvq_edge.evaluation.acceptance.measured import CategoryNumbers, Measured, measured_of
from hvq_edge.evaluation.acceptance.threshold_bound import threshold_bound
from hvq_edge.evaluation.metrics.metrics_file import read_metrics
from hvq_edge.evaluation.metrics.results import Metrics
from hvq_edge.evaluation.table import percent
from hvq_edge.runtime.known_answers import answers_file, read_known_answers
from hvq_edge.runtime.tensorrt.engine_file import ENGINES_FOLDER, read_record
from hvq_edge.verdict import tolerance_bound
from hvq_edge.verdict.tolerance import Interval, Share

NOT_MEASURED = "not measured"


def measured_on(bundle: Bundle) -> list[Measured]:
    """Return what was measured of these very graphs, in the order of the precisions."""
    found = []
    for precision in bundle.manifest.models:
        try:
            content = read_metrics(bundle.path / f"eval-{precision}" / METRICS_NAME)
        except HvqEdgeError:
            continue
        if content.evaluations and content.created >= bundle.manifest.created:
            found.append(measured_of(bundle, content, of_bundle=True))
    return found


def quantitative(bundle: Bundle, measured: Sequence[Measured]) -> list[str]:
    """Return the section of metrics and thresholds, as blocks of Markdown."""
    manifest = bundle.manifest
    known = {one.precision: one for one in measured}
    blocks = ["## Quantitative analyses"]
    for precision in manifest.models:
        blocks.append(f"### Test images, {precision}")
        one = known.get(precision)
        if one is None:
            blocks.append(missing(eval_command(precision)))
            continue
        metrics = {own.category: own for own in one.record.categories}
        rows = [_result_row(own, metrics.get(own.category)) for own in one.categories]
        if len(rows) > 1:
            rows.append(_result_row(one.all, one.record.mean))
        headings = (
            *("category", "image AUROC %", "pixel AUROC %", "recall at 5 %", "recall at 1 %"),
            *("good rejected", "defects found", "good undecided", "defects undecided"),
        )
        blocks += [f"Measured with {one.backend} on {text(one.device)}.", table(headings, rows)]
    promised = [
        (precision, *_threshold_cells(manifest, precision, name))
        for precision in manifest.models
        for name in manifest.categories
    ]
    columns = ("precision", "category", "threshold", "expected", "at most", "in words", "from")
    blocks.append("### Thresholds, and what they promise of false rejects")
    return [*blocks, table(columns, promised)]


def _threshold_cells(manifest: BundleManifest, precision: Precision, name: str) -> tuple[str, ...]:
    threshold = threshold_records(manifest, precision).get(name)
    if threshold is None:
        none = f"{NOT_MEASURED}: run `hvq-edge calibrate BUNDLE --good DIR`"
        return (text(name), none, *[""] * 4)
    found = threshold_bound(precision, name, threshold)
    bound = threshold.bound
    expected = (
        "" if bound is None or bound.expected is None else tolerance_bound.percent(bound.expected)
    )
    at_most = (
        ""
        if bound is None
        else f"{tolerance_bound.percent(bound.rate)} ({100 * bound.confidence:.4g} %)"
    )
    words = (text(found.promise), text("; ".join(found.origin)))
    return (text(name), f"{threshold.value:.6g}", expected, at_most, *words)


def engines(bundle: Bundle) -> list[str]:
    """Return the section of engines, as blocks of Markdown."""
    verification = _verification(bundle)
    blocks = ["## Engines verified"]
    if verification is None:
        blocks.append(missing("hvq-edge verify BUNDLE"))
    else:
        rows = [
            (
                one.precision,
                f"{one.runner} {verification.libraries.get(one.runner, '')}".strip(),
                one.images,
                f"{100 * min(one.code_agreement):.6g}",
                f"{one.map_correlation:.6g}",
                len(one.decisions_changed),
                "passed" if one.passed else text(f"FAILED: {'; '.join(one.faults)}"),
            )
            for one in verification.comparisons
        ]
        headings = ("precision", "engine", "images", "equal codes %", "map correlation")
        blocks += [
            f"Against the PyTorch model{f', {at}' if (at := verification.created) else ''}:",
            table((*headings, "decisions changed", ""), rows),
        ]
        if verification.not_run:
            blocks.append(
                bullets(
                    text(f"not run: {one.precision or ''} {one.runner}: {one.reason}")
                    for one in verification.not_run
                )
            )
    built = list(_built(bundle))
    if built:
        headings = ("engine built", "library", "precision", "for", "built")
        blocks.append(table(headings, built))
    return [*blocks, _known_answers(bundle)]


def _known_answers(bundle: Bundle) -> str:
    name = answers_file(bundle)
    try:
        answers = read_known_answers(bundle)
    except HvqEdgeError as error:
        return f"Known answers: {text(error.cause)}"
    if name is None or answers is None:
        return f"Known answers: none; {missing('hvq-edge export RUN')}"
    return (
        f"Known answers: {len(answers.frames)} images with what "
        f"{', '.join(answers.precisions)} must say of them ({code(name)}, SHA-256 "
        f"{code(bundle.manifest.files[name].sha256)}). Every engine is held to them before its "
        "first verdict on a machine."
    )


def _built(bundle: Bundle) -> Iterator[tuple[object, ...]]:
    for plan in sorted((bundle.path / ENGINES_FOLDER).glob("*.plan")):
        try:
            record = read_record(plan)
        except HvqEdgeError as error:
            yield (code(plan.name), text(error.cause), "", "", "")
            continue
        gpu = f" ({record.gpu_name})" if record.gpu_name else ""
        yield (
            code(plan.name),
            f"{record.backend} {text(record.backend_version)}",
            record.precision,
            text(f"compute capability {', '.join(record.compute_capabilities)}{gpu}"),
            record.created,
        )


def _verification(bundle: Bundle) -> Verification | None:
    try:
        found = read_verification(bundle.path / VERIFY_NAME)
    except HvqEdgeError:
        return None
    return found if of_these_graphs(found, bundle.manifest) else None


def _result_row(own: CategoryNumbers, metrics: Metrics | None) -> tuple[object, ...]:
    names = ("pixel_auroc", "image_recall_at_5", "image_recall_at_1")
    return (
        text(own.category),
        _interval(own.auroc),
        *(percent(getattr(metrics, name, None)) for name in names),
        _share(own.false_rejects),
        _share(own.found),
        own.good_undecided,
        own.defective_undecided,
    )


def _interval(found: Interval | None) -> str:
    if found is None:
        return "–"
    return f"{percent(found.value)} ({percent(found.low)} to {percent(found.high)})"


def _share(found: Share | None) -> str:
    if found is None:
        return "–"
    low, high = percent(found.interval.low), percent(found.interval.high)
    return f"{found.count} of {found.total} ({low} to {high} %)"


def eval_command(precision: str) -> str:
    """Return the command that measures a precision on test images."""
    return f"hvq-edge eval BUNDLE --precision {precision} --data DIR"


def missing(command: str) -> str:
    """Say that something is not known yet, and what would find it out."""
    return f"{NOT_MEASURED}: run {code(command)}"
