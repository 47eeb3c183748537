import importlib.machinery
import json
import sys
from pathlib import Path

import pytest

from hvq_edge.common.cache_folder import default_cache
from hvq_edge.data import solar_cells
from hvq_edge.data.dataset import find_dataset
from hvq_edge.data.solar_cells import MARKER_NAME, lay_out_solar_cells
from hvq_edge.errors import DatasetError, MissingCapability, OutputError


def number(path):
    return int(path.stem.removeprefix("cell"))


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package like elpv-dataset: 400 cells of each type, one in four defective, one unsure."""
    folder = tmp_path / "site-packages" / "elpv_dataset"
    (folder / "data/images").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError('importing needs Pillow')")
    lines = []
    for i in range(1, 801):
        probability = {0: "1.0", 1: "0.3333333333333333"}.get(i % 4, "0.0")
        name = f"images/cell{i:04}.png"
        (folder / "data" / name).write_bytes(f"cell {i}".encode())
        lines.append(f"{name} {probability:<19} {'mono' if i <= 400 else 'poly'}")
    (folder / "data/labels.csv").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(folder.parent)
    monkeypatch.delitem(sys.modules, "elpv_dataset", raising=False)
    importlib.machinery.PathFinder.invalidate_caches()
    return folder


def test_layout_is_mvtec_with_the_counts_asked_for(package, tmp_path):
    out = lay_out_solar_cells(tmp_path / "cells", train_good=20, test_each=7)
    dataset = find_dataset(out)
    assert dataset.layout == "mvtec"
    assert dataset.categories == ("solar_cell_mono", "solar_cell_poly")
    assert dataset.notes == ()
    for category in dataset.categories:
        assert len(dataset.train_good(category)) == 20
        defects = [image.defect for image in dataset.test(category)]
        assert defects == ["defective"] * 7 + ["good"] * 7
    for image in dataset.images:
        i = number(image.path)
        assert image.category == ("solar_cell_mono" if i <= 400 else "solar_cell_poly")
        assert i % 4 == 0 if not image.good else i % 4 in (2, 3)
        assert image.path.read_bytes() == f"cell {i}".encode()


def test_train_and_test_come_from_different_blocks(package, tmp_path):
    dataset = find_dataset(lay_out_solar_cells(tmp_path / "cells", train_good=60, test_each=20))
    for category, first in (("solar_cell_mono", 1), ("solar_cell_poly", 401)):
        blocks = [
            {(number(image.path) - first) // 60 for image in images}
            for images in (dataset.train_good(category), dataset.test(category))
        ]
        assert blocks[0].isdisjoint(blocks[1])
        assert blocks == [{1, 2, 4, 5}, {0, 3, 6}]  # spread over all modules


def test_the_choice_is_always_the_same(package, tmp_path):
    lists = [
        sorted(
            path.relative_to(out).as_posix()
            for path in lay_out_solar_cells(out, train_good=9, test_each=3).rglob("*.png")
        )
        for out in (tmp_path / "one", tmp_path / "two")
    ]
    assert lists[0] == lists[1]


def test_a_second_call_copies_nothing(package, tmp_path):
    out, calls = tmp_path / "cells", []

    def count(*call, **_):
        calls.append(call)

    lay_out_solar_cells(out, train_good=9, test_each=3, on_progress=count)
    assert [call[1:3] for call in calls] == [(i, 30) for i in range(1, 31)]
    lay_out_solar_cells(out, train_good=9, test_each=3, on_progress=count)
    assert len(calls) == 30
    marker = json.loads((out / MARKER_NAME).read_text(encoding="utf-8"))
    assert marker["licence"] == "CC BY-NC-SA 4.0"


def test_other_counts_and_lost_images_make_it_anew(package, tmp_path):
    out = tmp_path / "cells"
    lay_out_solar_cells(out, train_good=9, test_each=3)
    lay_out_solar_cells(out, train_good=12, test_each=3)
    assert len(find_dataset(out).train_good()) == 24
    next(out.rglob("*.png")).unlink()
    lay_out_solar_cells(out, train_good=12, test_each=3)
    assert len(list(out.rglob("*.png"))) == 2 * (12 + 3 + 3)


def test_a_kill_leaves_nothing_that_looks_complete(package, tmp_path):
    out = tmp_path / "cells"

    def stop(stage, done, total, note=""):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lay_out_solar_cells(out, train_good=9, test_each=3, on_progress=stop)
    assert not out.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["site-packages"]


def test_a_folder_of_somebody_else_is_left_alone(package, tmp_path):
    out = tmp_path / "holiday"
    out.mkdir()
    (out / "beach.jpg").write_bytes(b"sun")
    with pytest.raises(OutputError, match="left as it is"):
        lay_out_solar_cells(out, train_good=9, test_each=3)
    assert (out / "beach.jpg").read_bytes() == b"sun"


def test_more_than_there_are_is_refused(package, tmp_path):
    with pytest.raises(DatasetError, match=r"of mono cells; 5000 were asked for"):
        lay_out_solar_cells(tmp_path / "cells", train_good=5000, test_each=3)
    assert not (tmp_path / "cells").exists()


def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(solar_cells, "find_spec", lambda _: None)
    with pytest.raises(MissingCapability) as caught:
        lay_out_solar_cells(tmp_path / "cells", train_good=9, test_each=3)
    assert caught.value.exit_code == 3
    assert "pip install 'hvq-edge[demo]'" in caught.value.next_step


def test_the_real_package_is_laid_out(tmp_path):
    pytest.importorskip("elpv_dataset")
    out = lay_out_solar_cells(tmp_path / "cells", train_good=12, test_each=5)
    dataset = find_dataset(out)
    assert len(dataset.train_good()) == 24
    assert len(dataset.test()) == 20


def test_cache_follows_the_xdg_rule(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "hvq-edge"
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    assert default_cache() == Path.home() / ".cache/hvq-edge"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache() == Path.home() / ".cache/hvq-edge"
