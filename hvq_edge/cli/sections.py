"""A command whose help lists its options under headings: for one that has many."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

OTHER = "Other"


class SectionedCommand(TyperCommand):
    """Each option stands under its ``rich_help_panel``, in the order of the first of each."""

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - Typer's own types
        """Write the options, a section each."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                name = getattr(parameter, "rich_help_panel", None) or OTHER
                sections.setdefault(name, []).append(record)
        for name, records in sections.items():
            with formatter.section(name):
                formatter.write_dl(records)
