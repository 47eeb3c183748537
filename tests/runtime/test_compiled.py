"""Compiled graphs are kept for the next start: used as they were written, by whom they are of."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("openvino")
from helpers.engine_bench import cache  # noqa: F401  # a fixture
from helpers.graphs import CATEGORIES, SIDE, frames, save_bundle, save_graph
from helpers.known_answers import give_answers

from hvq_edge.bundle.opened import open_bundle
from hvq_edge.errors import BundleError, SettingsError
from hvq_edge.runtime.contract import Graph
from hvq_edge.runtime.cpu import compiled as compiled_module
from hvq_edge.runtime.cpu.compiled import MOST_KEPT, VARIABLE, CompiledFile
from hvq_edge.runtime.cpu.openvino_engine import OpenVinoEngine
from hvq_edge.runtime.open_engine import open_engine


@pytest.fixture(params=["openvino", "onnxruntime"])
def backend(request) -> str:
    return request.param


@pytest.fixture
def folder(cache) -> Path:
    return cache.parent / "compiled"


def opened(bundle, backend="openvino", **options):
    return open_engine(bundle, precision="fp32", backend=backend, unchecked=True, **options)


def was_kept(bundle, backend="openvino", **options) -> bool:
    """Whether an engine opens on a kept graph."""
    with opened(bundle, backend, **options) as engine:
        return bool(engine.info.plan_sha256)


def outputs(engine):
    return [engine.run(frames(batch, seed=batch)) for batch in (1, 3)]


def assert_same(one, other):
    for first, second in zip(one, other, strict=True):
        for name, values in first.items():
            np.testing.assert_array_equal(values, second[name], err_msg=name)


def test_a_kept_graph_gives_the_same_numbers_to_the_last_bit(tmp_path, folder, backend):
    bundle = save_bundle(tmp_path / "b", "auto")
    with opened(bundle, backend) as compiled:
        assert not compiled.info.plan_sha256
        wanted = outputs(compiled)
    assert len(list(folder.iterdir())) == 1
    with opened(bundle, backend) as kept:
        assert kept.info.plan_sha256
        assert_same(outputs(kept), wanted)


def test_what_a_bundle_says_wrongly_of_a_kept_graph_is_found(tmp_path, folder, backend):
    bundle = save_bundle(tmp_path / "b", "auto")
    opened(bundle, backend).close()
    assert was_kept(bundle, backend)
    said = bundle.manifest.model_copy(update={"category_mode": "input"})
    with pytest.raises(BundleError, match="is not a graph of category mode input"):
        opened(replace(bundle, manifest=said), backend)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_trained_model_judges_the_same(small_trained_bundle, folder, backend, precision):
    bundle = open_bundle(small_trained_bundle)
    images = np.random.default_rng(0).integers(
        0, 256, (3, *bundle.manifest.frame_shape, 3), dtype=np.uint8
    )
    judged = []
    for expected in (False, True):
        with open_engine(bundle, precision=precision, backend=backend) as engine:
            assert bool(engine.info.plan_sha256) == expected
            judged.append([engine.run(images[:1]), engine.run(images)])
    assert_same(*judged)


def test_a_kept_graph_is_held_against_the_known_answers_once(tmp_path, folder):
    bundle = give_answers(save_bundle(tmp_path / "b", "auto"))
    checks = folder.parent / "engine-checks"
    counts = []
    for _ in range(3):
        open_engine(bundle, precision="fp32", backend="openvino").close()
        counts.append(len(list(checks.iterdir())))
    assert counts == [1, 2, 2], "the graph as it was compiled, and as it was kept"


def test_other_threads_and_another_graph_are_compiled_anew(tmp_path, folder):
    bundle = save_bundle(tmp_path / "b")
    opened(bundle, threads=1).close()
    assert was_kept(bundle, threads=1)
    assert not was_kept(bundle, threads=2)
    assert not was_kept(save_bundle(tmp_path / "other", "auto"))


def test_a_graph_of_unknown_content_is_not_kept(tmp_path, folder):
    path = save_graph(tmp_path / "one.onnx", "one")
    OpenVinoEngine(Graph(path, "fp32", (SIDE, SIDE), CATEGORIES[:1], "one")).close()
    assert not folder.exists()


def test_where_a_signature_is_required_the_graph_itself_runs(tmp_path, folder, backend):
    bundle = save_bundle(tmp_path / "b")
    opened(bundle, backend).close()
    assert was_kept(bundle, backend)
    assert not was_kept(replace(bundle, signed=True), backend)


def replaced_by_a_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


OPEN_TO_OTHERS = {
    "the file can be written to by the group": lambda file: file.chmod(0o620),
    "the file can be written to by all": lambda file: file.chmod(0o602),
    "the folder can be written to by all": lambda file: file.parent.chmod(0o707),
    "the file is a link": replaced_by_a_link,
    "the folder is a link": lambda file: replaced_by_a_link(file.parent),
}


@pytest.mark.parametrize("how", OPEN_TO_OTHERS)
def test_what_others_could_have_written_is_not_used(tmp_path, folder, how):
    bundle = save_bundle(tmp_path / "b")
    opened(bundle).close()
    assert was_kept(bundle)
    (file,) = folder.iterdir()
    OPEN_TO_OTHERS[how](file)
    assert not was_kept(bundle)


@pytest.mark.parametrize("of", ["the file", "the folder"])
def test_what_is_another_users_is_not_used(tmp_path, folder, monkeypatch, of):
    bundle = save_bundle(tmp_path / "b")
    opened(bundle).close()
    (file,) = folder.iterdir()
    planted = (file if of == "the file" else folder).stat().st_ino

    def of_another(read):
        def status(*given):
            found = read(*given)
            values = [*found]
            values[stat.ST_UID] += found.st_ino == planted
            return os.stat_result(values)

        return status

    monkeypatch.setattr(os, "lstat", of_another(os.lstat))
    monkeypatch.setattr(os, "fstat", of_another(os.fstat))
    assert not was_kept(bundle)


def test_only_its_owner_may_read_it_whatever_the_umask_says(tmp_path, folder):
    former = os.umask(0)
    try:
        opened(save_bundle(tmp_path / "b")).close()
    finally:
        os.umask(former)
    (file,) = folder.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("how", ["a flipped bit", "cut short", "under another name"])
def test_what_is_not_as_it_was_written_is_compiled_again_and_mended(tmp_path, folder, caplog, how):
    bundle = save_bundle(tmp_path / "b")
    opened(bundle).close()
    (file,) = folder.iterdir()
    content = bytearray(file.read_bytes())
    if how == "a flipped bit":
        content[len(content) // 2] ^= 1
    elif how == "cut short":
        del content[-1:]
    else:
        other = save_bundle(tmp_path / "other", "auto")
        opened(other).close()
        (second,) = set(folder.iterdir()) - {file}
        content = bytearray(second.read_bytes())
    file.write_bytes(content)
    assert not was_kept(bundle)
    assert f"{file} is not as it was written" in caplog.text
    assert was_kept(bundle)


def test_what_the_library_refuses_is_compiled_again(tmp_path, folder, backend, monkeypatch):
    bundle = save_bundle(tmp_path / "b")
    with monkeypatch.context() as patch:
        keep = CompiledFile.keep
        patch.setattr(CompiledFile, "keep", lambda self, _: keep(self, b"of another version"))
        opened(bundle, backend).close()
    assert not was_kept(bundle, backend)
    assert was_kept(bundle, backend)


def test_a_cache_that_cannot_be_written_to_changes_nothing(tmp_path, folder, backend):
    bundle = save_bundle(tmp_path / "b")
    folder.parent.mkdir(parents=True)
    folder.write_text("no folder")
    for _ in range(2):
        assert not was_kept(bundle, backend)


def test_no_room_for_what_onnx_runtime_compiled_changes_nothing(tmp_path, folder, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    bundle = save_bundle(tmp_path / "b", "auto")
    monkeypatch.setattr(compiled_module, "temporary_file", full)
    with opened(bundle, "onnxruntime") as engine:
        outputs(engine)
    assert not was_kept(bundle, "onnxruntime")


def test_onnx_runtime_writes_beside_what_is_kept(tmp_path, folder, monkeypatch):
    """Not into a ``/tmp`` that may be small; what a killed process left there goes in time."""

    def refused(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    folder.mkdir(mode=0o700, parents=True)
    for seconds in (60.0, 7200.0):
        left = folder / f".{'a' * 64}.blob.{seconds:g}.tmp"
        left.write_bytes(b"half")
        os.utime(left, (time.time() - seconds, time.time() - seconds))
    monkeypatch.setattr(tempfile, "mkdtemp", refused)
    bundle = save_bundle(tmp_path / "b")
    opened(bundle, "onnxruntime").close()
    assert [path.suffixes for path in folder.glob(".*")] == [[".blob", ".60", ".tmp"]]
    assert was_kept(bundle, "onnxruntime")


def test_it_can_be_switched_off(tmp_path, folder, monkeypatch):
    bundle = save_bundle(tmp_path / "b")
    monkeypatch.setenv(VARIABLE, "no")
    for _ in range(2):
        assert not was_kept(bundle)
    assert not folder.exists()
    monkeypatch.setenv(VARIABLE, "off")
    with pytest.raises(SettingsError, match="none of keep, no"):
        opened(bundle)


def test_bytes_are_bounded_as_well(folder, monkeypatch, caplog):
    """Those not used for longest go; what came last stays, even behind a clock that was ahead."""
    files = [CompiledFile(str(number)) for number in range(4)]
    for number, file in enumerate(files[:3]):
        file.keep(bytes(1000))
        for path in folder.iterdir():
            age = path.stat().st_mtime + (86400.0 if number == 2 else -60.0)
            os.utime(path, (age, age))
    size = next(folder.iterdir()).stat().st_size
    monkeypatch.setattr(compiled_module, "MOST_BYTES", 3 * size - 1)
    files[3].keep(bytes(1000))
    assert [bool(file.read()) for file in files] == [False, False, True, True]
    caplog.set_level("INFO", logger="hvq_edge")
    files[0].keep(bytes(3 * size))
    assert f"it has {4 * size - 1000} bytes" in caplog.text
    assert [bool(file.read()) for file in files] == [False, False, True, True]


@pytest.mark.parametrize("what", ["a link to nowhere", "a folder", "gone meanwhile"])
def test_what_else_has_a_graphs_name_keeps_no_graph(folder, monkeypatch, caplog, what):
    folder.mkdir(mode=0o700, parents=True)
    planted = folder / "planted.blob"
    if what == "a link to nowhere":
        planted.symlink_to("nowhere")
    elif what == "a folder":
        planted.mkdir()
        os.utime(planted, (0, 0))
    else:
        glob = Path.glob
        monkeypatch.setattr(Path, "glob", lambda self, name: [planted, *glob(self, name)])
    caplog.set_level("INFO", logger="hvq_edge")
    for number in range(MOST_KEPT + 2):
        CompiledFile(str(number)).keep(b"compiled")
    assert sum(map(Path.is_file, folder.iterdir())) == MOST_KEPT
    assert "is not kept" not in caplog.text


def test_the_graphs_that_were_not_used_for_longest_go_first(folder):
    files = [CompiledFile(str(number)) for number in range(MOST_KEPT + 2)]
    for number, file in enumerate(files):
        file.keep(b"%d" % number)
        for path in folder.iterdir():
            age = path.stat().st_mtime - 60.0
            os.utime(path, (age, age))
        assert files[0].read(), "it was just used"
    kept = [number for number, file in enumerate(files) if file.read()]
    assert kept == [0, *range(3, MOST_KEPT + 2)]
