"""The model card: every number is one of the files'; what is in none of them is not measured."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from helpers.patience import HANG_SECONDS
from helpers.spotted_parts import bundle, data  # noqa: F401  # fixtures
from helpers.thresholds import threshold_at

from hvq_edge.bundle.integrity.content import look
from hvq_edge.bundle.integrity.keys import new_key
from hvq_edge.bundle.integrity.pack import unpack_bundle
from hvq_edge.bundle.integrity.signature import require_signature
from hvq_edge.bundle.manifest import digest_of_set, write_manifest
from hvq_edge.bundle.opened import Bundle, open_bundle
from hvq_edge.bundle.thresholds import put_thresholds, undo_thresholds
from hvq_edge.bundle.verification import Verification, read_verification
from hvq_edge.cli.app import main
from hvq_edge.cli.demo import demo_stages
from hvq_edge.evaluation.acceptance.limits_of_use import limits_of_use
from hvq_edge.evaluation.acceptance.measured import measured_of
from hvq_edge.evaluation.acceptance.model_card import refresh_card, render_card
from hvq_edge.evaluation.evaluate_target import evaluate_precisions
from hvq_edge.evaluation.metrics.metrics_file import read_metrics
from hvq_edge.export.export_run import _training_record
from hvq_edge.run.record import KnownDefect, KnownDefectUse, read_run
from hvq_edge.runtime.known_answers import read_known_answers


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


def section(card: str, heading: str) -> str:
    """What stands below a heading, up to the next one."""
    start = card.index(f"# {heading}\n")
    return re.split(r"^#+ ", card[start + 2 :], flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """The rows of all tables, headings too."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in cells if set(row) != {"---"}]


def test_the_card_has_the_known_defects(small_bundle, small_run):
    bundle, record = open_bundle(small_bundle), read_run(small_run)
    assert "nown defects" not in render_card(bundle)
    name = record.categories[0]
    threshold = bundle.manifest.thresholds["fp32"][name].value
    known = [
        KnownDefect(path=f"{n}.png", category=name, sha256=f"{n:064}", defect="x", score=score)
        for n, score in enumerate((threshold - 1, threshold + 1, threshold + 2))
    ]
    use = KnownDefectUse(
        images=3, kinds=1, unsorted=True, share=0.5, power=1.0, found_without=1, found=2
    )
    record = record.model_copy(
        update={"known_defects": tuple(known), "known_defects_used": {name: use}}
    )
    training = _training_record(record, record.images, None)
    manifest = bundle.manifest.model_copy(update={"training": training})
    card = render_card(Bundle(bundle.path, manifest))
    (row,) = [row for row in rows(section(card, "Training data")) if "weight the metric" in row]
    assert row[:3] == [name, "3", f"`{digest_of_set([one.sha256 for one in known])}`"]
    assert "fp32: 2 of 3" in row[4]


def test_the_card_of_an_export_has_the_numbers_of_its_files(small_bundle, small_run):
    """As `export` wrote it: data by hash, settings, thresholds with promises, licences."""
    manifest, record = open_bundle(small_bundle).manifest, read_run(small_run)
    card = (small_bundle / "MODEL.md").read_text(encoding="utf-8")
    assert not look(open_bundle(small_bundle)).faults
    assert "MODEL.md" in manifest.files
    data_rows = {row[0]: row[1:] for row in rows(section(card, "Training data"))}
    for name in manifest.categories:
        cells = []
        for use in ("fit", "held_out"):
            own = [i.sha256 for i in record.images if (i.category, i.use) == (name, use)]
            assert own
            cells += [str(len(own)), f"`{digest_of_set(own)}`"]
        assert data_rows[name] == cells
    details = {row[0]: row[1] for row in rows(section(card, "Model details")) if len(row) == 2}
    for table, given in (("model", record.settings.model), ("training", record.settings.training)):
        said = details[f"Settings: {table}"]
        words = {
            key: (" ".join(map(str, value)) or "none") if isinstance(value, tuple) else value
            for key, value in given.model_dump().items()
        }
        assert said == ", ".join(f"{key} {value}" for key, value in words.items())
    assert record.checkpoint_sha256 in details["Checkpoint"]
    assert record.backbone_weights in details["Backbone's weights"]
    licences = {row[0]: row[1] for row in rows(section(card, "Licences"))}
    assert licences["Backbone's weights"].startswith("Apache-2.0")
    assert licences["Training images"] == "CC BY-NC-SA 4.0", "as the folder itself says"
    thresholds = rows(section(card, "Thresholds, and what they promise of false rejects"))[1:]
    assert len(thresholds) == len(manifest.models) * len(manifest.categories)
    for precision, name, value, expected, most, words, _ in thresholds:
        threshold = manifest.thresholds[precision][name]
        assert value == f"{threshold.value:.6g}"
        assert expected.rstrip(" %") == f"{100 * threshold.bound.expected:.4g}"
        assert most.endswith(f"({100 * threshold.bound.confidence:.4g} %)")
        assert words == str(threshold.bound)
    for file in manifest.models.values():
        assert (
            f"| `{file}` | {manifest.files[file].bytes} | `{manifest.files[file].sha256}` |" in card
        )
    answers = read_known_answers(open_bundle(small_bundle))
    assert f"Known answers: {len(answers.frames)} images" in card


