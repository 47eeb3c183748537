"""The shift report as a page that opens without a network and prints, and as CSV."""

from __future__ import annotations

import base64
import csv
import io
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta

from hvq_edge.common.wording import per_cent, spreadsheet_name
from hvq_edge.design.language import current
from hvq_edge.design.pages import page_environment
from hvq_edge.stream.report.groups import MOST_GROUPED, NAMES_DAYS, Group, Groups
from hvq_edge.stream.report.shift import Cell, Counts, Shift, cell_of
from hvq_edge.stream.review.numbers import Estimate

HOURS_SHOWN = timedelta(hours=48)
"""Up to so long a report has a line an hour, beyond it a line a day."""
CSV_COLUMNS = (
    "hour",
    "camera",
    "category",
    "decisions",
    "pass",
    "reject",
    "no_decision",
    "judged_rejects",
    "good_rejects",
    "judged_passes",
    "missed",
    "groups",
)


def render_shift(shift: Shift) -> str:
    """Render the report as a page that needs no other file and no network."""
    by_day = shift.until - shift.since > HOURS_SHOWN
    times = shift.by(lambda cell: cell.hour.date() if by_day else cell.hour)
    say = current()
    several_days = shift.since.date() != shift.until.date()

    def time_name(at: datetime) -> str:
        if by_day:
            return say.day_of(at)
        return f"{at:{say.day} %H:%M}" if several_days else f"{at:%H:%M}"

    return (
        page_environment("hvq_edge")  # its style is that of the reports
        .get_template("stream/report/shift.html")
        .render(
            shift=shift,
            total=shift.total,
            times=[(time_name(at), counts) for at, counts in times.items()],
            by_day=by_day,
            cameras=shift.by(lambda cell: cell.camera),
            categories=shift.by(lambda cell: cell.category),
            most=max((counts.decisions for counts in times.values()), default=1),
            reasons=shift.reasons.most_common(),
            defects=_defects(shift),
            groups=[
                (name, group, [_embedded(crop) for crop in group.crops])
                for name, group in _named(shift.groups)
            ],
            worst=[
                (one, None if one.image is None else _embedded(one.image)) for one in shift.worst
            ],
            estimated=estimated,
            per_cent=lambda share: say.digits(per_cent(share)),
            listed=_listed,
            names_days=round(NAMES_DAYS),
            most_grouped=MOST_GROUPED,
            moment=say.moment,
            judged={"good": say("good"), "defective": say("defective"), "skip": say("cannot say")},
        )
    )


def csv_lines(shift: Shift) -> Iterator[str]:
    """Give the report's counts line by line: one for each hour, camera and category."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")

    def line(values: object) -> str:
        buffer.seek(0)
        buffer.truncate()
        writer.writerow(values)  # type: ignore[arg-type]
        return buffer.getvalue()

    groups: dict[Cell, Counter[str]] = {}
    for name, group in _named(shift.groups):
        for one in group.rejects:
            cell = cell_of(one.time, one.camera, one.category)
            groups.setdefault(cell, Counter())[name] += 1
    yield line(CSV_COLUMNS)
    for cell, counts in sorted(
        shift.cells.items(), key=lambda one: (one[0].hour, one[0].camera, one[0].category)
    ):
        names = (spreadsheet_name(cell.camera), spreadsheet_name(cell.category))
        grouped = (f"{name}: {count}" for name, count in groups.get(cell, Counter()).most_common())
        of_groups = spreadsheet_name("; ".join(grouped))
        yield line((cell.hour.isoformat(), *names, *_numbers(counts), of_groups))


def estimated(found: Estimate) -> str:
    """Say a share with its interval, in per cent."""
    say = current()
    if found.share is None:
        return say("not known: none was judged")
    value, low, high = (
        say.digits(per_cent(one)) for one in (found.share.value, found.share.low, found.share.high)
    )
    if low == high:
        return say("{value} %: all were judged", value=value)
    return say("{value} % ({low} to {high} % at 95 % confidence)", value=value, low=low, high=high)


def _named(groups: Groups | None) -> list[tuple[str, Group]]:
    return [] if groups is None else list(zip(groups.names, groups.groups, strict=True))


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common())


def _embedded(image: bytes) -> str:
    return base64.b64encode(image).decode("ascii")


def _numbers(counts: Counts) -> tuple[int, ...]:
    return (
        counts.decisions,
        counts.passed,
        counts.rejected,
        counts.no_decision,
        counts.judged_rejects,
        counts.good_rejects,
        counts.judged_passes,
        counts.missed,
    )


def _defects(shift: Shift) -> list[tuple[str, str, int]]:
    return [(category, defect, count) for (category, defect), count in shift.defects.most_common()]
