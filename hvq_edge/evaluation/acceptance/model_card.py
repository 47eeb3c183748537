"""``MODEL.md``: a bundle's model card, for whoever is handed the bundle and nothing else.

Its sections are those of Mitchell et al., "Model Cards for Model Reporting" (2019). It is made of
``bundle.json``, of the results that lie in the bundle (``eval-*/metrics.json``, ``verify.json``)
and of the records of built engines, and of nothing else: the same files give the same card on any
machine, and what none of them says is "not measured", with the command that measures it.

No template: thresholds are learnt on devices too, where Jinja2 is not installed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from hvq_edge.bundle.integrity.content import CARD_NAME, SIGNATURE_NAME
from hvq_edge.bundle.manifest import (
    BundleManifest,
    FileRecord,
    ImageSet,
    KnownDefects,
    TrainingRecord,
    record_of,
    write_manifest,
)
from hvq_edge.bundle.opened import Bundle, open_bundle
from hvq_edge.bundle.thresholds import threshold_records
from hvq_edge.common.atomic import write_text
from hvq_edge.common.markdown import bullets, code, table, text
from hvq_edge.evaluation.acceptance.card_learnt import learnt_since, verdicts_changed
from hvq_edge.evaluation.acceptance.card_results import (
    engines,
    eval_command,
    measured_on,
    missing,
    quantitative,
)
from hvq_edge.evaluation.acceptance.limits_of_use import limits_of_use
from hvq_edge.evaluation.acceptance.measured import Measured
from hvq_edge.evaluation.acceptance.threshold_bound import doubts_of
from hvq_edge.evaluation.threshold_change import known_defects_found
from hvq_edge.explain.exemplars import EXEMPLARS_FOLDER

_NOT_KEPT = "not recorded: this bundle is of an earlier version; run `hvq-edge export` again"
_MODES = {
    "auto": "the model chooses the category of each image itself",
    "input": "the category is given with each image",
    "one": "one category only",
}


def refresh_card(folder: Path, *, create: bool = False, signing: bool = False) -> None:
    """Write a bundle's card anew where it would say something else, and its hash into the manifest.

    A signed bundle is left as it was signed: its card is made again when it is signed again.

    Args:
        folder: of the bundle.
        create: write one where there is none, as in a bundle of an earlier version.
        signing: it is about to be signed, so write it in any case.

    Raises:
        BundleError: no bundle there.
        OutputError: it cannot be written.
    """
    kept = (folder / SIGNATURE_NAME).exists() or not (create or (folder / CARD_NAME).is_file())
    if kept and not signing:
        return
    record = write_card(open_bundle(folder))
    manifest = open_bundle(folder).manifest  # a threshold may have been changed meanwhile
    if manifest.files.get(CARD_NAME) != record:
        files = {**manifest.files, CARD_NAME: record}
        write_manifest(folder, manifest.model_copy(update={"files": files}))


def write_card(bundle: Bundle) -> FileRecord:
    """Write ``MODEL.md`` into a bundle's folder; the manifest is the caller's to write.

    Raises:
        OutputError: it cannot be written.
    """
    path = bundle.path / CARD_NAME
    card = render_card(bundle)
    if not path.is_file() or path.read_text(encoding="utf-8", errors="replace") != card:
        write_text(path, card)
    return record_of(path)


def render_card(bundle: Bundle) -> str:
    """Return the card of a bundle as it is now, in Markdown."""
    manifest = bundle.manifest
    measured = measured_on(bundle)
    parts = [
        [f"# Model card: {text(', '.join(manifest.categories))}", _origin(manifest)],
        _details(bundle),
        _intended_use(manifest, measured),
        _factors(manifest),
        _metrics(),
        _evaluation_data(manifest, measured),
        _training_data(manifest),
        quantitative(bundle, measured),
        verdicts_changed(bundle),
        engines(bundle),
        _ethics(),
        _caveats(bundle),
    ]
    return "\n\n".join(block for part in parts for block in part) + "\n"


def _origin(manifest: BundleManifest) -> str:
    return (
        f"Exported {manifest.created} by hvq-edge {manifest.hvq_edge_version}. hvq-edge writes "
        "this card from `bundle.json` and from the results in this folder, and writes it again "
        "when they change; in a signed bundle, when it is signed again. What counts are those "
        "files. Intervals are at 95 % confidence."
    )


def _details(bundle: Bundle) -> list[str]:
    manifest, training = bundle.manifest, bundle.manifest.training
    facts = {
        "Method": "HVQ-Trans (Lu et al., NeurIPS 2023): a Transformer rebuilds an image's features "
        "from prototypes of its product, and what cannot be rebuilt is anomalous; one model "
        "for all categories, trained on good images alone",
        "Gives": "an anomaly score of each image, a map of it, and by the threshold of the "
        "category `pass`, `reject` or `no_decision`",
        "Categories": text(", ".join(manifest.categories)),
        "Category": _MODES[manifest.category_mode],
        "Network": f"preset {text(manifest.preset)}, input {manifest.tiling} px, "
        f"{manifest.levels} levels, {manifest.codes} codes",
        "Checkpoint": f"SHA-256 {code(manifest.checkpoint_sha256)}",
    }
    if training is not None:
        facts |= {
            "Trained": f"{training.created}, {training.epochs} epochs, by hvq-edge "
            f"{training.hvq_edge_version}",
            "Backbone's weights": text(training.weights),
        }
        if training.changes:
            facts["Changed"] = text(" ".join(one.sentence for one in training.changes))
        facts |= {
            f"Settings: {table}": ", ".join(
                f"{text(name)} {_setting(value)}" for name, value in values.items()
            )
            for table, values in training.settings.items()
        }
    else:
        facts["Training and settings"] = _NOT_KEPT
    licences = {
        "hvq-edge": "Apache-2.0",
        "Backbone's weights": _licence(training, "weights"),
        "Training images": _licence(training, "data"),
    }
    files = [
        (name, code(file), manifest.files[file].bytes, code(manifest.files[file].sha256))
        for name, file in manifest.models.items()
    ]
    return [
        "## Model details",
        table(("", ""), facts.items()),
        table(("precision", "file", "bytes", "SHA-256"), files),
        "### Licences",
        table(("of", "licence"), licences.items()),
        "What was trained with images or weights may be bound by their licences.",
    ]


def _licence(training: TrainingRecord | None, what: str) -> str:
    if training is None:
        return _NOT_KEPT
    name = training.weights_licence if what == "weights" else training.data_licence
    said = "the folder of images says none" if what == "data" else "not published weights"
    return text(name) or f"not known: {said}; ask whoever trained it"


def _intended_use(manifest: BundleManifest, measured: Sequence[Measured]) -> list[str]:
    limits = limits_of_use(manifest, measured[0].record if measured else None)
    return [
        "## Intended use",
        "To find defective parts of these categories in images of a camera that is set up as for "
        "the training images. Whether it finds enough of them on a line is for whoever accepts it "
        "there (`hvq-edge report`).",
        bullets(text(one) for one in limits),
    ]


def _factors(manifest: BundleManifest) -> list[str]:
    known = {name: limits.image for name, limits in manifest.category_limits.items()}
    if not known and manifest.image_limits is not None:
        known = {"all": manifest.image_limits}
    rows = [
        (
            text(name),
            f"{one.brightness_low:.6g} to {one.brightness_high:.6g}",
            f"{one.contrast_low:.6g}",
            f"{one.sharpness_low:.6g}",
        )
        for name, one in known.items()
    ]
    headings = ("category", "mean grey level", "contrast from", "sharpness from")
    return [
        "## Factors",
        "Category, camera, lens, light, focus, the part's position and the kind of defect change "
        "what it finds. Images outside these limits lead to no decision:",
        table(headings, rows) if rows else "No limits were learnt for light and focus.",
    ]


def _metrics() -> list[str]:
    return [
        "## Metrics",
        bullets(
            (
                "image AUROC: the chance that a defective image scores above a good one (bootstrap "
                "interval); pixel AUROC: the same of pixels, where there are masks",
                "recall at 5 % and at 1 %: share of defective images found where at most that "
                "share of the good test images is rejected",
                "good rejected and defects found: at the thresholds of this bundle, by the rule of "
                "the line (Clopper-Pearson intervals)",
            )
        ),
    ]


def _evaluation_data(manifest: BundleManifest, measured: Sequence[Measured]) -> list[str]:
    heading = "## Evaluation data"
    if not measured:
        return [heading, missing(eval_command(next(iter(manifest.models))))]
    rows = [
        (
            one.precision,
            text(one.data.name),
            text(number.category),
            number.good,
            number.defective,
            len(one.record.unreadable),
            one.created,
        )
        for one in measured
        for number in one.categories
    ]
    headings = ("precision", "folder", "category", "good", "defective", "unreadable", "evaluated")
    return [heading, table(headings, rows)]


def _training_data(manifest: BundleManifest) -> list[str]:
    training, heading = manifest.training, "## Training data"
    if training is None:
        return [heading, f"Training images: {_NOT_KEPT}."]
    rows = []
    for name in manifest.categories:
        sets = (training.learnt_from.get(name), training.held_out.get(name))
        rows.append((text(name), *(cell for one in sets for cell in _set_cells(one))))
    versions = training.settings.get("training", {}).get("versions", 0)
    blocks = [
        heading,
        "Good images alone. No weight was fitted to the held-out ones: thresholds come from "
        "them. A hash is the SHA-256 over the sorted SHA-256 of the image files, one a line.",
        table(("category", "learnt from", "hash", "held out", "hash"), rows),
        f"Versions of an image, as another camera would show it, that statistics are fitted to "
        f"besides the image itself: {versions}.",
    ]
    blocks += _known_defects(manifest, training.known_defects)
    blocks += learnt_since(manifest)
    calibration = manifest.calibration
    if calibration is not None:
        blocks.append(
            f"INT8 ranges: from {len(calibration.images)} images ({text(calibration.rule)}); "
            f"{text(calibration.method)}."
        )
    if any(name.startswith(f"{EXEMPLARS_FOLDER}/") for name in manifest.files):
        blocks.append(
            f"Images: this bundle carries good training images, at {manifest.tiling} pixels, "
            f"in {code(EXEMPLARS_FOLDER)}; `hvq-edge explain` shows cells of them. Whoever has the "
            "bundle can look at them. Without them: `hvq-edge export` without `--exemplars`."
        )
    return blocks


def _known_defects(manifest: BundleManifest, known: Mapping[str, KnownDefects]) -> list[str]:
    """Return what the card says of defective training images; nothing where there were none."""
    rows = []
    for name, one in known.items():
        use = "weight the metric" if one.weighted else "changed nothing"
        found = [
            f"{precision}: {count.count} of {count.total}"
            for precision in manifest.models
            if (threshold := threshold_records(manifest, precision).get(name))
            and (count := known_defects_found(one, threshold))
        ]
        rows.append((text(name), str(one.images), code(one.sha256), use, ", ".join(found) or "–"))
    if not rows:
        return []
    return [
        "Known defects, which are neither good nor test images. *Found* counts those above the "
        "threshold, each judged in float32 by a metric that was not fitted to it.",
        table(("category", "known defects", "hash", "use", "found"), rows),
    ]


def _setting(value: object) -> str:
    """Return a setting in words: a list's items, where it is one."""
    if isinstance(value, list):
        return " ".join(map(text, value)) or "none"
    return text(value)


def _ethics() -> list[str]:
    return [
        "## Ethical considerations",
        "Not assessed by hvq-edge: who may come into view of the camera, and what follows for "
        "people from a rejected or a passed part, is for whoever puts it to work.",
    ]


def _caveats(bundle: Bundle) -> list[str]:
    manifest = bundle.manifest
    found = [
        what
        for precision in manifest.models
        for name, threshold in threshold_records(manifest, precision).items()
        for what, _ in doubts_of(name, threshold, "")
    ]
    said = [*dict.fromkeys(found), *manifest.notes]
    lines = [text(one) for one in said] or [
        "No fault in how the thresholds were set is on record. What they let pass stands above."
    ]
    command = "hvq-edge report BUNDLE --complete"
    return [
        "## Caveats and recommendations",
        bullets(lines),
        f"`{command}` measures what is missing here, and writes the page to sign.",
    ]


def _set_cells(one: ImageSet | None) -> tuple[object, str]:
    return (0, "") if one is None else (one.images, code(one.sha256))
