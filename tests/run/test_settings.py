"""Presets and settings: merged in order, checked as a whole, every fault at once."""

import json
import re
from contextlib import suppress

import pytest
from helpers.paths import ROOT
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from hvq_edge.errors import SettingsError
from hvq_edge.run.settings import ModelSettings, Settings, TrainingSettings, load_settings

# Merging.


def test_the_paper_preset_is_what_the_paper_ran():
    model, training = (paper := load_settings("paper")).model, paper.training
    assert paper.preset == "paper"
    assert (model.backbone, model.input_side, model.padding_side) == ("efficientnet_b4", 224, 380)
    assert (model.width, model.layers, model.codes, model.grid) == (256, 4, 512, 14)
    assert (model.transport_weight, model.map_scale) == (80.0, "published")
    assert (model.normalise_tokens, model.whiten_distance, model.prototypes) == (False, False, 0)
    assert (model.tap_resize, model.image_level) == ("bilinear", "kept")
    assert (training.autocast, training.patience) == ("off", 0)
    assert (training.epochs, training.learning_rate, training.codebook_decay) == (1000, 1e-4, 0.99)


@pytest.mark.parametrize("preset", ["paper", "paper-ot", "edge", "tiny"])
def test_each_preset_stands_alone(preset):
    assert load_settings(preset).preset == preset


def test_flags_win_over_the_file_and_the_file_over_the_preset(tmp_path):
    file = tmp_path / "settings é.toml"
    file.write_text("[model]\nwidth = 96\nheads = 4\n[training]\nepochs = 7\n", encoding="utf-8")
    got = load_settings("tiny", file, model={"heads": 8}, training={"epochs": None})
    assert (got.model.width, got.model.heads) == (96, 8)  # file, flag
    assert got.model.layers == load_settings("tiny").model.layers  # preset
    assert got.training.epochs == 7  # a flag that was not given changes nothing


def test_settings_cannot_be_changed_behind_the_record():
    with pytest.raises(ValidationError):
        load_settings("edge").model.width = 1  # type: ignore[misc]


# Faults.


def test_every_fault_is_reported_at_once(tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text(
        "modle = 1\n[model]\ncodes = 5000\nwidht = 64\ninput_side = 225\n"
        "[training]\nheld_out = 2.0\n"
    )
    with pytest.raises(SettingsError) as caught:
        load_settings("huge", file, training={"epochs": 0})
    cause = caught.value.cause
    keys = ("preset", "modle", "model.codes", "model.widht", "model.input_side")
    for key in (*keys, "training.held_out", "training.epochs"):
        assert cause.count(f"\n  - {key}: ") == 1, cause
    assert cause.startswith(f"7 settings are wrong in {file}:")
    assert "(given: 5000)" in cause
    assert "docs/reference/settings.md" in caught.value.next_step


@pytest.mark.parametrize(
    ("table", "key"), [("model", "transport_levels"), ("training", "transport_loss_levels")]
)
def test_numbers_for_levels_are_one_for_each(table, key, tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text(f"[{table}]\n{key} = [1.0, 0, 0.5]\n")
    found = getattr(getattr(load_settings("tiny", file), table), key)
    assert found == (1.0, 0.0, 0.5)  # a tuple: it cannot be changed behind the record
    for wrong, said in (
        ("[1.0]", f"{key} has 1 numbers for 3 levels"),
        ("[1.0, -1.0, 1.0]", f"{table}.{key}.1: must be greater than or equal to 0"),
        ('[1.0, "x", 1.0]', f"{table}.{key}.1: must be a valid number"),
        ("1.0", f"{table}.{key}: must be a valid tuple"),
    ):
        file.write_text(f"[{table}]\n{key} = {wrong}\n")
        with pytest.raises(SettingsError, match=re.escape(said)):
            load_settings("tiny", file)


def test_codes_that_also_learn_by_gradient_need_a_loss_that_has_one():
    with pytest.raises(SettingsError, match='codebook_learning "both" needs a transport loss'):
        load_settings("tiny", training={"codebook_learning": "both"})
    given_ = {"codebook_learning": "both", "entropic_transport_weight": 0.1}
    assert load_settings("tiny", training=given_).training.codebook_learning == "both"


def test_sizes_that_do_not_fit_each_other():
    with pytest.raises(SettingsError, match="width 100 must be even and a multiple of heads 8"):
        load_settings("edge", model={"width": 100})


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ("training", "epochs = true"),
        ("training", "epochs = 3.5"),
        ("training", "learning_rate = inf"),
        ("training", "learning_rate = nan"),
        ("training", 'schedule = "cosin"'),
        ("model", 'width = "128"'),
        ("model", 'standardise_features = "yes"'),
        ("model", "transport_weight = inf"),
    ],
)
def test_nothing_is_guessed(tmp_path, table, line):
    file = tmp_path / "settings.toml"
    file.write_text(f"[{table}]\n{line}\n")
    with pytest.raises(SettingsError, match=f"- {table}.{line.split()[0]}: "):
        load_settings("edge", file)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"model = 3", "model: must be a table"),
        (b"[model\nwidth = 3", "is not valid TOML"),
        (b"\xff\xfe", "is not valid TOML"),
        (b"", None),
    ],
)
def test_files_that_are_not_settings(tmp_path, content, said):
    file = tmp_path / "settings.toml"
    file.write_bytes(content)
    if said is None:
        assert load_settings("edge", file) == load_settings("edge")
    else:
        with pytest.raises(SettingsError, match=said):
            load_settings("edge", file)


