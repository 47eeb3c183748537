"""A bundle is read whole and unchanged, or refused with the file named."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.graphs import GRAPH_RECORD, save_bundle
from helpers.images import flat, write_png
from helpers.thresholds import threshold_at
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import hvq_edge
from hvq_edge.bundle.integrity.keys import new_key
from hvq_edge.bundle.integrity.pack import pack_bundle, unpack_bundle
from hvq_edge.bundle.integrity.signature import require_signature, sign_bundle
from hvq_edge.bundle.judged_images import on_the_line
from hvq_edge.bundle.manifest import (
    MANIFEST_NAME,
    BundleManifest,
    FileRecord,
    record_of,
    write_manifest,
)
from hvq_edge.bundle.opened import Bundle, open_bundle
from hvq_edge.bundle.thresholds import save_threshold, thresholds_of, typical_scores_of
from hvq_edge.cli.app import main
from hvq_edge.doctor.bundle import bundle as look_at_bundle
from hvq_edge.errors import BundleError
from hvq_edge.verdict.image_limits import ImageLimits

GRAPH = b"not a graph, but bytes to keep"


def manifest(**changes) -> BundleManifest:
    values = {
        "hvq_edge_version": "0.1.0",
        "created": "2026-01-01T00:00:00+00:00",
        "checkpoint_sha256": "0" * 64,
        "preset": "tiny",
        "input_side": 224,
        "levels": 3,
        "codes": 256,
        "categories": ("bolt", "nut é"),
        "category_mode": "auto",
        "models": {"fp32": "model.fp32.onnx"},
        "files": {},
        "graph": GRAPH_RECORD,
        "thresholds": {"fp32": {"bolt": threshold_at(1.5, images=3, rule="largest score")}},
        "image_limits": ImageLimits(
            brightness_low=10.0, brightness_high=200.0, contrast_low=3.0, sharpness_low=5.0
        ),
    }
    return BundleManifest(**(values | changes))


@pytest.fixture
def bundle(tmp_path) -> Bundle:
    folder = tmp_path / "a bundle"
    folder.mkdir()
    (folder / "model.fp32.onnx").write_bytes(GRAPH)
    write_manifest(
        folder, manifest(files={"model.fp32.onnx": record_of(folder / "model.fp32.onnx")})
    )
    return open_bundle(folder)


def edit(folder: Path, change) -> None:
    content = json.loads((folder / MANIFEST_NAME).read_text())
    change(content)
    (folder / MANIFEST_NAME).write_text(json.dumps(content))


# Reading.


def test_a_bundle_comes_back_as_it_was_written(bundle):
    assert bundle.manifest == manifest(files=bundle.manifest.files)
    assert bundle.model_file("fp32").read_bytes() == GRAPH
    assert bundle.category_index("nut é") == 1


def test_a_copied_bundle_is_the_same_bundle(bundle, tmp_path):
    moved = bundle.path.rename(tmp_path / "elsewhere")
    assert open_bundle(moved).model_file("fp32") == moved / "model.fp32.onnx"


# Changed files.


@given(position=st.integers(0, len(GRAPH) - 1), flip=st.integers(1, 255))
@settings(max_examples=40, deadline=None)
def test_any_changed_byte_is_found(tmp_path_factory, position, flip):
    folder = tmp_path_factory.mktemp("bundle")
    path = folder / "model.fp32.onnx"
    path.write_bytes(GRAPH)
    opened = Bundle(folder, manifest(files={path.name: record_of(path)}))
    changed = bytearray(GRAPH)
    changed[position] ^= flip
    path.write_bytes(changed)
    with pytest.raises(BundleError, match=r"model\.fp32\.onnx is not the file that was exported"):
        opened.model_file("fp32")


@pytest.mark.parametrize("content", [b"", GRAPH[:-1], GRAPH + b"\0"])
def test_a_cut_or_grown_file_is_found(bundle, content):
    (bundle.path / "model.fp32.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.fp32\.onnx") as caught:
        bundle.model_file("fp32")
    assert "copy the bundle again" in caught.value.next_step


def test_a_missing_file_is_named(bundle):
    (bundle.path / "model.fp32.onnx").unlink()
    with pytest.raises(BundleError, match=r"lacks its file model\.fp32\.onnx: No such file"):
        bundle.model_file("fp32")


@pytest.mark.parametrize(
    "name", ["../secret", "a/../../secret", "/etc/hostname", "", ".", "model\0.onnx"]
)
def test_a_manifest_does_not_lead_out_of_its_folder(bundle, name):
    (bundle.path.parent / "secret").write_bytes(GRAPH)
    record = bundle.manifest.files["model.fp32.onnx"]
    opened = Bundle(bundle.path, manifest(models={"fp32": name}, files={name: record}))
    with pytest.raises(BundleError):
        opened.model_file("fp32")


def test_a_file_that_the_manifest_does_not_name_is_not_used(bundle):
    (bundle.path / "extra.onnx").write_bytes(GRAPH)
    with pytest.raises(BundleError, match=r"'extra.onnx' is not a file of the bundle"):
        bundle.file("extra.onnx")


@given(name=st.text())
@settings(deadline=None)
def test_any_name_is_a_file_or_a_bundle_error(tmp_path_factory, name):
    record = FileRecord(sha256="0" * 64, bytes=1)
    opened = Bundle(tmp_path_factory.getbasetemp(), manifest(files={name: record}))
    with pytest.raises(BundleError):
        opened.file(name)


# What a bundle does not serve.


def test_a_precision_it_lacks(bundle):
    with pytest.raises(BundleError, match="has no int8 model; it has fp32") as caught:
        bundle.model_file("int8")
    assert caught.value.next_step == "run hvq-edge export --int8"


def test_a_category_it_lacks(bundle):
    with pytest.raises(BundleError, match="no category 'screw'; it has bolt, nut é"):
        bundle.category_index("screw")


# Manifests.


def test_a_folder_without_a_bundle(tmp_path):
    with pytest.raises(BundleError, match="no bundle at") as caught:
        open_bundle(tmp_path / "nowhere")
    assert "no such folder" in caught.value.cause
    assert "hvq-edge export" in caught.value.next_step
    (tmp_path / "file").write_text("")
    for path, said in ((tmp_path, "no bundle.json in it"), (tmp_path / "file", "is a file")):
        with pytest.raises(BundleError, match=said):
            open_bundle(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "Invalid JSON"),
        (b'{"format": "hvq-edge-bundle/1"', "Invalid JSON"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b"[" * 10_000, "Invalid JSON"),
        (b"{}", "hvq_edge_version: is missing"),
    ],
)
def test_a_file_that_is_no_manifest(tmp_path, content, said):
    (tmp_path / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(BundleError, match=said) as caught:
        open_bundle(tmp_path)
    assert MANIFEST_NAME in caught.value.cause


def test_a_bundle_of_another_format(bundle):
    edit(bundle.path, lambda content: content.update(format="hvq-edge-bundle/9"))
    with pytest.raises(BundleError, match=r"format: .*hvq-edge-bundle/1"):
        open_bundle(bundle.path)


def test_an_unknown_key_is_refused(bundle):
    edit(bundle.path, lambda content: content.update(treshold=1))
    with pytest.raises(BundleError, match="treshold: unknown key"):
        open_bundle(bundle.path)


def test_a_short_hash_is_refused(bundle):
    edit(bundle.path, lambda content: content["files"]["model.fp32.onnx"].update(sha256="abc"))
    with pytest.raises(BundleError, match=r"files\.model\.fp32\.onnx\.sha256"):
        open_bundle(bundle.path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_threshold_that_passes_everything_is_refused(bundle, value):
    with pytest.raises(ValidationError):
        threshold_at(value, images=1, rule="largest score")
    edit(bundle.path, lambda content: content["thresholds"]["fp32"]["bolt"].update(value=value))
    with pytest.raises(BundleError, match=r"thresholds\.fp32\.bolt\.value"):
        open_bundle(bundle.path)


@given(content=st.binary(max_size=60))
@settings(deadline=None)
def test_any_bytes_are_refused_as_a_bundle_error(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp()
    (folder / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(BundleError):
        open_bundle(folder)


@pytest.mark.parametrize(
    "key",
    sorted(name for name, field in BundleManifest.model_fields.items() if field.is_required()),
)
def test_a_manifest_without_a_key_names_it(bundle, key):
    edit(bundle.path, lambda content: content.pop(key))
    with pytest.raises(BundleError, match=f"{key}: is missing"):
        open_bundle(bundle.path)


def test_the_typical_score_is_the_median_of_good_parts(bundle):
    (threshold,) = bundle.manifest.thresholds["fp32"].values()
    assert typical_scores_of(bundle, "fp32") == {"bolt": threshold.median}
    assert typical_scores_of(bundle, "int8") == {}


@pytest.fixture
def exported(tmp_path) -> Path:
    """A run's folder with a bundle in it."""
    run = tmp_path / "run"
    saved = save_bundle(run / "bundle")
    (run / "run.json").write_text("{}")
    learnt = {"fp32": {"bolt": threshold_at(0.5, images=3, rule="test")}}
    write_manifest(saved.path, saved.manifest.model_copy(update={"thresholds": learnt}))
    return run


