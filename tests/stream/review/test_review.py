"""What people say of decisions: which they are shown, and what is recorded."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing

import numpy as np
import pytest
from helpers.commands import exit_code
from helpers.decisions import made
from helpers.reviewed_line import desk_of, ids, open_recording, out, record, recorded  # noqa: F401  # fixtures

from hvq_edge.errors import HvqEdgeError, InputError, OutputError, SettingsError
from hvq_edge.stream.log.decision_log import DecisionLog, LogOptions, Session
from hvq_edge.stream.log.files import LogTaken
from hvq_edge.stream.log.reader import all_rows, row_with
from hvq_edge.stream.log.reviews import REVIEW, check_takes_reviews, latest_reviews
from hvq_edge.stream.log.verification import verify_log
from hvq_edge.stream.review.choice import Choice
from hvq_edge.stream.review.desk import ReviewDesk


def append_nothing(_: object) -> int:
    raise AssertionError


# Which decisions are kept.


def test_the_share_of_passes_is_kept_and_anybody_can_say_which(tmp_path):
    out = record(tmp_path, "p" * 60, sample=0.3, near=0.0)
    kept = {int(path.stem.split("-")[1]) for path in (out / "images").glob("*.png")}
    (start,) = [row for row in all_rows(out) if row.kind == "session_start"]
    said = json.loads(start.more)["images"]
    drawn = Choice(said["sample"], said["near"], said["seed"])
    assert kept == {index for index in range(60) if drawn.is_sampled("left", index)}
    assert 5 < len(kept) < 35
    desk = desk_of(out)
    assert len(ids(desk, "sample")) == len(kept)
    assert len(list((out / "images").glob("*.npy"))) == len(kept), "the map is kept as well"


def test_over_many_frames_the_sample_has_its_share_and_no_favourites():
    drawn = Choice(0.1, seed="a seed")
    sampled = np.array([drawn.is_sampled("left", index) for index in range(20_000)])
    assert sampled.mean() == pytest.approx(0.1, abs=0.01)
    assert sampled[::2].mean() == pytest.approx(0.1, abs=0.012)
    other = np.array([Choice(0.1, seed="b").is_sampled("left", index) for index in range(20_000)])
    assert (sampled & other).mean() == pytest.approx(0.01, abs=0.004)


def test_each_decision_is_shown_in_one_queue(out):
    desk = desk_of(out)
    found = {queue: len(ids(desk, queue)) for queue in ("reject", "near_miss", "no_decision")}
    assert found == {"reject": 2, "near_miss": 1, "no_decision": 1}
    everything = record(out.parent / "all", "prn", sample=1.0)
    assert [one.images for one in desk_of(everything).counts()] == [1, 0, 0, 2]


def test_a_dark_camera_does_not_fill_the_disk(tmp_path):
    """Frames of a second apart: one in ten seconds is kept."""
    out = record(tmp_path, "u" * 35, sample=0.0, no_decision_seconds=10.0)
    assert len(list((out / "images").glob("*.png"))) == 4


def test_a_threshold_changed_meanwhile_decides_what_is_near(tmp_path):
    sinks = open_recording(tmp_path, sample=0.0)
    controls = sinks.watch._controls
    assert controls is not None
    sinks.write(*made(0))
    controls.set_threshold("bolt", 1.05)
    sinks.write(*made(1))
    sinks.close(None)
    (near,) = desk_of(tmp_path).listed("near_miss")
    assert (near.candidate.frame, near.candidate.threshold) == (1, 1.05)


def test_only_the_last_days_are_looked_at_where_that_is_asked(out):
    """Its decisions are years old, and its reviews of now: these alone would say nothing."""
    assert ReviewDesk(out, append_nothing, days=3.0).listed("reject") == []
    age = time.time() - made(0)[0].time
    desk = ReviewDesk(out, append_nothing, days=age / 86_400 + 1)
    assert len(desk.listed("reject")) == 2
    desk._candidates._days = 3.0  # time goes on
    together, days = desk.numbers()
    assert (together.rejects, days, desk.listed("reject")) == (0, [], [])


def test_without_the_table_nothing_but_rejects_is_kept(tmp_path):
    made_log = DecisionLog(tmp_path / "decisions.sqlite", Session({"thresholds": {"bolt": 3.0}}))
    for index in range(4):
        made_log.write(*made(index))
    made_log.close()
    assert [one.images for one in desk_of(tmp_path).counts()] == [0, 0, 0, 0]


# What is recorded.


def test_a_review_names_the_decision_and_changes_nothing_of_it(out):
    desk = desk_of(out)
    before = list(all_rows(out))
    number = ids(desk, "reject")[0]
    said = desk.judge(number, "defective", by=" Ada  L. ", defect="scratch", why="a deep one")
    rows = list(all_rows(out))
    assert rows[: len(before)] == before
    (added,) = rows[len(before) :]
    row = row_with(out, number)
    assert row is not None
    assert (added.id, added.kind, added.verdict) == (said.id, REVIEW, None)
    assert json.loads(added.more) == {
        "by": "Ada L.",
        "decision": number,
        "decision_hash": row.hash,
        "defect": "scratch",
        "judgement": "defective",
        "supersedes": None,
        "why": "a deep one",
    }
    found = verify_log(out)
    assert found.whole, found.faults
    assert found.head_id == added.id, "a cut-off review would be seen"
    assert ids(desk, "reject") == [one for one in ids(desk, "reject", judged=True) if one != number]


def test_a_second_review_takes_the_place_of_the_first_openly(out):
    desk = desk_of(out)
    number = ids(desk, "reject")[0]
    first = desk.judge(number, "defective", by="Ada", defect="scratch")
    second = desk.judge(number, "good", by="Bo")
    assert second.supersedes == first.id
    assert latest_reviews(out)[number].by == "Bo"
    taken_back = desk.judge(number, "withdrawn", by="Bo")
    assert taken_back.supersedes == second.id
    assert latest_reviews(out) == {}
    assert number in ids(desk, "reject")
    assert sum(row.kind == REVIEW for row in all_rows(out)) == 3
    with pytest.raises(SettingsError, match="no review to take back"):
        desk.judge(number, "withdrawn", by="Bo")


def test_a_changed_review_is_found(out):
    desk = desk_of(out)
    said = desk.judge(ids(desk, "reject")[0], "good", by="Ada")
    with closing(sqlite3.connect(out / "decisions.sqlite", isolation_level=None)) as connection:
        connection.execute("UPDATE log SET more = replace(more, 'Ada', 'Bob')")
    assert [fault.row for fault in verify_log(out).faults] == [said.id]


@pytest.mark.parametrize(
    ("judgement", "given"),
    [
        ("good", {"by": "  "}),
        ("good", {"by": "Ada", "defect": "scratch"}),
        ("defective", {"by": "Ada"}),
        ("defective", {"by": "Ada", "defect": "../good"}),
        ("defective", {"by": "Ada", "defect": "x" * 61}),
        ("skip", {"by": "Ada\x1b[2J"}),
    ],
)
def test_what_cannot_be_said_is_not_recorded(out, judgement, given):
    desk = desk_of(out)
    number = ids(desk, "reject")[0]
    before = len(list(all_rows(out)))
    with pytest.raises(SettingsError):
        desk.judge(number, judgement, **given)
    with pytest.raises(SettingsError, match="no decision 1 "):
        desk.judge(1, "good", by="Ada")  # the row of the file
    assert len(list(all_rows(out))) == before


# Beside an inspector.


def test_while_an_inspector_records_the_command_leaves_the_log_alone(out, capsys):
    desk = desk_of(out)
    number = ids(desk, "reject")[0]
    sinks = open_recording(out)
    try:
        with pytest.raises(OutputError, match="another inspector is recording") as caught:
            desk.judge(number, "good", by="Ada")
        assert "at /review, if it has one" in caught.value.next_step, "its log does not say it"
        assert exit_code("review", str(out)) == 2
        assert "live page, at /review" in capsys.readouterr().err
    finally:
        sinks.close(None)
    assert desk.judge(number, "good", by="Ada").id == list(all_rows(out))[-1].id


@pytest.mark.parametrize(
    ("page", "said"),
    [(True, "review on the inspector's live page"), (False, "end the inspector first")],
)
def test_the_live_page_is_named_where_the_line_has_one(tmp_path, page, said):
    log = DecisionLog(tmp_path / "decisions.sqlite", Session({"page": page}))
    try:
        with pytest.raises(LogTaken) as caught:
            check_takes_reviews(tmp_path)
    finally:
        log.close()
    assert caught.value.next_step.startswith(said)


def test_the_inspector_itself_records_reviews_between_its_decisions(out):
    sinks = open_recording(out)
    desk = ReviewDesk(out, lambda review: sinks.record(REVIEW, review.details()))
    numbers = ids(desk, "reject")
    for index, number in enumerate(numbers):
        sinks.write(*made(100 + index))
        said = desk.judge(number, "good", by="Ada")
        row = row_with(out, said.id)
        assert row is not None
        assert row.kind == REVIEW, "on the disk when the call returns"
        assert row_with(out, said.id - 1).frame == 100 + index, "after the decisions so far"
    sinks.close(None)
    assert set(latest_reviews(out)) == set(numbers)
    assert verify_log(out).whole


def test_a_review_that_the_disk_does_not_take_is_not_recorded_later(out, monkeypatch):
    sinks = open_recording(out)
    log = sinks.log
    assert log is not None
    desk = ReviewDesk(out, lambda review: sinks.record(REVIEW, review.details()))
    number = ids(desk, "reject")[0]

    def full(*_: object) -> None:
        raise OutputError("no space is left.")

    with monkeypatch.context() as patch:
        patch.setattr("hvq_edge.stream.log.decision_log.check_room", full)
        with pytest.raises(HvqEdgeError, match="no space"):
            desk.judge(number, "good", by="Ada")
    sinks.write(*made(200))
    sinks.close(None)
    assert latest_reviews(out) == {}
    assert verify_log(out).whole


def test_a_killed_session_is_told_of_with_its_own_last_row(out):
    """And not with a review that somebody wrote after it."""
    log = DecisionLog(out / "decisions.sqlite", Session())
    log.write(*made(0))
    log.tick()
    log._commit()
    last = log.last
    log._file.close()
    log._lock.release()  # as a kill does
    desk = desk_of(out)
    desk.judge(ids(desk, "reject")[0], "good", by="Ada")
    DecisionLog(out / "decisions.sqlite", Session()).close()
    (lost,) = [json.loads(row.more) for row in all_rows(out) if row.kind == "session_lost"]
    assert lost["last_id"] == last.id
    assert verify_log(out).whole


def test_a_log_that_was_cut_off_takes_no_reviews(out):
    desk = desk_of(out)
    number = ids(desk, "reject")[0]
    with closing(sqlite3.connect(out / "decisions.sqlite", isolation_level=None)) as connection:
        connection.execute("DELETE FROM log WHERE id = (SELECT MAX(id) FROM log)")
    with pytest.raises(InputError, match="not as it was written"):
        desk.judge(number, "good", by="Ada")


def test_a_head_that_is_kept_elsewhere_is_moved_on_there(tmp_path):
    aside = tmp_path / "aside.head"
    path = tmp_path / "out" / "decisions.sqlite"
    log = DecisionLog(path, Session({"thresholds": {"bolt": 3.0}}), LogOptions(head=aside))
    log.write(*made(0, "reject"))
    log.close()
    desk = desk_of(path.parent)
    said = desk.judge(3, "good", by="Ada")
    assert json.loads(aside.read_text())["id"] == said.id
    assert (path.parent / "decisions.sqlite.head").is_symlink()
    assert verify_log(path).head_id == said.id
