"""An engine that computes wrongly judges nothing: it is held against known answers first."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from helpers.engine_bench import ALL, ORT8, ORT32, OV8, OV32, both, cache, plant  # noqa: F401  # fixtures
from helpers.graphs import CATEGORIES, expected, frames, save_bundle
from helpers.images import write_png
from helpers.known_answers import TOLERANCE, answers_of, compute_wrongly, give_answers, take_in

from hvq_edge.cli.app import main
from hvq_edge.errors import GateFailed
from hvq_edge.evaluation.evaluate_target import evaluate_target
from hvq_edge.runtime.choice import open_candidate
from hvq_edge.runtime.engine import EngineInfo
from hvq_edge.runtime.engine_check import check_engine_here, checked
from hvq_edge.runtime.known_answers import read_known_answers
from hvq_edge.runtime.open_engine import choose, open_engine
from hvq_edge.stream.inspection import inspect, open_stream_engine

MODES = ("one", "input", "auto")


class Counting:
    """A right engine, or one that is wrong as planted, that counts what it is shown."""

    def __init__(self, bundle, precision="fp32", *, backend="fake", wrong=None):
        manifest = bundle.manifest
        self.info = EngineInfo(
            backend,
            precision,
            f"{backend} 1.0",
            manifest.frame_shape,
            manifest.categories,
            manifest.category_mode,
        )
        self._wrong = wrong or {}
        self.shown = 0
        self.closed = False

    def run(self, images, category=None):
        assert (category is not None) == (self.info.category_mode == "input")
        self.shown += len(images)
        known = expected(images, self.info.category_mode, category)
        kinds = {"codes": np.int32, "category": np.int32}
        output = {name: one.astype(kinds.get(name, np.float32)) for name, one in known.items()}
        for name, change in self._wrong.items():
            output[name] = change(output[name]).astype(output[name].dtype)
        return output

    def close(self):
        self.closed = True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


@pytest.mark.parametrize("mode", MODES)
def test_a_right_engine_is_tried_once_on_a_machine(tmp_path, cache, mode):
    bundle = give_answers(save_bundle(tmp_path / "b", mode))
    first = Counting(bundle)
    assert checked(first, bundle) is first
    assert first.shown == len(read_known_answers(bundle).frames)
    again = Counting(bundle)
    assert checked(again, bundle).shown == 0
    (kept,) = (cache.parent / "engine-checks").iterdir()
    kept.write_text("{")
    assert checked(Counting(bundle), bundle).shown > 0


@pytest.mark.parametrize("changed", ["device", "precision", "plan_sha256", "answers", "graph"])
def test_another_engine_version_machine_or_graph_is_tried_anew(tmp_path, cache, changed):
    bundle = give_answers(save_bundle(tmp_path / "b", precisions=("fp32", "int8")))
    checked(Counting(bundle), bundle)
    other = Counting(bundle)
    if changed == "answers":
        answers = answers_of(bundle, tolerance=replace(TOLERANCE, score=0.02))
        bundle = give_answers(bundle, answers)
    elif changed == "graph":  # of the same numbers
        path = bundle.path / "model.fp32.onnx"
        path.write_bytes(path.read_bytes() + b"\x7a\x00")
        bundle = take_in(bundle, path.name)
    else:
        other.info = replace(other.info, **{changed: "int8"})
    assert checked(other, bundle).shown > 0


WRONG = {
    "codes": {"codes": lambda codes: np.where(np.arange(codes.shape[2]) < 1, codes + 1, codes)},
    "map": {"map": lambda heat: heat * 1.02},
    "score": {"score": lambda score: score + 0.02},
    "margin": {"margin": lambda margin: margin - 0.02},
    "not finite": {"score": lambda score: score * np.nan},
    "no number in the map": {"map": lambda heat: heat * np.nan},
    "margin is no number": {"margin": lambda margin: margin * np.nan},
    "another category": {"category": lambda category: (category + 1) % len(CATEGORIES)},
    "codes of another size": {"codes": lambda codes: codes[:, :1]},
}


@pytest.mark.parametrize("how", WRONG)
def test_each_output_is_held_to_its_known_value(tmp_path, cache, how):
    bundle = give_answers(save_bundle(tmp_path / "b", "auto"))
    for _ in range(2):  # what failed is tried again each time it is asked for
        engine = Counting(bundle, wrong=WRONG[how])
        with pytest.raises(
            GateFailed, match="fp32 on fake computes wrongly on 3 known im"
        ) as found:
            checked(engine, bundle)
        assert engine.shown == 3
        assert engine.closed
        assert f"doctor --bundle {bundle.path}" in found.value.next_step
    assert checked(Counting(bundle), bundle).shown == 3, "a repaired library is right at once"


def test_a_difference_within_its_tolerance_passes(tmp_path, cache):
    bundle = give_answers(save_bundle(tmp_path / "b", "auto"))
    small = {"map": lambda heat: heat * 1.005, "score": lambda score: score + 0.005}
    check = check_engine_here(Counting(bundle, wrong=small), bundle)
    assert not check.faults
    assert check.map == pytest.approx(0.005, rel=1e-3)
    assert check.score == pytest.approx(0.005, rel=1e-2)
    assert str(check).startswith("right on 3 known images: 100.0% of codes equal")


def test_nothing_is_kept_of_a_server(tmp_path, cache):
    bundle = give_answers(save_bundle(tmp_path / "b"))
    for _ in range(2):
        assert checked(Counting(bundle, backend="triton"), bundle).shown == 3


def test_a_machine_without_a_cache_tries_each_time(tmp_path, cache):
    bundle = give_answers(save_bundle(tmp_path / "b"))
    cache.parent.mkdir(parents=True)
    (cache.parent / "engine-checks").write_text("no folder")
    for _ in range(2):
        assert checked(Counting(bundle), bundle).shown == 3


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_wrong_engine_that_was_named_is_an_error(tmp_path, cache, backend, capsys):
    pytest.importorskip(backend)
    bundle = give_answers(save_bundle(tmp_path / "b"))
    with closing(open_engine(bundle, backend=backend)):
        pass
    wrong = compute_wrongly(bundle, factor=1.1)
    for opening in (open_engine, open_stream_engine):
        with pytest.raises(GateFailed, match=f"fp32 on {backend} computes wrongly"):
            opening(wrong, backend=backend)
    arguments = ["stream", "--bundle", str(wrong.path), "--camera", str(tmp_path), "--no-display"]
    with pytest.raises(SystemExit) as exit_:
        main(
            [*arguments, "--backend", backend, "--precision", "fp32", "--out", str(tmp_path / "o")]
        )
    assert exit_.value.code == 1
    error = capsys.readouterr().err
    assert f"Error: fp32 on {backend} computes wrongly on 3 known images: the map is off" in error
    assert "Traceback" not in error


def test_auto_never_takes_a_wrong_engine(plant, cache, both, monkeypatch):
    """The fastest computes wrongly: it is left out, and said; the times are kept all the same."""
    bench = plant(delays={OV32: 0.010, ORT32: 0.020, OV8: 0.001, ORT8: 0.030})
    bundle = give_answers(both)
    opened = []

    def open_graph(_, candidate, *__):
        fake = bench.open(candidate)
        wrong = {"codes": lambda codes: codes + 1} if candidate == OV8 else None
        engine = Counting(bundle, candidate.precision, backend=candidate.backend, wrong=wrong)
        judge = engine.run

        def run(images, category=None):
            fake.run(images, category)
            return judge(images, category)

        engine.run = run
        opened.append(candidate)
        return engine

    monkeypatch.setattr(open_candidate, "open_graph", open_graph)
    choice = choose(bundle)
    assert (choice.backend, choice.precision) == ("openvino", "fp32")
    assert "int8 on openvino failed: int8 on openvino computes wrongly on 3 known" in choice.reason
    assert len(opened) == 4
    assert choose(bundle) == choice
    assert len(opened) == 4, "measured again"
    with pytest.raises(GateFailed, match=r"0\.0% of codes are equal, right are 98\.0%"):
        open_engine(bundle, precision="int8", backend="openvino")
    with open_engine(bundle) as engine:
        assert engine.info.precision == "fp32"


def test_with_no_right_engine_there_is_none(tmp_path, cache):
    bundle = compute_wrongly(give_answers(save_bundle(tmp_path / "b")))
    with pytest.raises(GateFailed, match="computes wrongly"):
        open_engine(bundle)
    with open_engine(bundle, backend="onnxruntime", unchecked=True) as engine:
        assert np.isfinite(engine.run(frames(1))["score"]).all()


def test_a_bundle_without_known_answers_runs_and_that_is_said_once(plant, cache, both, caplog):
    """Of the engine that judges, not of those that were timed to choose it."""
    plant(delays={OV32: 0.010, ORT32: 0.020, OV8: 0.030, ORT8: 0.040})
    assert check_engine_here(Counting(both), both) is None
    with closing(open_engine(both)):
        pass
    (said,) = caplog.messages
    assert said == (
        f"whether fp32 on openvino computes rightly here is not known, because the bundle "
        f"{both.path} has no known answers: run hvq-edge export again, which learns them"
    )


@pytest.mark.parametrize(
    "judge",
    [
        lambda bundle, _: open_stream_engine(bundle).close(),
        lambda bundle, images: next(inspect(bundle, images)),
        lambda bundle, images: evaluate_target(bundle.path, data=images.parent),
    ],
    ids=["stream", "inspect", "eval"],
)
def test_whoever_judges_without_known_answers_says_so(tmp_path, cache, caplog, judge):
    bundle = save_bundle(tmp_path / "b")
    good = tmp_path / "bolt" / "good"
    for name in ("bolt/good", "bolt/scratch"):
        (tmp_path / name).mkdir(parents=True)
        for number, image in enumerate(frames(3)):
            write_png(tmp_path / name / f"{number}.png", image)
    judge(bundle, good)
    said = [one for one in caplog.messages if "known answers" in one]
    assert len(said) == 1
    assert f"the bundle {bundle.path} has no known answers" in said[0]
    caplog.clear()
    judge(give_answers(bundle), good)
    assert not [one for one in caplog.messages if "known answers" in one]


@pytest.mark.parametrize("precision", ["auto", "fp32", "int8"])
def test_known_answers_that_lack_a_model_are_damaged(tmp_path, cache, precision):
    """Else an engine of that model would judge without anybody having looked at it."""
    bundle = save_bundle(tmp_path / "b", precisions=("fp32", "int8"))
    answers = answers_of(bundle)
    some = replace(answers, precisions={"fp32": answers.precisions["fp32"]})
    bundle = give_answers(bundle, some)
    with pytest.raises(GateFailed, match="holds no known answers: it has no answer at int8"):
        open_engine(bundle, precision=precision)
