"""Images that people judge: what is shown of them, and how they are saved."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.commands import exit_code
from helpers.reviewed_line import desk_of, ids, out, recorded  # noqa: F401  # fixtures

from hvq_edge.errors import OutputError
from hvq_edge.stream.review.save import save_judged


def test_the_image_shows_the_heat_and_can_be_had_without(out):
    desk = desk_of(out)
    number = ids(desk, "reject")[0]
    with_heat, without = (
        cv2.imdecode(np.frombuffer(desk.image(number, heat=heat), np.uint8), 1)
        for heat in (True, False)
    )
    assert with_heat.shape == without.shape == (60, 90, 3)
    assert np.abs(with_heat.astype(int) - without).max() > 60


def test_a_decision_without_image_is_not_shown_but_counted(out):
    desk = desk_of(out)
    number = ids(desk, "reject")[0]
    for path in (out / "rejects").glob("*-000005-*"):
        path.unlink()
    assert ids(desk, "reject") == [one for one in ids(desk, "reject") if one != number]
    assert desk.counts()[0].gone == 1
    assert desk.image(number, heat=True) is None


def test_judged_images_are_saved_by_category_and_kind(out, tmp_path, capsys):
    desk = desk_of(out)
    first, second = ids(desk, "reject")
    desk.judge(first, "defective", by="Ada", defect="deep scratch")
    desk.judge(second, "good", by="Ada")
    folder = tmp_path / "judged"
    assert exit_code("review", str(out), "--save", str(folder), "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {
        "good": {"bolt": 1},
        "defective": {"bolt": {"deep scratch": 1}},
        "gone": 0,
        "without_category": 0,
        "others": [],
    }

    def names() -> list[str]:
        return sorted(
            path.relative_to(folder).as_posix().split("-00")[0] for path in folder.rglob("*.png")
        )

    assert [name.rpartition("/")[0] for name in names()] == [
        "bolt/defective/deep scratch",
        "bolt/good",
    ]
    (image,) = (folder / "bolt/good").iterdir()
    (kept,) = (out / "rejects").glob(image.name)
    assert image.read_bytes() == kept.read_bytes()
    desk.judge(first, "good", by="Bo")
    save_judged(desk.judged_images(), folder)
    assert [name.rpartition("/")[0] for name in names()] == ["bolt/good"] * 2
    for path in (out / "rejects").glob("*.png"):
        path.unlink()  # they made room: the copies are all that is left
    desk.judge(first, "defective", by="Bo", defect="dent")
    saved = save_judged(desk.judged_images(), folder)
    assert (saved.gone, dict(saved.good), saved.others) == (0, {"bolt": 1}, ())
    assert [name.rpartition("/")[0] for name in names()] == ["bolt/defective/dent", "bolt/good"]
    desk.judge(first, "skip", by="Bo")
    desk.judge(second, "withdrawn", by="Bo")
    assert exit_code("review", str(out), "--save", str(folder)) == 0
    said = capsys.readouterr().err
    assert f"1 image in {folder} of no review in force stay" in said.replace("\n", " ")
    assert [name.rpartition("/")[0] for name in names()] == ["bolt/good"]


@pytest.mark.parametrize("other", ["notes.txt", "bolt/train/good/1.png", "good/1.png"])
def test_images_are_not_saved_among_something_else(out, tmp_path, other):
    desk = desk_of(out)
    desk.judge(ids(desk, "reject")[0], "good", by="Ada")
    folder = tmp_path / "data"
    (folder / other).parent.mkdir(parents=True)
    (folder / other).write_bytes(b"mine")
    with pytest.raises(OutputError, match="holds something else: ") as caught:
        save_judged(desk.judged_images(), folder)
    assert other.split("/")[0] in caught.value.cause
    assert [path.name for path in folder.rglob("*") if path.is_file()] == [Path(other).name]