def test_a_run_stands_for_the_bundle_in_it(exported, tmp_path):
    write_png(tmp_path / "parts" / "dark.png", flat(40))
    assert open_bundle(exported).path == exported / "bundle"
    assert look_at_bundle(exported, "0")[0].state == "ok"
    save_threshold(open_bundle(exported), "fp32", "bolt", 0.1)
    (decision,) = hvq_edge.inspect(exported, tmp_path / "parts", backend="onnxruntime")
    assert decision.verdict == "reject"
    with hvq_edge.open_engine(exported, backend="onnxruntime") as engine:
        assert (engine.info.backend, engine.info.categories) == ("onnxruntime", ("bolt",))
    new_key(tmp_path / "key")
    sign_bundle(exported, tmp_path / "key")
    signed = require_signature(exported, tmp_path / "key.pub").bundle
    pack_bundle(exported, tmp_path / "packed.hvq")
    again = unpack_bundle(tmp_path / "packed.hvq", tmp_path / "unpacked")
    assert thresholds_of(again, "fp32") == thresholds_of(signed, "fp32") == {"bolt": 0.1}


def test_commands_take_a_run_for_the_bundle_in_it(exported, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_png(tmp_path / "parts" / "dark.png", flat(40))
    commands = [
        ["stream", "--bundle", str(exported), "--camera", "parts", "--backend", "onnxruntime"],
        ["bundle", "pack", str(exported)],
        ["bundle", "check", str(exported)],
    ]
    for command in commands:
        with pytest.raises(SystemExit) as stop:
            main(command)
        assert not stop.value.code, capsys.readouterr().err
    assert (exported / "bundle.hvq").is_file()
    with pytest.raises(SystemExit) as stop:
        main(["bundle", "install", str(exported), "--into", "device"])
    assert stop.value.code == 2
    assert f"Next:  run hvq-edge bundle pack {exported}" in capsys.readouterr().err
    assert not Path("device").exists()
    (exported / "bundle").rename(tmp_path / "elsewhere")
    for command in commands:
        with pytest.raises(SystemExit) as stop:
            main(command)
        assert stop.value.code == 2
        said = capsys.readouterr().err
        assert f"{exported} is a training run that was not exported" in said
        assert f"Next:  run hvq-edge export {exported}" in said


@pytest.mark.parametrize(
    ("mode", "way"), [("auto", "chosen"), ("input", "known"), ("one", "known")]
)
def test_a_bundle_is_judged_by_the_way_in_that_its_line_has(bundle, mode, way):
    """A run is evaluated with the category known, and chosen by the model."""
    changed = bundle.manifest.model_copy(update={"category_mode": mode})
    both = [SimpleNamespace(category=name) for name in ("known", "chosen")]
    assert on_the_line(both, Bundle(bundle.path, changed)).category == way
    (only,) = both[:1]
    assert on_the_line([only], Bundle(bundle.path, changed)) is only
