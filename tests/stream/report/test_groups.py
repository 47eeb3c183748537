"""Rejects that look alike: how they are grouped, what they are called, and what is shown."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import exit_code
from helpers.decisions import made
from helpers.reviewed_line import open_recording
from scipy.cluster.hierarchy import fcluster, linkage

from hvq_edge.bundle.opened import open_bundle
from hvq_edge.errors import BundleError
from hvq_edge.stream.log.reviews import append_review
from hvq_edge.stream.report.groups import GOOD, MOST_GROUPED, Groups, alike
from hvq_edge.stream.report.page import csv_lines, render_shift
from hvq_edge.stream.report.shift import gather_shift, shift_values
from hvq_edge.stream.review.desk import ReviewDesk
from hvq_edge.verdict.regions import Region

START = 1_700_000_000.5
HOUR = 3600.0
RED, BLUE, GREEN = (200, 40, 40), (40, 40, 200), (40, 200, 40)
REGION = Region((10, 20, 30, 20), 600.0, None, 6.0, np.array([[10, 20], [40, 20], [40, 40]]))


def record(
    out: Path, rejects: list[tuple[float, tuple[int, int, int]]], category: str = "bolt"
) -> list[int]:
    """Record a reject for each time and colour; return the ids of their rows."""
    sinks = open_recording(out, sample=0.0, near=0.0)
    rng = np.random.default_rng(len(rejects))
    for index, (at, colour) in enumerate(rejects):
        decision, frame = made(index, "reject")
        image = np.clip(np.array(colour) + rng.normal(0, 4, frame.image.shape), 0, 255)
        camera = ("left", "<b>right")[index % 2]
        changed = replace(decision, time=at, camera=camera, regions=(REGION,), category=category)
        sinks.write(changed, replace(frame, image=image.astype(np.uint8)))
    sinks.close(None)
    desk = ReviewDesk(out, lambda _: 0)
    return [one.id for one, _ in desk.rejects()]


def colour_of(image: np.ndarray, category: str, contour: np.ndarray) -> np.ndarray | None:
    """What stands in for the network."""
    assert contour.tolist() == REGION.contour.tolist()
    return image.mean((0, 1)).astype(np.float32) if category == "bolt" else None


def span(begin: float, hours: float = 1.0) -> tuple[datetime, datetime]:
    since = datetime.fromtimestamp(begin, tz=timezone.utc)
    return since, since + timedelta(hours=hours)


def judge(out: Path, decisions: list[int], judgement: str, defect: str | None = None) -> None:
    desk = ReviewDesk(out, lambda review: append_review(out, review))
    for number in decisions:
        desk.judge(number, judgement, by="Ada", defect=defect)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    """Two hours: rows 3 to 6 of the first are red, 7 and 8 blue; of the second 5 of each."""
    out = tmp_path_factory.mktemp("recorded")
    first = [(START + index, RED if index < 4 else BLUE) for index in range(6)]
    second = [(START + HOUR + index, (RED, BLUE)[index % 2]) for index in range(10)]
    ids = record(out, first + second)
    assert len(ids) == 16
    return out


@pytest.fixture
def out(recorded, tmp_path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "out"))


def ids_of(out: Path) -> list[int]:
    return [one.id for one, _ in ReviewDesk(out, lambda _: 0).rejects()]


def second_hour(out: Path) -> Groups:
    found = gather_shift(out, *span(START + HOUR - 1), describe=colour_of).groups
    assert found is not None
    return found


def test_groups_are_those_of_average_linkage_by_the_angle_between_two_vectors():
    metrics = pytest.importorskip("sklearn.metrics", reason="needs the train extra")
    rng = np.random.default_rng(0)
    for count in (4, 7, 40, 90):
        centres = rng.normal(size=(4, 12))
        looks = centres[rng.integers(0, 4, count)] + rng.normal(0, 0.6, (count, 12)) + 5
        away = looks - looks.mean(0)
        ours = alike(looks)
        reference = fcluster(linkage(away, "average", "cosine"), 1.0, "distance")
        assert metrics.adjusted_rand_score(ours, reference) == 1.0
        assert 1 < len(set(ours)) < count


def test_a_name_is_what_most_reviews_said_also_those_from_before(out):
    ids = ids_of(out)
    assert second_hour(out).names == ["group 1", "group 2"]
    judge(out, ids[:2], "defective", "scratch")  # red, and in the first hour
    judge(out, ids[4:5], "good")  # blue: one is not enough
    groups = second_hour(out)
    assert [(one.name, len(one.rejects)) for one in groups.groups] == [("scratch", 5), ("", 5)]
    assert groups.names == ["scratch", "group 1"]
    red = groups.groups[0]
    assert {one.id for one in red.rejects} == set(ids[6::2]), "the report's own rejects alone"
    assert (dict(red.said), red.category) == ({"scratch": 2}, "bolt")
    assert red.cameras == {"left": 5}
    judge(out, ids[2:4], "defective", "dent")  # two of four are no more than half
    assert second_hour(out).names == ["group 1", "group 2"]
    judge(out, [ids[7]], "good")  # a blue one of the second hour
    assert second_hour(out).names == [GOOD, "group 1"]


def test_what_is_not_grouped_is_counted(out, monkeypatch):
    for path in sorted((out / "rejects").glob("*.png"))[-2:]:
        path.unlink()
    groups = second_hour(out)
    assert (groups.rejects, groups.images, groups.without, groups.too_few) == (10, 8, 2, 0)
    assert sum(len(one.rejects) for one in groups.groups) == 8
    few = gather_shift(out, *span(START - 1, 2.5 / 3600), describe=colour_of).groups
    assert few is not None
    assert (few.groups, few.rejects, few.too_few) == ((), 2, 2)
    monkeypatch.setattr("hvq_edge.stream.report.groups.MOST_GROUPED", 4)
    spread = second_hour(out)
    assert sum(len(one.rejects) for one in spread.groups) == 4 < MOST_GROUPED
    assert (spread.rejects, spread.images, spread.without) == (10, 8, 2)
    monkeypatch.setattr("hvq_edge.stream.report.groups.MOST_GROUPED", 9)
    assert second_hour(out).without == 2, "those without an image, however many may be looked at"


def test_the_page_the_table_and_the_values_have_the_groups(out):
    ids = ids_of(out)
    judge(out, ids[6:10:2], "defective", "=scratch")
    shift = gather_shift(out, *span(START + HOUR - 1), describe=colour_of)
    page = render_shift(shift)
    assert page.count('alt="region of a reject of =scratch"') == 5
    assert "<b>=scratch</b>: 5 rejects of bolt, camera left." in page
    assert "2 judged: =scratch 2." in page
    assert "camera &lt;b&gt;right" in page
    rows = list(csv.DictReader("".join(csv_lines(shift)).splitlines()))
    assert {row["camera"]: row["groups"] for row in rows} == {
        "left": "'=scratch: 5",
        "<b>right": "group 1: 5",
    }
    said = shift_values(shift)["groups"]
    assert [one["name"] for one in said["groups"]] == ["=scratch", None]
    assert sorted(said["groups"][0]["rejects"]) == ids[6::2]
    json.dumps(said)
    without = render_shift(gather_shift(out, *span(START + HOUR - 1)))
    assert "that needs the bundle, with <code>--bundle</code>" in without


def test_the_command_groups_by_what_a_bundle_sees(small_bundle, tmp_path, capsys):
    category = open_bundle(small_bundle).manifest.categories[0]
    colours = [RED, GREEN] * 3
    record(tmp_path, [(START + index, one) for index, one in enumerate(colours)], category)
    times = ("--from", span(START - 1)[0].isoformat(), "--to", span(START + HOUR)[0].isoformat())
    command = ["log", "report", str(tmp_path), *times, "--bundle", str(small_bundle), "--json"]
    assert exit_code(*command) == 0
    found = json.loads(capsys.readouterr().out)["groups"]
    kinds = {number: index % 2 for index, number in enumerate(ids_of(tmp_path))}
    assert found["without"] == 0
    assert {frozenset(kinds[one] for one in group["rejects"]) for group in found["groups"]} == {
        frozenset({0}),
        frozenset({1}),
    }


def test_a_bundle_without_prototypes_is_refused(tmp_path, small_bundle, monkeypatch):
    from hvq_edge.export.learn.region_features import RegionFeatures

    def none(_: object) -> tuple[str, ...]:
        raise BundleError("no image can join")

    monkeypatch.setattr("hvq_edge.export.learn.region_features.tables_of", none)
    with pytest.raises(BundleError, match="no features of regions") as caught:
        RegionFeatures(open_bundle(small_bundle))
    assert "leave --bundle out" in caught.value.next_step
