"""Pages that are files: HTML made of a room's templates, which opens without a network."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from hvq_edge.common.heat_map import legend_gradient

if TYPE_CHECKING:
    from jinja2 import Environment


def page_environment(room: str) -> Environment:
    """Return what makes pages of the templates beside a room's code.

    Values are escaped, and one that is missing is an error. ``heat_gradient`` is the CSS of the
    heat's colours.

    Args:
        room: the package, as in ``hvq_edge.predict``.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    def read(part: str) -> str:
        return files(room).joinpath(part).read_text(encoding="utf-8")

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(read),
    )
    environment.globals["heat_gradient"] = legend_gradient()
    return environment
