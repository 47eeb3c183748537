"""The fastest engine is found by timing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("onnx")
from helpers.engine_bench import ALL, ORT8, ORT32, OV8, OV32, Bench

from hvq_edge.errors import BundleError, MissingCapability
from hvq_edge.runtime.choice.measured_choice import SAME_SPEED, Measurement


@pytest.mark.parametrize("winner", ALL)
def test_the_fastest_is_chosen_and_all_are_closed(winner):
    bench = Bench({one: 0.004 if one == winner else 0.010 for one in ALL})
    found = bench.measure()
    assert found.fastest() == winner
    assert found.milliseconds[winner] == pytest.approx(4)
    assert tuple(found.milliseconds) == ALL
    assert len(bench.opened) == 4
    assert not any(engine.open for engine in bench.opened)


def test_rounds_are_interleaved():
    """Both are timed before either is timed again: a busy moment must not hit one alone."""
    bench = Bench({OV32: 0.010, ORT32: 0.011})
    bench.measure()
    switches = sum(a != b for a, b in zip(bench.runs, bench.runs[1:], strict=False))
    assert switches >= 8
    assert bench.runs.count(OV32) == bench.runs.count(ORT32)


def test_a_clearly_slower_one_is_dropped_early():
    bench = Bench({OV32: 0.010, ORT32: 0.011, ORT8: 0.040})
    found = bench.measure()
    assert bench.runs.count(ORT8) < bench.runs.count(OV32) / 2
    assert found.milliseconds[ORT8] == pytest.approx(40)


def test_one_disturbance_puts_nobody_out():
    """The machine is busy in the second timed run of the faster engine."""
    hits = iter(range(100))
    bench = Bench({OV32: lambda _: 0.200 if next(hits) == 4 else 0.006, ORT32: 0.008})
    assert bench.measure().fastest() == OV32
    assert bench.runs.count(OV32) > 10


def test_threads_that_spin_after_their_call_take_nothing_from_the_next_one():
    """ONNX Runtime's do so for 40 ms, and who comes next takes half as long again meanwhile."""
    ended = {}

    def waiting(_: int) -> float:
        ended["at"] = bench.now + 0.008
        return 0.008

    bench = Bench(
        {ORT32: waiting, OV32: lambda _: 0.010 if bench.now < ended["at"] + 0.04 else 0.006}
    )
    found = bench.measure()
    assert found.fastest() == OV32
    assert found.milliseconds[OV32] == pytest.approx(6)


@pytest.mark.parametrize("seconds", [0.001, 0.05, 0.3])
def test_the_time_limit_holds(seconds):
    bench = Bench(dict.fromkeys(ALL, seconds))
    bench.measure(time_limit=0.5)
    warm_up, round_ = 2 * 4 * seconds, 3 * 4 * seconds
    assert bench.now - 100 <= warm_up + max(4 * 0.5, round_) + 1e-9
    assert all(bench.runs.count(one) >= 5 for one in ALL)


def test_a_graph_with_category_input_is_given_one():
    assert Bench({OV32: 0.01}, mode="input").measure().fastest() == OV32


@pytest.mark.parametrize("when", ["opening", "running"])
def test_one_that_fails_is_left_out_and_named(when):
    error = BundleError("OpenVINO cannot load it.\nmore", next_step="export again")
    if when == "opening":
        bench = Bench(dict.fromkeys(ALL, 0.01), refuse={OV32: error})
    else:
        bench = Bench({**dict.fromkeys(ALL, 0.01), OV32: error})
    found = bench.measure()
    assert found.fastest() == ORT32
    assert str(found).endswith("; fp32 on openvino failed: OpenVINO cannot load it")
    assert not any(engine.open for engine in bench.opened)


def test_an_error_of_any_library_is_a_failure():
    bench = Bench({OV32: 0.01, ORT32: ZeroDivisionError()})
    assert str(bench.measure()).endswith("; fp32 on onnxruntime failed: ZeroDivisionError")


def test_when_all_fail_the_first_error_is_raised():
    first = MissingCapability("OpenVINO cannot be imported.")
    bench = Bench({OV32: 0, ORT32: RuntimeError("second")}, refuse={OV32: first})
    with pytest.raises(MissingCapability) as caught:
        bench.measure()
    assert caught.value is first


def test_ctrl_c_is_no_failure_of_an_engine():
    bench = Bench({OV32: 0.01}, refuse={OV32: KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        bench.measure()


@given(st.lists(st.floats(0.1, 1000), min_size=1, max_size=4))
def test_nobody_beats_the_choice_by_more_than_the_margin(times):
    found = Measurement(dict(zip(ALL, times, strict=False)))
    chosen = found.fastest()
    assert found.milliseconds[chosen] <= SAME_SPEED * min(times)
    before = list(found.milliseconds)[: list(found.milliseconds).index(chosen)]
    assert all(found.milliseconds[one] > SAME_SPEED * min(times) for one in before)


def test_the_sentence_names_the_fastest_first():
    assert str(Measurement({OV32: 9.84, ORT32: 14.2, OV8: 6.06})) == (
        "int8 on openvino: 6.1 ms an image, fp32 on openvino 9.8, fp32 on onnxruntime 14.2 "
        "(measured on this machine)"
    )