@pytest.mark.parametrize("name", ["absent.toml", "."])
def test_a_file_that_cannot_be_read(tmp_path, name):
    with pytest.raises(SettingsError, match="cannot read the settings file"):
        load_settings("edge", tmp_path / name)


def test_a_long_wrong_value_does_not_flood_the_message():
    with pytest.raises(SettingsError) as caught:
        load_settings("edge", model={"backbone": "x" * 10_000})
    assert len(caught.value.cause) < 600


@given(content=st.binary(max_size=80))
@hypothesis_settings(deadline=None)
def test_any_bytes_are_settings_or_a_settings_error(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_bytes(content)
    with suppress(SettingsError):
        load_settings("edge", file)


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.none())


@given(
    model=st.dictionaries(st.sampled_from([*ModelSettings.model_fields, "other"]), VALUES),
    training=st.dictionaries(st.sampled_from([*TrainingSettings.model_fields, "other"]), VALUES),
)
@hypothesis_settings(deadline=None)
def test_any_values_are_settings_or_a_settings_error(model, training):
    with suppress(SettingsError):
        got = load_settings("edge", model=model, training=training)
        for table, given_values in ((got.model, model), (got.training, training)):
            kept = {key: value for key, value in given_values.items() if value is not None}
            assert table.model_dump(include=set(kept), mode="json") == kept


# Round trips.


@st.composite
def valid_settings(draw: st.DrawFn) -> Settings:
    heads = draw(st.sampled_from([1, 2, 4, 8]))
    open_unit = st.floats(0.0, 1.0, exclude_min=True, exclude_max=True)
    positive = st.floats(0.0, 1e6, exclude_min=True)
    model = ModelSettings(
        backbone=draw(st.sampled_from(["efficientnet_b4", "efficientnet_lite0"])),
        input_side=16 * draw(st.integers(4, 64)),
        padding_side=draw(st.none() | st.integers(32, 2000)),
        width=8 * draw(st.integers(1, 64)),
        heads=heads,
        layers=draw(st.integers(1, 12)),
        codes=draw(st.integers(2, 3840)),
        dropout=draw(st.floats(0.0, 1.0, exclude_max=True)),
        standardise_features=draw(st.booleans()),
        tap_resize=draw(st.sampled_from(["average", "bilinear"])),
        normalise_tokens=draw(st.booleans()),
        whiten_distance=draw(st.booleans()),
        prototypes=draw(st.integers(0, 3840)),
        prototype_window=draw(st.sampled_from([1, 3, 5])),
        prototype_weight=draw(st.floats(0.0, 1e6)),
        transport_weight=draw(st.floats(0.0, 1e6)),
        transport_temperature=draw(st.none() | positive),
        image_level=draw(st.sampled_from(["kept", "subtracted", "learnt"])),
        map_scale=draw(st.sampled_from(["published", "good_images"])),
    )
    training = TrainingSettings(
        epochs=draw(st.integers(1, 10**6)),
        learning_rate=draw(positive),
        codebook_decay=draw(open_unit),
        autocast=draw(st.sampled_from(["auto", "off", "bfloat16"])),
        patience=draw(st.integers(0, 10**6)),
        held_out=draw(st.floats(0.0, 0.9, exclude_min=True, exclude_max=True)),
        seed=draw(st.integers(0, 10**9)),
    )
    return Settings(
        preset=draw(st.sampled_from(["paper", "edge", "tiny"])), model=model, training=training
    )


