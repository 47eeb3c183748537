"""Verify: it passes what is right, and fails what is not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from hvq_edge.bundle import open_bundle, record_of, write_manifest
from hvq_edge.cli.app import main
from hvq_edge.data.dataset import find_dataset
from hvq_edge.errors import BundleError, DatasetError
from hvq_edge.export.agreement import LIMITS, compare
from hvq_edge.export.verify import choose_pictures, verify_bundle
from hvq_edge.runtime.open_engine import choose


@pytest.fixture
def bundle(solar_bundle, tmp_path) -> Path:
    return Path(shutil.copytree(solar_bundle, tmp_path / "bundle"))


def test_verify_passes_a_right_bundle(bundle, solar_run, solar_cells):
    found = verify_bundle(bundle, solar_run, solar_cells, most_pictures=12)
    rows = {(row.precision, row.runner): row for row in found.comparisons}
    assert rows.keys() == {
        (precision, runner)
        for precision in ("fp32", "int8")
        for runner in ("ONNX Runtime", "OpenVINO")
    }
    for runner in ("ONNX Runtime", "OpenVINO"):
        row = rows["fp32", runner]
        assert row.passed, row.faults
        assert row.pictures == 12
        assert min(row.code_agreement) > 0.999
        assert not row.decisions_changed
        assert rows["int8", runner].score_error_max > 0, "INT8 was not what ran"
    written = json.loads((bundle / "verify.json").read_text())
    assert written == found.model_dump(mode="json")
    assert choose(open_bundle(bundle)).reason.startswith(
        ("int8: verified", "fp32: int8 is ")  # by speed
        if found.precisions["int8"].passed
        else "fp32: hvq-edge verify did not pass int8"
    )


def change_weight(bundle: Path, name: str, factor: float) -> None:
    """Change one constant of the float graph and give the file its right hash again."""
    path = bundle / "model.fp32.onnx"
    proto = onnx.load(path)
    entry = next(entry for entry in proto.graph.initializer if entry.name == name)
    value = numpy_helper.to_array(entry) * np.float32(factor)
    entry.CopyFrom(numpy_helper.from_array(value, name))
    onnx.save(proto, path)
    manifest = open_bundle(bundle).manifest
    files = {**manifest.files, path.name: record_of(path)}
    write_manifest(bundle, manifest.model_copy(update={"files": files}))


def test_verify_fails_a_graph_that_differs(bundle, solar_run, solar_cells, capsys):
    change_weight(bundle, "decoder_norm.weight", 1.05)
    arguments = ["verify", str(bundle), "--data", str(solar_cells), "--pictures", "4"]
    with pytest.raises(SystemExit) as exit_:
        main([*arguments, "--run", str(solar_run), "--json"])
    assert exit_.value.code == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["precisions"]["fp32"]["passed"] is False
    assert "map error" in err
    assert "verify.json" in err


def test_auto_precision_heeds_a_failed_verification(bundle):
    (bundle / "verify.json").write_text(
        json.dumps({"passed": False, "precisions": {"int8": {"passed": False}}})
    )
    assert choose(open_bundle(bundle)).precision == "fp32"


def test_a_bundle_of_another_run_is_refused(bundle, solar_run, solar_cells):
    manifest = open_bundle(bundle).manifest
    write_manifest(bundle, manifest.model_copy(update={"checkpoint_sha256": "0" * 64}))
    with pytest.raises(BundleError, match="checkpoints differ"):
        verify_bundle(bundle, solar_run, solar_cells)
    assert not (bundle / "verify.json").exists()


def test_pictures_of_other_parts_are_refused(bundle, solar_run, mvtec_folder):
    with pytest.raises(DatasetError, match="no test pictures of solar_cell_mono"):
        verify_bundle(bundle, solar_run, mvtec_folder)


def test_pictures_are_balanced(solar_cells):
    chosen = choose_pictures(find_dataset(solar_cells).test(), 10)
    groups = {(p.category, p.good) for p in chosen}
    assert len(chosen) == 10
    assert len(groups) == 4
    assert len({p.path for p in chosen}) == 10
    assert len(choose_pictures(find_dataset(solar_cells).test(), 1000)) == 32


def outputs(seed: int, **changes) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "score": rng.normal(size=1),
        "map": rng.normal(size=(1, 4, 4)),
        "codes": rng.integers(0, 9, (1, 2, 16)),
        "category": np.zeros(1, np.int32),
        **changes,
    }


def compare_one(other: dict, verdicts=(("a", False, False),), precision="fp32"):
    return compare([outputs(0)], [other], list(verdicts), precision, "test")


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
    """Two pictures; in the second one token takes the other of two equally near codes."""
    first, second = outputs(0), outputs(1)
    codes = second["codes"].copy()
    codes[0, 0, 0] += 1
    flipped = {**second, "codes": codes, "map": second["map"] + 0.05}
    verdicts = [("a", False, False), ("b", False, False)]
    found = compare([first, second], [first, flipped], verdicts, "fp32", "test")
    assert found.map_error == 0
    assert found.code_agreement[0] == 31 / 32


def test_float_limits_are_narrower_than_int8s():
    assert LIMITS["fp32"].code_agreement > LIMITS["int8"].code_agreement
    assert LIMITS["fp32"].decisions_changed == 0


def test_the_documented_limits_are_the_limits():
    text = (Path(__file__).parents[1] / "docs" / "verify.md").read_text(encoding="utf-8")
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    columns = list(zip(*[[cell.strip() for cell in row[1:]] for row in rows], strict=True))
    documented = {heading: values for heading, *values in columns}

    def number(cell: str) -> float:
        return float(cell.removesuffix(" %")) / (100 if cell.endswith("%") else 1)

    for heading, precision in (("float32", "fp32"), ("reduced precision", "int8")):
        limits = LIMITS[precision].model_dump().values()
        assert [number(cell) for cell in documented[heading]] == pytest.approx(list(limits))