def test_what_is_not_measured_is_said_with_the_command(bundle):
    card = render_card(bundle)
    for precision in ("fp32", "int8"):
        said = section(card, f"Test images, {precision}").split("\n", 1)[1].strip()
        command = f"hvq-edge eval BUNDLE --precision {precision} --data DIR"
        assert said == f"not measured: run `{command}`"
    assert "not measured: run `hvq-edge verify BUNDLE`" in section(card, "Engines verified")
    assert "not measured: run `hvq-edge calibrate BUNDLE --good DIR`" in card, "int8 has none"
    assert "run `hvq-edge export` again" in section(card, "Training data")
    assert "of 3" not in card, "a count out of nowhere"


def test_the_numbers_of_eval_and_verify_are_those_of_their_files(bundle, data):
    evaluate_precisions(bundle.path, data, backend="onnxruntime")
    card = (bundle.path / "MODEL.md").read_text(encoding="utf-8")
    assert not look(open_bundle(bundle.path)).faults, "the manifest knows the new card"
    for precision in ("fp32", "int8"):
        content = read_metrics(bundle.path / f"eval-{precision}" / "metrics.json")
        found = measured_of(open_bundle(bundle.path), content, of_bundle=True)
        table = rows(section(card, f"Test images, {precision}"))[1:]
        assert [row[0] for row in table] == ["bolt", "nut", "all"]
        metrics = [*content.evaluations[-1].categories, content.evaluations[-1].mean]
        numbers = [*found.categories, found.all]
        for row, measured, counted in zip(table, metrics, numbers, strict=True):
            given = (measured.image_auroc, counted.auroc.low, counted.auroc.high)
            auroc = [float(number) / 100 for number in re.findall(r"[\d.]+", row[1])]
            assert auroc == pytest.approx(given, abs=5.1e-4)
            for cell, value in zip(
                row[2:5],
                (measured.pixel_auroc, measured.image_recall_at_5, measured.image_recall_at_1),
                strict=True,
            ):
                assert cell == ("–" if value is None else f"{100 * value:.1f}")
            for cell, share in ((row[5], counted.false_rejects), (row[6], counted.found)):
                assert cell.startswith(f"{share.count} of {share.total} (")
            assert row[7:] == [str(counted.good_undecided), str(counted.defective_undecided)]
    kinds = [line for line in limits_of_use(bundle.manifest, found.record) if "kinds" in line]
    assert "bolt: tested with these kinds of defects: bright (3)" in kinds[0]
    assert all(line in section(card, "Intended use") for line in kinds)


def test_the_card_follows_thresholds_and_comes_back_with_them(bundle, data, capsys):
    refresh_card(bundle.path, create=True)
    before = (bundle.path / "MODEL.md").read_bytes(), (bundle.path / "bundle.json").read_bytes()
    good = data / "bolt" / "test" / "good"
    command = ("calibrate", bundle.path, "--good", good, "--backend", "onnxruntime", "--force")
    assert run(*command) == 0
    manifest = open_bundle(bundle.path).manifest
    card = (bundle.path / "MODEL.md").read_text(encoding="utf-8")
    assert f"| {manifest.thresholds['fp32']['bolt'].value:.6g} |" in card
    assert not look(open_bundle(bundle.path)).faults
    assert run("calibrate", bundle.path, "--undo") == 0
    after = (bundle.path / "MODEL.md").read_bytes(), (bundle.path / "bundle.json").read_bytes()
    assert after == before


def test_a_signature_covers_the_card_and_keeps_it(bundle, tmp_path):
    new_key(tmp_path / "office")
    refresh_card(bundle.path, create=True)
    (bundle.path / "MODEL.md").write_text("killed between the card and the manifest")
    put_thresholds(bundle, {"fp32": {"bolt": threshold_at(0.25)}})
    assert run("sign", bundle.path, "--key", tmp_path / "office") == 0
    signed = require_signature(bundle.path, tmp_path / "office.pub").bundle
    card = signed.read("MODEL.md").decode()
    assert "| 0.25 |" in card, "as it is when it is signed"
    put_thresholds(bundle, {"fp32": {"bolt": threshold_at(0.75)}})
    refresh_card(bundle.path)
    assert (bundle.path / "MODEL.md").read_text(encoding="utf-8") == card
    undo_thresholds(bundle.path)
    require_signature(bundle.path, tmp_path / "office.pub")


