"""Pages that are files: HTML made of a room's templates, which opens without a network."""

from __future__ import annotations

from base64 import b64encode
from importlib.resources import files
from typing import TYPE_CHECKING

from hvq_edge.design.language import Language, current

if TYPE_CHECKING:
    from jinja2 import Environment

_SHARED = "design/"


def page_environment(room: str, language: Language | None = None) -> Environment:
    """Return what makes pages of the templates beside a room's code.

    Values are escaped, and one that is missing is an error. ``_`` translates a message and
    ``many`` one of two by a count: both take texts of the template alone, with its marks, and fill
    places with values that they escape. ``word`` translates a value; ``number`` and ``sentence``
    are as in :class:`~hvq_edge.design.language.Language`. Templates of this room are there for
    every other one, as ``design/...``.

    Args:
        room: the package, as in ``hvq_edge.predict``.
        language: of the pages; ``None``: the one that was chosen.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup

    chosen = language or current()

    def read(part: str) -> str:
        place = files("hvq_edge" if part.startswith(_SHARED) else room)
        return place.joinpath(part).read_text(encoding="utf-8")

    def translated(message: str, **values: object) -> Markup:
        # The catalogue's text is ours; format escapes the values.
        return Markup(chosen.translated(message)).format(**values)  # noqa: S704

    def many(count: int, one: str, other: str, **values: object) -> Markup:
        return translated(one if count == 1 else other, n=count, **values)

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(read),
    )
    environment.filters["sentence"] = chosen.sentence
    environment.globals |= {
        "_": translated,
        "word": chosen.translated,
        "many": many,
        "number": chosen.number,
        "sentence": chosen.sentence,
        "language": chosen,
        "icon": b64encode(files("hvq_edge.design").joinpath("icon.svg").read_bytes()).decode(),
    }
    return environment
