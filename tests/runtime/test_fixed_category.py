"""Engines that tell a graph what it sees: one category for good, or one that may be chosen."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from helpers.graphs import CATEGORIES, expected, frames, save_bundle
from helpers.patience import PATIENCE_SECONDS
from helpers.plans import opened, same, save_plan

from hvq_edge.errors import InputError, SettingsError
from hvq_edge.runtime.fixed_category import ChosenCategoryEngine, FixedCategoryEngine
from hvq_edge.runtime.open_engine import open_engine
from hvq_edge.runtime.run_ahead import run_ahead
from hvq_edge.stream.inspection import inspect, open_stream_engine
from hvq_edge.stream.inspector import Inspector
from hvq_edge.stream.sources.source import arrived


def as_category(batch, index):
    return expected(batch, "input", np.full(len(batch), index))


@pytest.fixture
def gpu_engine(tmp_path, monkeypatch):
    """An engine that takes batches ahead, on a stand-in of the GPU."""
    from helpers.gpu_stand_in import PyCuda

    PyCuda().install(monkeypatch)
    bundle = save_bundle(tmp_path / "gpu", "input")
    save_plan(bundle)
    with opened(bundle) as engine:
        yield engine


@pytest.mark.parametrize("ahead", [True, False])
def test_a_batch_ahead_is_of_the_same_category(tmp_path, gpu_engine, ahead):
    beneath = gpu_engine if ahead else open_engine(save_bundle(tmp_path / "b", "input"))
    batches = [frames(2, seed) for seed in range(4)]
    with FixedCategoryEngine(beneath, 2) as engine:
        outputs = list(run_ahead(engine, batches))
        for batch, output in zip(batches, outputs, strict=True):
            same(output, {**as_category(batch, 2), "category": np.zeros(2)})
        with pytest.raises(InputError, match="a category was given"):
            engine.submit(batches[0], np.zeros(2, np.int32))
    with pytest.raises(InputError, match="closed"):
        engine.submit(batches[0])


@pytest.mark.parametrize("ahead", [True, False])
def test_running_ahead_with_a_category(tmp_path, gpu_engine, ahead):
    engine = gpu_engine if ahead else open_engine(save_bundle(tmp_path / "b", "input"))
    batches = [frames(size, size) for size in (3, 1)]
    for batch, output in zip(batches, run_ahead(engine, batches, 1), strict=True):
        same(output, as_category(batch, 1))
    with pytest.raises(InputError, match="needs the category"):
        list(run_ahead(engine, batches))
    engine.close()


def test_a_category_chosen_later_is_that_of_later_batches(gpu_engine):
    batch = frames(2)
    engine = ChosenCategoryEngine(gpu_engine, "nut")
    assert (engine.chosen, engine.info.categories) == ("nut", CATEGORIES)
    assert engine.info.category_mode == "auto", "whoever runs it gives none"
    same(engine.run(batch), as_category(batch, 1))
    on_its_way = engine.submit(batch)
    engine.choose("bolt")
    assert engine.chosen == "bolt"
    same(engine.run(batch), as_category(batch, 0))
    same(on_its_way.result(), as_category(batch, 1))
    with pytest.raises(InputError, match="no category 'screw'; it has bolt, nut, washer plate"):
        engine.choose("screw")
    same(engine.run(batch), as_category(batch, 0))
    with pytest.raises(InputError, match="no category 'screw'"):
        ChosenCategoryEngine(gpu_engine, "screw")


def test_choosing_while_others_run(tmp_path):
    """A result's category, scores and map always belong together."""
    batch = frames(1)
    faults, stop = [], threading.Event()
    with open_stream_engine(save_bundle(tmp_path / "b", "input"), category="nut") as engine:

        def camera():
            try:
                while not stop.is_set():
                    output = engine.run(batch)
                    same(output, as_category(batch, int(output["category"][0])))
            except BaseException as error:
                faults.append(error)

        threads = [threading.Thread(target=camera) for _ in range(2)]
        for thread in threads:
            thread.start()
        for i in range(300):
            engine.choose(CATEGORIES[i % len(CATEGORIES)])
        stop.set()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
    assert faults == []


class Images:
    """A source of three frames, which has a category chosen between them."""

    name, live, frames_per_second = "images", False, None

    def __init__(self, between):
        self._between = between

    def __iter__(self):
        for index in range(3):
            yield arrived(index, frames(1, index)[0])
            self._between(index)

    def close(self):
        pass


def test_decisions_name_the_category_of_their_time(tmp_path):
    bundle = save_bundle(tmp_path / "b", "input")
    with open_stream_engine(bundle, category="nut") as engine:
        judged = threading.Event()

        def between(index):
            assert judged.wait(PATIENCE_SECONDS)
            judged.clear()
            engine.choose(CATEGORIES[(index + 2) % 3])

        seen = []
        with Inspector(engine, bundle, Images(between)) as inspector:
            for decision in inspector:
                seen.append(decision.category)
                judged.set()
    assert seen == ["nut", "washer plate", "bolt"]


def test_a_stream_of_a_bundle_that_must_be_told(tmp_path):
    told = save_bundle(tmp_path / "told", "input")
    with pytest.raises(InputError, match="must be told the category") as caught:
        open_stream_engine(told)
    assert "bolt, nut, washer plate" in caught.value.next_step
    for category, bundle, said in (
        ("screw", told, "no category 'screw'"),
        ("nut", save_bundle(tmp_path / "auto", "auto"), "chooses the category itself"),
    ):
        for server in (None, "grpc://nobody:9"):  # known before anything is loaded or asked
            with pytest.raises(Exception, match=said):
                open_stream_engine(bundle, category=category, server=server)
    one = save_bundle(tmp_path / "one")
    with open_stream_engine(one, category="bolt") as engine:
        assert not isinstance(engine, ChosenCategoryEngine), "there is nothing to choose"
    with pytest.raises(SettingsError, match="the server grpc://nobody:9 has its own"):
        open_stream_engine(one, backend="openvino", server="grpc://nobody:9")
    with pytest.raises(InputError, match="must be told"):
        inspect(told, tmp_path)
