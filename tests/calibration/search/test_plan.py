"""INT8 plans: what is written is what is read, and what is wrong with one is said."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvq_edge.calibration.search.evidence import Effect
from hvq_edge.calibration.search.plan import (
    Budget,
    Plan,
    default_plan,
    plan_text,
    read_plan,
    write_plan,
)
from hvq_edge.errors import InputError

SHARE = st.floats(0, 1)
EFFECTS = st.builds(Effect, codes=SHARE, maps=SHARE, scores=SHARE, drop=st.floats(-50, 50))
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\0"))


@given(
    st.builds(
        Plan,
        made_by=st.sampled_from(["rule", "search", "hand"]),
        budget=st.none() | st.builds(Budget, max_drop=SHARE, min_code_agreement=SHARE),
        effect=st.none() | EFFECTS,
        float_layers=st.dictionaries(TEXT, TEXT, max_size=4),
    )
)
@settings(max_examples=60, deadline=None)
def test_any_plan_is_read_as_it_was_written(tmp_path_factory, plan):
    path = tmp_path_factory.getbasetemp() / "plan.toml"
    write_plan(path, plan)
    assert read_plan(path) == plan


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("format = ", "is not valid TOML"),
        ('made_by = "hand"\n', "float_layers: is missing"),
        ('made_by = "you"\nlayers = 3\n[float_layers]\n', "made_by: .*layers: unknown key"),
    ],
)
def test_what_is_wrong_with_a_plan_is_said_at_once(tmp_path, text, message):
    (tmp_path / "plan.toml").write_text(text)
    with pytest.raises(InputError, match=message) as refused:
        read_plan(tmp_path / "plan.toml")
    assert str(tmp_path / "plan.toml") in refused.value.cause
    if "TOML" not in message:
        assert re.match(r"compare it with the int8-plan\.toml that", refused.value.next_step)


def test_no_plan_there(tmp_path):
    with pytest.raises(InputError, match=r"^cannot read the INT8 plan .*No such file") as refused:
        read_plan(tmp_path / "plan.toml")
    assert "--plan" in refused.value.next_step


def test_a_plan_begins_with_what_it_is():
    lines = plan_text(Plan(made_by="rule", float_layers={})).splitlines()
    assert lines[0].startswith("# Which layers INT8 leaves in float, and why;")
    assert lines[1] == "# Edit it and use it again: hvq-edge export --int8 --plan THIS_FILE"
    assert lines[2:] == [
        'format = "hvq-edge-int8-plan/1"',
        'made_by = "rule"',
        "",
        "[float_layers]",
    ]


def test_a_plan_of_another_model():
    plan = Plan(made_by="hand", float_layers={"encoder.9.linear/MatMul": "mine"})
    with pytest.raises(InputError, match=r"does not have: encoder\.9\.linear/MatMul\.") as refused:
        plan.int8_layers(["encoder.0.linear/MatMul"])
    assert "use the plan of this very model, or export with --max-drop" in refused.value.next_step


@pytest.mark.parametrize(("count", "named"), [(5, "0, 1, 2, 3, 4."), (6, "0, 1, 2, 3, 4 ….")])
def test_of_many_unknown_layers_five_are_named(count, named):
    plan = Plan(made_by="hand", float_layers={str(i): "mine" for i in reversed(range(count))})
    with pytest.raises(InputError) as refused:
        plan.int8_layers([])
    assert refused.value.cause.endswith(f"does not have: {named}")


def test_the_usual_plan_says_why():
    layers = [
        "backbone.stem.conv/Conv",
        "backbone.blocks.9.depthwise.conv/Conv",
        "backbone.blocks.9.squeeze.reduce/Conv",
        "encoder.0.feedforward.linear1/MatMul",
    ]
    plan = default_plan(layers)
    assert plan.int8_layers(layers) == tuple(layers[2:])
    assert "early" in plan.float_layers[layers[0]]
    assert "depthwise" in plan.float_layers[layers[1]]
    assert "early" in plan_text(plan)
