"""A lint rule and its violations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import onnx

from hvq_edge.export.graph.view import GraphView

Severity = Literal["error", "warning"]
"""``error``: some engine refuses the graph or gets it wrong. ``warning``: it works, and is larger,
slower or harder to read than it need be."""

Hits = Iterator[tuple[str, str]]
"""Name of a node or value, and what is wrong with it."""


@dataclass(frozen=True)
class Violation:
    """One place where a graph breaks a rule."""

    rule: str
    """Name of the rule."""
    node: str
    """The node's name; the value's where no node is at fault; ``""``: the file as a whole."""
    message: str
    severity: Severity = "error"

    def __str__(self) -> str:
        where = f"{self.node}: " if self.node else ""
        return f"{where}{self.message} [{self.rule}]"


@dataclass(frozen=True)
class Rule:
    """A rule that every exported graph keeps."""

    name: str
    summary: str
    """What the rule asks."""
    reason: str
    """Who refuses the graph otherwise, or what goes wrong."""
    severity: Severity
    hits: Callable[[GraphView], Hits]

    def violations(self, graph: GraphView) -> list[Violation]:
        """Find the places that break the rule."""
        return [Violation(self.name, *hit, self.severity) for hit in self.hits(graph)]


def rule(
    reason: str, severity: Severity = "error"
) -> Callable[[Callable[[GraphView], Hits]], Rule]:
    """Make a rule of a function that finds what breaks it; its docstring says what is asked."""

    def make(hits: Callable[[GraphView], Hits]) -> Rule:
        summary = (hits.__doc__ or "").strip().partition("\n")[0]
        return Rule(hits.__name__.replace("_", "-"), summary, reason, severity, hits)

    return make


def type_name(element_type: int) -> str:
    """Return ``uint8`` for ``TensorProto.UINT8``; ``unknown`` for a value without a type."""
    if not element_type:
        return "unknown"
    return str(onnx.TensorProto.DataType.Name(element_type)).lower()
