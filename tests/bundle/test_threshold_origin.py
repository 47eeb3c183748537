"""Decisions of two precisions that differ because their thresholds were not learnt alike."""

from __future__ import annotations

import pytest
from helpers.agreements import compare_one, outputs
from helpers.graphs import save_bundle

from hvq_edge.bundle.manifest import write_manifest
from hvq_edge.bundle.opened import open_bundle
from hvq_edge.bundle.verification import VERIFY_NAME, PrecisionVerdict, Verification
from hvq_edge.cli.verify import failure
from hvq_edge.evaluation.acceptance.acceptance import collect
from hvq_edge.verdict.threshold import GoodPart, learn_threshold


@pytest.fixture(params=[True, False], ids=["alike", "unlike"])
def alike(request):
    """One calibration set both precisions, or ``stream --calibrate`` set one of them."""
    return request.param


@pytest.fixture
def bundle(alike, tmp_path):
    saved = save_bundle(tmp_path / "bundle", precisions=("fp32", "int8"))
    name = saved.manifest.categories[0]
    parts = [GoodPart(i / 10, f"{i}.png") for i in range(9)]
    learnt = [{name: learn_threshold(parts, source=source)} for source in ("a", "b")]
    thresholds = {"fp32": learnt[0], "int8": learnt[0 if alike else 1]}
    write_manifest(saved.path, saved.manifest.model_copy(update={"thresholds": thresholds}))
    return open_bundle(saved.path)


@pytest.fixture
def verification(bundle):
    """INT8 rejects the one good image that float32 passes."""
    row = compare_one(outputs(0), [("a", False, True)], "int8")
    files = bundle.manifest.files
    return Verification(
        passed=False,
        checkpoint_sha256="",
        data="",
        images=1,
        models={name: files[file].sha256 for name, file in bundle.manifest.models.items()},
        precisions={"int8": PrecisionVerdict(passed=False, faults=row.faults)},
        comparisons=(row,),
    )


def test_verify_names_them_as_the_remedy(alike, bundle, verification):
    said = failure(verification, bundle, bisected=False)
    (name,) = bundle.manifest.thresholds["fp32"]
    assert ("--bisect" in said.next_step) == alike
    assert ("hvq-edge calibrate" in said.next_step) != alike
    assert (f"not learnt as those of fp32 were ({name})" in said.cause) != alike


def test_the_acceptance_names_them_as_the_remedy(alike, bundle, verification):
    (bundle.path / VERIFY_NAME).write_text(verification.model_dump_json())
    points = collect(bundle.path).open_points
    (point,) = [one for one in points if "verify did not pass int8" in one.what]
    assert ("--bisect" in point.remedy) == alike
    assert ("hvq-edge calibrate" in point.remedy) != alike