def test_a_card_written_again_does_not_make_the_demo_begin_again(bundle, data):
    """It goes on from what is there, and the card changes bundle.json after verify.json."""
    (verify,) = [one for one in demo_stages(bundle.path.parent, data, 1) if one.name == "verify"]
    result = bundle.path / "verify.json"
    checkpoint = bundle.manifest.checkpoint_sha256
    passed = Verification(
        passed=True, checkpoint_sha256=checkpoint, data="", images=1, precisions={}, comparisons=()
    )
    result.write_text(passed.model_dump_json())
    os.utime(bundle.path / "model.fp32.onnx", (1, 1))
    os.utime(result, (2, 2))
    refresh_card(bundle.path, create=True)
    assert (bundle.path / "bundle.json").stat().st_mtime > 2
    assert verify.done()
    os.utime(bundle.path / "model.fp32.onnx", (3, 3))
    assert not verify.done()


def test_a_packed_bundle_carries_the_card_of_its_thresholds(bundle, tmp_path):
    refresh_card(bundle.path, create=True)
    put_thresholds(bundle, {"fp32": {"bolt": threshold_at(0.25)}})  # as the live page does
    assert run("bundle", "pack", bundle.path, "-o", tmp_path / "b.hvq") == 0
    there = unpack_bundle(tmp_path / "b.hvq", tmp_path / "there")
    assert "| 0.25 |" in there.read("MODEL.md").decode()


def test_the_same_files_give_the_same_card_elsewhere(small_bundle, tmp_path):
    """A device has neither the run nor the images."""
    copy = shutil.copytree(small_bundle, tmp_path / "device" / "solar")
    assert render_card(open_bundle(copy)) == render_card(open_bundle(small_bundle))


def test_a_device_writes_it_without_the_training_stack(bundle):
    """Thresholds are learnt there too."""
    code = (
        "import sys; from pathlib import Path\n"
        "for name in ('torch', 'sklearn', 'scipy', 'jinja2', 'onnx', 'polygraphy'):\n"
        "    sys.modules[name] = None\n"
        "from hvq_edge.evaluation.acceptance.model_card import refresh_card\n"
        "refresh_card(Path(sys.argv[1]), create=True)"
    )
    subprocess.run([sys.executable, "-c", code, bundle.path], check=True, timeout=HANG_SECONDS)
    assert (bundle.path / "MODEL.md").read_text(encoding="utf-8") == render_card(bundle)


def test_what_others_named_is_text(bundle):
    update = {"notes": ("<b>a | b</b> `c` *d*\n# e",)}
    write_manifest(bundle.path, bundle.manifest.model_copy(update=update))
    card = render_card(open_bundle(bundle.path))
    assert r"\<b\>a \| b\</b\> \`c\` \*d\* # e" in card


def test_engines_verified_are_those_of_verify(bundle):
    agreement = {
        "precision": "fp32",
        "runner": "OpenVINO",
        "images": 7,
        "map_error": 0.25,
        "map_correlation": 0.875,
        "score_error_median": 0.0,
        "score_error_p95": 0.0,
        "score_error_max": 0.0,
        "margin_error_max": None,
        "code_agreement": [1.0, 0.9375],
        "category_agreement": 1.0,
        "decisions_changed": ["a.png"],
        "decisions": [],
        "limits": {
            "map_error": 1,
            "map_correlation": 0,
            "code_agreement": 0,
            "decisions_changed": 1,
        },
        "faults": ["codes"],
    }
    manifest = bundle.manifest
    content = {
        "passed": False,
        "checkpoint_sha256": manifest.checkpoint_sha256,
        "data": "",
        "images": 7,
        "models": {name: manifest.files[file].sha256 for name, file in manifest.models.items()},
        "precisions": {},
        "comparisons": [agreement],
        "not_run": [{"runner": "TensorRT", "precision": None, "reason": "no engine"}],
        "libraries": {"OpenVINO": "2031.7"},
    }
    path = bundle.path / "verify.json"
    path.write_text(json.dumps(content))
    assert read_verification(path).comparisons[0].images == 7
    said = section(render_card(bundle), "Engines verified")
    row = "| fp32 | OpenVINO 2031.7 | 7 | 93.75 | 0.875 | 1 | FAILED: codes |"
    assert row in said
    assert "- not run: TensorRT: no engine" in said
    content["models"] = {"fp32": "1" * 64}
    path.write_text(json.dumps(content))
    assert "OpenVINO" not in section(render_card(bundle), "Engines verified"), "of other graphs"
