"""Explanations and codebooks as files: pages that open offline, pictures, and JSON."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from hvq_edge.common.atomic import atomic_file, write_text
from hvq_edge.common.heat_map import CELL
from hvq_edge.design.language import current
from hvq_edge.design.pages import page_environment
from hvq_edge.explain.exemplars import PATCH, CodebookUse, Exemplars, jpeg, patch_of
from hvq_edge.explain.explanation import Explanation, Place
from hvq_edge.explain.picture import draw_explanation, numbered
from hvq_edge.explain.words import likeness_lines, place_title, share_name

if TYPE_CHECKING:
    from jinja2 import Template


def render_explanation(explanation: Explanation) -> str:
    """Render an explanation as a page that needs no other file and no network."""
    found = explanation.exemplars
    used = {
        own.image for place in explanation.places for one in place.nearest for own in one.exemplars
    }
    images = {f"i{number}": _base64(found.images[number]) for number in sorted(used) if found}
    return _template("explanation.html").render(
        title=Path(explanation.result.name).name or current()("image"),
        explanation=explanation,
        result=explanation.result,
        shape=explanation.fitted.shape[:2],
        images={**images, "seen": _base64(jpeg(explanation.fitted))},
        picture=_base64(jpeg(numbered(explanation))),
        largest=_largest,
        likeness_lines=likeness_lines,
        place_title=place_title,
        share_name=share_name,
    )


def render_codebook(found: Exemplars) -> str:
    """Render a category's codebooks as a page that needs no other file and no network."""
    return _template("codebook.html").render(
        title=current()("Codebooks of {category}", category=found.category),
        found=found,
        images={f"i{number}": _base64(one) for number, one in enumerate(found.images)},
        most_used=_most_used,
        dead=lambda book: np.flatnonzero(book.usage == 0).tolist(),
    )


def save_explanation(explanation: Explanation, folder: Path, stem: str) -> list[Path]:
    """Write the page, the picture and the JSON of an explanation.

    Args:
        explanation: what is written.
        folder: made where it is missing.
        stem: what the files are called.

    Returns:
        The files written, the page first.

    Raises:
        OutputError: they cannot be written.
    """
    page, picture, data = (folder / f"{stem}.explain.{kind}" for kind in ("html", "png", "json"))
    write_text(page, render_explanation(explanation))
    drawn = cv2.cvtColor(draw_explanation(explanation), cv2.COLOR_RGB2BGR)
    with atomic_file(picture) as temporary:
        temporary.write_bytes(cv2.imencode(".png", drawn)[1].tobytes())
    write_text(data, json.dumps(explanation.to_dict(), indent=1, ensure_ascii=False) + "\n")
    return [page, picture, data]


def codebook_values(found: Exemplars) -> dict[str, Any]:
    """Return how good images use a category's codebooks as JSON values."""
    return {
        "category": found.category,
        "images_looked_at": found.looked_at,
        "images": list(found.sha256),
        "codebooks": [
            {
                "codebook": book.name,
                "codes": len(book.usage),
                "dead": book.dead,
                "perplexity": book.perplexity,
                "cells_of_each_code": book.usage.tolist(),
                "usual_distance": book.usual.tolist(),
                "exemplars": [
                    [one._asdict() for one in book.of(code)] for code in range(len(book.usage))
                ],
            }
            for book in found.codebooks
        ],
    }


def _template(name: str) -> Template:
    environment = page_environment("hvq_edge")  # its style is that of the reports
    environment.globals |= {"patch_of": patch_of, "patch_side": PATCH, "cell_side": CELL}
    return environment.get_template(f"explain/{name}")


def _largest(place: Place) -> float:
    return max((abs(value) for value in place.shares.values()), default=0.0) or 1.0


def _most_used(book: CodebookUse) -> list[int]:
    order = np.argsort(-book.usage, kind="stable")
    return [int(code) for code in order if book.usage[code]]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
