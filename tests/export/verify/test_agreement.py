"""When outputs agree: each limit, ties, decisions that change, and what is not finite."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.agreements import compare_one, decision, outputs
from helpers.paths import ROOT

from hvq_edge.export.verify.agreement import LIMITS, compare


def test_equal_outputs_agree():
    found = compare_one(outputs(0))
    assert found.passed
    assert found.map_error == 0
    assert found.code_agreement == (1.0, 1.0)


def test_each_limit_is_held():
    same = outputs(0)
    assert "map error" in compare_one({**same, "map": same["map"] + 0.1}).faults[0]
    codes = same["codes"].copy()
    codes[0, 1, :3] += 1
    found = compare_one({**same, "codes": codes})
    assert found.code_agreement == (1.0, 13 / 16)
    assert any("code agreement" in fault for fault in found.faults)
    found = compare_one(same, [("a", False, True), ("b", True, True)])
    assert found.decisions_changed == ("a",)
    assert any("decisions changed 50.0%" in fault for fault in found.faults)
    broken = same["map"].copy()
    broken[0, 0, 0] = np.nan
    assert "not finite" in compare_one({**same, "map": broken}).faults[0]


def test_a_flipped_tie_counts_as_a_code_and_not_as_a_map_error():
    """Two images; in the second one token takes the other of two equally near codes."""
    first, second = outputs(0), outputs(1)
    codes = second["codes"].copy()
    codes[0, 0, 0] += 1
    flipped = {**second, "codes": codes, "map": second["map"] + 0.05}
    decisions = [decision("a", False, False), decision("b", False, False)]
    found = compare([first, second], [first, flipped], decisions, "fp32", "test")
    assert found.map_error == 0
    assert found.code_agreement[0] == 31 / 32


@pytest.mark.parametrize(("flipped", "passes"), [(5, True), (6, False)])
def test_a_category_fails_where_chance_does_not_explain_it(flipped, passes):
    verdicts = [(f"nut{i}", False, False, "nut") for i in range(100)]
    verdicts += [(f"screw{i}", False, i < flipped, "screw") for i in range(48)]
    assert compare_one(outputs(0), verdicts, "int8").passed is passes
    assert not compare_one(outputs(0), verdicts, "fp32").passed, "there none may change"


def test_the_decision_gate_goes_category_by_category():
    """Few flips over all, but most of the screws': the share of all would hide it."""
    verdicts = [(f"nut{i}", False, False, "nut") for i in range(90)]
    verdicts += [(f"screw{i}", False, i < 3, "screw") for i in range(10)]
    found = compare_one(outputs(0), verdicts, "int8")
    assert found.faults == ("decisions changed on screw 30.0% > 5.0%",)
    (nut, screw) = found.decisions
    assert (nut.images, nut.changed) == (90, ())
    assert [one.image for one in screw.changed] == ["screw0", "screw1", "screw2"]
    assert screw.changed[0].other.verdict == "reject"
    assert screw.changed[0].reference.verdict == "pass"
    assert (screw.good_verdicts.rejected, screw.good_verdicts.passed) == (3, 7)
    one_flip = [*verdicts[:90], ("screw", False, True, "screw")]
    assert compare_one(outputs(0), one_flip, "int8").passed, "one of one says nothing yet"
    strict = LIMITS["int8"].model_copy(update={"decisions_changed": 0.0})
    assert len(compare_one(outputs(0), one_flip, "int8", limits=strict).faults) == 2


def test_a_graph_without_margin_is_compared():
    found = compare([{**outputs(0), "margin": np.full(1, np.inf)}], [outputs(0)], [], "fp32", "x")
    assert found.margin_error_max is None
    with_margin = {**outputs(0), "margin": np.ones(1)}
    found = compare([with_margin], [{**with_margin, "margin": np.zeros(1)}], [], "fp32", "x")
    assert found.margin_error_max == 1.0


def test_what_is_not_finite_is_written_and_read():
    broken = {**outputs(0), "score": np.full(1, np.nan)}
    found = compare_one(broken)
    assert not found.passed
    again = type(found).model_validate_json(found.model_dump_json())
    assert np.isnan(again.score_error_max)


def test_float_limits_are_narrower_than_int8s():
    assert LIMITS["fp32"].code_agreement > LIMITS["int8"].code_agreement
    assert LIMITS["fp32"].decisions_changed == 0


def test_the_documented_limits_are_the_limits():
    text = (ROOT / "docs/how-to/verify.md").read_text(encoding="utf-8")
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    columns = list(zip(*[[cell.strip() for cell in row[1:]] for row in rows], strict=True))
    documented = {heading: values for heading, *values in columns}

    def number(cell: str) -> float:
        return float(cell.removesuffix(" %")) / (100 if cell.endswith("%") else 1)

    for heading, precision in (("float32", "fp32"), ("reduced precision", "int8")):
        limits = LIMITS[precision].model_dump().values()
        assert [number(cell) for cell in documented[heading]] == pytest.approx(list(limits))
