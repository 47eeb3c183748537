"""``docs/reference/bundle-format.md`` and the JSON Schema beside it say what the code reads."""

from __future__ import annotations

import json
import re

import jsonschema
import pytest
from helpers.paths import ROOT
from helpers.thresholds import threshold_at

pytest.importorskip("onnx")
from helpers.graphs import save_bundle

from hvq_edge.bundle.manifest import BundleManifest, write_manifest
from hvq_edge.verdict.image_limits import ImageLimits

PAGE = (ROOT / "docs/reference/bundle-format.md").read_text(encoding="utf-8")
SCHEMA = json.loads((ROOT / "docs/reference/bundle.schema.json").read_text(encoding="utf-8"))


def test_the_schema_is_that_of_the_code():
    assert BundleManifest.model_json_schema() == SCHEMA, (
        "docs/reference/bundle-format.md has the command"
    )
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_page_names_every_key_of_the_manifest_and_no_other():
    (table,) = re.findall(r"^\| key \|.*\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    keys = [
        key for row in table.splitlines()[1:] for key in re.findall(r"`(\w+)`", row.split("|")[1])
    ]
    assert sorted(keys) == sorted(BundleManifest.model_fields)


@pytest.fixture
def manifest(tmp_path) -> dict:
    bundle = save_bundle(tmp_path / "bundle", "auto")
    limits = ImageLimits(brightness_low=1, brightness_high=250, contrast_low=1, sharpness_low=1)
    update = {"thresholds": {"fp32": {"bolt": threshold_at(3.0)}}, "image_limits": limits}
    write_manifest(bundle.path, bundle.manifest.model_copy(update=update))
    return json.loads((bundle.path / "bundle.json").read_text(encoding="utf-8"))


def test_a_manifest_as_it_is_written_keeps_to_the_schema(manifest):
    jsonschema.validate(manifest, SCHEMA)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", "hvq-edge-bundle/2"),
        ("category_mode", "guess"),
        ("files", {"model.fp32.onnx": {"sha256": "abc", "bytes": 1}}),
        ("thresholds", {"fp32": {"bolt": 3.0}}),
        ("models", {"fp64": "model.fp64.onnx"}),
        ("input_side", "224"),
    ],
)
def test_the_schema_refuses_what_is_no_manifest(manifest, key, value):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**manifest, key: value}, SCHEMA)
