"""Whether a graph is one that every engine builds and runs alike: the graph's contract as code.

docs/explanation/architecture.md describes the contract. Each rule has its reason and a test that
breaks it (``tests/export/lint/test_lint.py``).
"""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from hvq_edge.errors import BundleError, GateFailed
from hvq_edge.export.graph.view import GraphView
from hvq_edge.export.lint import contract, engines, form, precision
from hvq_edge.export.lint.rule import Rule, Violation

RULES: tuple[Rule, ...] = (
    *contract.RULES,
    *engines.RULES,
    *precision.RULES,
    *form.RULES,
)


def lint(model: onnx.ModelProto) -> list[Violation]:
    """Hold a graph against every rule.

    Args:
        model: the graph; it is not changed.

    Returns:
        What breaks a rule, rule by rule in the order of :data:`RULES`; empty: clean.
    """
    graph = GraphView(model)
    return [violation for rule in RULES for violation in rule.violations(graph)]


def check_graph_file(path: Path) -> list[Violation]:
    """Hold a file against every rule.

    Returns:
        The warnings.

    Raises:
        BundleError: the file is missing or is no ONNX file.
        GateFailed: it breaks rules; the message lists every violation, warnings too.
    """
    try:
        # Weights kept elsewhere are a violation; they need not be there.
        model = onnx.load(path, load_external_data=False)
    except (OSError, DecodeError) as fault:
        raise BundleError(
            f"{path} cannot be read as an ONNX file: {fault}.",
            next_step="export it again with hvq-edge export",
        ) from fault
    violations = lint(model)
    errors = [violation for violation in violations if violation.severity == "error"]
    if errors:
        lines = "\n".join(f"  {violation.severity}: {violation}" for violation in violations)
        raise GateFailed(
            f"{path.name} breaks {len({error.rule for error in errors})} of the rules for exported "
            f"graphs:\n{lines}",
            next_step="export it again with hvq-edge export; if it stays, report it as a fault",
        )
    return violations
