"""What a model card says of images that joined the bundle after its export."""

from __future__ import annotations

from hvq_edge.bundle.learnt import Compared, Counted, Side, count, what_changed
from hvq_edge.bundle.manifest import BundleManifest, digest_of_set
from hvq_edge.bundle.opened import Bundle
from hvq_edge.common.markdown import bullets, code, table, text

_SHOWN = 200
"""Verdicts that flip, of which the card has a row each; ``learnt.json`` has all."""


def learnt_since(manifest: BundleManifest) -> list[str]:
    """Return which images joined the prototypes after the export; nothing where none did."""
    rows = [
        (
            one.created,
            text(one.category),
            len(one.images),
            code(digest_of_set(one.images)),
            ", ".join(f"{number} {text(name)}" for name, number in one.replaced.items()),
        )
        for one in manifest.learnt
    ]
    blocks = [
        f"{text(one.category)} joined the graphs on {one.created[:10]}, after the export "
        f"(`hvq-edge add-category --on-device`), from {len(one.images)} good images: its map rests "
        "on distances to prototypes of the frozen features alone."
        for one in manifest.added
    ]
    if not rows:
        return blocks
    headings = ("learnt", "category", "images", "hash", "in the place of")
    return [
        *blocks,
        "Images called good after the export, which joined prototypes, calibration scores and "
        "limits of their category (`hvq-edge learn`); no weight was fitted to them.",
        table(headings, rows),
    ]


def verdicts_changed(bundle: Bundle) -> list[str]:
    """Return what the last learning changed, image by image; nothing where there was none."""
    changed = what_changed(bundle)
    if changed is None:
        return []
    counts, flips = [], []
    for precision, rows in changed.rows.items():
        for name in dict.fromkeys(row.category for row in rows):
            good = count(rows, name, True, "held out", "judged")
            new = count(rows, name, True, "learnt")
            bad = count(rows, name, False)
            cells = (_change(one) for one in (good, new, bad))
            counts.append((precision, text(name), *cells))
        flips += [_flip(precision, row) for row in rows if row.flipped]
    blocks = [
        "### Before and after learning",
        "Of all that people judged and of held-out good images: how many the line rejects, by the "
        "bundle before and by this one. An image that was learnt is judged here while only the "
        "others were learnt.",
        table(
            ("precision", "category", "good rejected", "learnt ones rejected", "defects found"),
            counts,
        ),
        "Verdicts that flip:" if flips else "No verdict flips.",
    ]
    if flips:
        headings = ("precision", "image", "shows", "before", "after")
        blocks.append(table(headings, flips[:_SHOWN]))
    if len(flips) > _SHOWN:
        blocks.append(f"{len(flips) - _SHOWN} more stand in `learnt.json`.")
    if changed.warnings:
        blocks.append(bullets(text(one) for one in changed.warnings))
    return blocks


def _change(one: Counted) -> str:
    if not one.images:
        return "–"
    return f"{one.rejected_before} → {one.rejected_after} of {one.images}"


def _flip(precision: str, row: Compared) -> tuple[str, ...]:
    shows = f"good {row.category}" if row.good else f"{row.defect or 'defective'} {row.category}"
    more = ", learnt" if row.seen == "learnt" else ""
    sides = (_side(row.before), _side(row.after))
    return precision, text(row.image), text(shows) + more, *sides


def _side(side: Side) -> str:
    if side.score is None or side.threshold is None or side.verdict == "no_decision":
        return text(f"no decision ({side.reason})")
    return f"{side.verdict} ({side.score:.4g} of {side.threshold:.4g})"
