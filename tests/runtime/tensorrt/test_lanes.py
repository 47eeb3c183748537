"""Two batches on their way, CUDA graphs, and closing in the middle of it."""

from __future__ import annotations

import itertools
import threading
import tracemalloc

import numpy as np
import pytest
from helpers.gpu_stand_in import CudaBindings, LazyStream, PyCuda
from helpers.graphs import expected, frames, save_bundle
from helpers.patience import PATIENCE_SECONDS
from helpers.plans import gpu, opened, same, save_plan  # noqa: F401  # fixtures
from helpers.runtime_stand_in import add_runtime
from helpers.tensorrt_stand_in import tensorrt

from hvq_edge.errors import InputError
from hvq_edge.runtime.open_engine import open_engine
from hvq_edge.runtime.run_ahead import run_ahead

# Two batches on their way.


def test_the_next_batch_is_given_before_the_last_is_done(tmp_path, gpu):
    """Its frames may be reused at once, and results may be asked for in any order."""
    bundle = save_bundle(tmp_path / "b", "input")
    save_plan(bundle)
    batches = [frames(1 + i % 3, i) for i in range(7)]
    kinds = [np.full(len(batch), i % 3, np.int32) for i, batch in enumerate(batches)]
    with opened(bundle) as engine:
        promised = []
        for batch, kind in zip(batches, kinds, strict=True):
            given, category = batch.copy(), kind.copy()
            promised.append(engine.submit(given, category))
            given[:] = 0
            category[:] = 2
        for i in (6, 0, 3, 1, 5, 2, 4, 4):
            same(promised[i].result(), expected(batches[i], "input", kinds[i]))
    assert gpu.held.nothing


def test_nothing_is_computed_before_somebody_waits(tmp_path, gpu):
    """Else nothing could overlap: submit must not wait."""
    bundle = save_bundle(tmp_path / "b")
    save_plan(bundle)
    with opened(bundle) as engine:
        streams = [one for one in LazyStream.all.values() if one.put_so_far == 0]
        assert len(streams) == 3, "copies there, computing, copies back"
        engine.submit(frames(1))
        engine.submit(frames(1))
        assert all(one.put_so_far and not one.done for one in streams)


def test_run_and_submit_may_be_mixed(tmp_path, gpu):
    bundle = save_bundle(tmp_path / "b")
    save_plan(bundle)
    first, second, long = frames(1, 1), frames(2, 2), frames(19, 3)
    with opened(bundle) as engine:
        promised = engine.submit(first)
        same(engine.run(long), expected(long, "one"))
        other = engine.submit(second)
        same(promised.result(), expected(first, "one"))
        same(other.result(), expected(second, "one"))


def test_what_was_given_is_there_after_closing(tmp_path, gpu):
    bundle = save_bundle(tmp_path / "b")
    save_plan(bundle)
    given = frames(3)
    with opened(bundle) as engine:
        promised = engine.submit(given)
    assert gpu.held.nothing
    same(promised.result(), expected(given, "one"))
    with pytest.raises(InputError, match="closed"):
        engine.submit(given)


def test_running_ahead(tmp_path, gpu):
    bundle = save_bundle(tmp_path / "b")
    save_plan(bundle)
    batches = [frames(2, i) for i in range(5)]
    read = []
    with opened(bundle) as engine:
        outputs = run_ahead(engine, (read.append(i) or one for i, one in enumerate(batches)))
        same(next(outputs), expected(batches[0], "one"))
        assert read == [0, 1], "one ahead"
        for batch, output in zip(batches[1:], outputs, strict=True):
            same(output, expected(batch, "one"))
        assert list(run_ahead(engine, [])) == []


def test_running_ahead_with_an_engine_that_cannot(tmp_path):
    batches = [frames(2, i) for i in range(3)]
    with open_engine(save_bundle(tmp_path / "b"), backend="onnxruntime") as engine:
        for batch, output in zip(batches, run_ahead(engine, batches), strict=True):
            same(output, expected(batch, "one"))


# CUDA graphs.


def test_a_batch_size_that_comes_again_becomes_a_graph(tmp_path, gpu):
    bundle = save_bundle(tmp_path / "b")
    save_plan(bundle)
    library = add_runtime(tensorrt("10.3.0"))
    with opened(bundle, library=library) as engine:
        for seed in range(12):
            for batch in (1, 3):
                given = frames(batch, seed)
                same(engine.run(given), expected(given, "one"))
        if isinstance(gpu, PyCuda):
            assert not engine.uses_cuda_graphs, "PyCUDA has none"
            assert library.executions == 24
        else:
            assert engine.uses_cuda_graphs
            assert gpu.launches > 12
            assert library.executions < 24
    assert gpu.held.nothing


@pytest.mark.parametrize("fails", ["capture", "cuStreamEndCapture", "cuGraphInstantiate"])
def test_an_engine_that_cannot_be_captured_runs_all_the_same(tmp_path, monkeypatch, fails):
    gpu = CudaBindings("" if fails == "capture" else fails)
    gpu.install(monkeypatch)
    bundle = save_bundle(tmp_path / "b")
    save_plan(bundle)
    with opened(bundle, library=add_runtime(tensorrt("10.3.0"), fails=fails)) as engine:
        for seed in range(6):
            given = frames(2, seed)
            same(engine.run(given), expected(given, "one"))
        assert not engine.uses_cuda_graphs
    assert gpu.launches == 0


def test_graphs_can_be_left_out(tmp_path, gpu):
    bundle = save_bundle(tmp_path / "b")
    save_plan(bundle)
    with opened(bundle, cuda_graphs=False) as engine:
        for _ in range(6):
            engine.run(frames(1))
        assert not engine.uses_cuda_graphs
        assert gpu.held.graphs == 0


# Closing.


def test_nothing_is_held_after_10_000_frames(tmp_path, gpu):
    bundle = save_bundle(tmp_path / "b")
    save_plan(bundle)
    engine = opened(bundle)
    batch = frames(8)
    for _ in range(6):
        engine.run(batch)
    held = dict(vars(gpu.held))
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in run_ahead(engine, itertools.repeat(batch, 1250)):
            pass
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert vars(gpu.held) == held, "a run allocates nothing on the GPU, and no page-locked memory"
    assert after - before < 100_000
    engine.close()
    engine.close()
    assert gpu.held.nothing
    with pytest.raises(InputError, match="closed"):
        engine.run(frames(1))


def test_closing_in_another_thread(tmp_path, gpu):
    """PyCUDA by itself would keep the context: it lets go of it where it was opened."""
    bundle = save_bundle(tmp_path / "b")
    save_plan(bundle)
    engine = opened(bundle)
    thread = threading.Thread(target=engine.close)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    assert gpu.held.nothing, vars(gpu.held)


def test_closing_while_others_run(tmp_path, gpu):
    bundle = save_bundle(tmp_path / "b")
    save_plan(bundle)
    engine = opened(bundle)
    given = frames(4)
    wanted = expected(given, "one")
    began = threading.Barrier(5)
    faults = []

    def work():
        began.wait(PATIENCE_SECONDS)
        try:
            while True:
                same(engine.run(given), wanted)
        except InputError:
            pass
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    began.wait(PATIENCE_SECONDS)
    engine.close()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert faults == []
    assert gpu.held.nothing