@given(settings=valid_settings())
@hypothesis_settings(deadline=None)
def test_valid_settings_survive_run_json(settings):
    assert Settings.model_validate_json(settings.model_dump_json()) == settings


@given(settings=valid_settings())
@hypothesis_settings(deadline=None)
def test_valid_settings_survive_a_settings_file(tmp_path_factory, settings):
    file = tmp_path_factory.getbasetemp() / "round trip.toml"
    lines = []
    for table, values in settings.model_dump(exclude={"preset"}, exclude_none=True).items():
        lines.append(f"[{table}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    file.write_text("\n".join(lines), encoding="utf-8")
    got = load_settings("edge", file)  # edge leaves None where the file names nothing
    assert (got.model, got.training) == (settings.model, settings.training)


# The page.

LIMITS = {
    "minimum": "≥ {:g}",
    "exclusiveMinimum": "> {:g}",
    "maximum": "≤ {:g}",
    "exclusiveMaximum": "< {:g}",
    "multipleOf": "multiple of {:g}",
}


def allowed(schema: dict) -> str:
    """What the page says a key may be, from its JSON schema."""
    choices = [choice for choice in schema.get("anyOf", [{}]) if choice.get("type") != "null"]
    schema = {**schema, **choices[0]}
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema["type"] == "boolean":
        return "`true`, `false`"
    limits = (text.format(schema[key]) for key, text in LIMITS.items() if key in schema)
    return ", ".join([schema["type"], *limits])


def cell(value: object) -> str:
    return "–" if value is None else f"`{value if isinstance(value, str) else json.dumps(value)}`"


@pytest.mark.parametrize(
    ("table", "model"), [("model", ModelSettings), ("training", TrainingSettings)]
)
def test_the_page_has_every_key_with_its_range_and_defaults(table, model):
    page = (ROOT / "docs/reference/settings.md").read_text(encoding="utf-8")
    section = page.split(f"## `[{table}]`")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    presets = [getattr(load_settings(name), table) for name in ("edge", "tiny", "paper")]
    expected = []
    for key, schema in model.model_json_schema()["properties"].items():
        defaults = " | ".join(cell(getattr(preset, key)) for preset in presets)
        expected.append(f"| `{key}` | {allowed(schema)} | {defaults} | ")
    assert len(rows) == len(expected)
    for row, start in zip(rows, expected, strict=True):
        assert row.startswith(start), f"docs/reference/settings.md should say: {start}"
        assert row.removeprefix(start).strip(" |"), f"{start} has no meaning"


def test_the_page_has_what_the_paper_with_transport_changes():
    page = (ROOT / "docs/reference/settings.md").read_text(encoding="utf-8")
    section = page.split("## What `paper-ot` changes")[1]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    paper, ours = (load_settings(name) for name in ("paper", "paper-ot"))
    expected = []
    for table in ("model", "training"):
        for key, value in getattr(paper, table).model_dump().items():
            changed = getattr(getattr(ours, table), key)
            if changed != value:
                expected.append(f"| `{key}` | {cell(value)} | {cell(changed)} |")
    assert rows == expected
