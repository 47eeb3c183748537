"""The file of known answers: what is written is read, and what tells nothing is refused."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from helpers.graphs import save_bundle
from helpers.known_answers import answers_of, give_answers, take_in

from hvq_edge.errors import GateFailed
from hvq_edge.runtime.known_answers import ANSWERS_NAME, MOST_UNPACKED, read_known_answers


@pytest.mark.parametrize("mode", ["one", "input", "auto"])
def test_what_is_written_is_read(tmp_path, mode):
    bundle = save_bundle(tmp_path / "b", mode, precisions=("fp32", "int8"))
    answers = answers_of(bundle)
    found = read_known_answers(give_answers(bundle, answers))
    np.testing.assert_array_equal(found.frames, answers.frames)
    assert set(found.precisions) == {"fp32", "int8"}
    for name, one in found.precisions.items():
        assert one.tolerance == answers.precisions[name].tolerance
        for part in ("category", "score", "map", "codes", "margin"):
            np.testing.assert_array_equal(
                getattr(one, part), getattr(answers.precisions[name], part)
            )


def member(array) -> bytes:
    content = io.BytesIO()
    np.save(content, array, allow_pickle=True)
    return content.getvalue()


def header(shape: str) -> bytes:
    """A member that says it is large, and is not."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


BAD = {
    "frames.npy": {
        "no array": b"no array",
        "an object": member(np.array([{}], dtype=object)),
        "of another size": member(np.zeros((1, 8, 8, 3), np.uint8)),
        "larger than it is": header("(99999999999, 64, 64, 3)"),
        "no images": member(np.zeros((0, 64, 64, 3), np.uint8)),
        "one number": member(np.uint8(3)),
    },
    "category.npy": {"no category": member(np.array([0, 1, 7], np.int32))},
    "fp32.score.npy": {"NaN": member(np.full(3, np.nan, np.float32))},
    "fp32.tolerance.npy": {
        "NaN": member(np.full(4, np.nan)),
        "infinite": member(np.full(4, np.inf)),
        "short": member(np.ones(2)),
        "below zero": member(np.full(4, -0.01)),
        "of any code": member(np.array([1.0, 0.01, 0.01, 0.01])),
        "of a whole map": member(np.array([0.01, 1.0, 0.01, 0.01])),
        "of any score": member(np.array([0.01, 0.01, 1e30, 0.01])),
        "of any margin": member(np.array([0.01, 0.01, 0.01, 1.0])),
    },
    "format.npy": {"of a later version": member(np.array("hvq-edge-known-answers/9"))},
}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param(name, content, id=f"{name} {how}")
        for name, ways in BAD.items()
        for how, content in ways.items()
    ],
)
def test_a_file_that_tells_nothing_is_refused(tmp_path, name, content):
    bundle = give_answers(save_bundle(tmp_path / "b"))
    path = bundle.path / ANSWERS_NAME
    with zipfile.ZipFile(path) as archive:
        members = {one: archive.read(one) for one in archive.namelist()}
    assert name in members
    with zipfile.ZipFile(path, "w") as archive:
        for one, kept in {**members, name: content}.items():
            archive.writestr(one, kept)
    with pytest.raises(GateFailed, match="holds no known answers"):
        read_known_answers(take_in(bundle, ANSWERS_NAME))


def test_answers_without_a_margin_are_none_where_the_graph_chooses(tmp_path):
    bundle = save_bundle(tmp_path / "b", "auto")
    with pytest.raises(GateFailed, match=r"it lacks 'fp32\.margin'"):
        read_known_answers(give_answers(bundle, answers_of(bundle, margin=None)))


@pytest.mark.parametrize("lies", [False, True])
def test_a_small_file_that_unpacks_to_a_large_one_is_refused(tmp_path, lies, monkeypatch):
    """Before it is unpacked, and whatever its directory says of its size."""
    import tracemalloc

    bundle = give_answers(save_bundle(tmp_path / "b"))
    path = bundle.path / ANSWERS_NAME
    size = MOST_UNPACKED + 1
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("frames.npy", bytes(size))
    content = path.read_bytes()
    assert len(content) < size / 500
    if lies:
        path.write_bytes(content.replace(size.to_bytes(4, "little"), (99).to_bytes(4, "little")))
    bundle = take_in(bundle, ANSWERS_NAME)
    said = "holds no known answers: " + ("" if lies else f"it unpacks to {size} bytes, more than")
    tracemalloc.start()
    try:
        with pytest.raises(GateFailed, match=said):
            read_known_answers(bundle)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < size / 8


def test_any_cut_of_the_file_is_refused(tmp_path):
    bundle = give_answers(save_bundle(tmp_path / "b"))
    path = bundle.path / ANSWERS_NAME
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    said = []
    for _ in range(60):
        content = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            content[place] = int(rng.integers(0, 256))
        path.write_bytes(bytes(content[: rng.integers(1, len(whole) + 1)]))
        try:
            read_known_answers(take_in(bundle, ANSWERS_NAME))
        except GateFailed as error:
            said.append(error.cause)
    assert len(said) > 50
    assert all(str(path) in one for one in said)
