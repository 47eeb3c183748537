"""An INT8 plan: which layers stay in float, and why, as a TOML file that can be read and reused."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

import tomli_w
from pydantic import Field, ValidationError

from hvq_edge.calibration.quantise import default_exclusions
from hvq_edge.calibration.search.evidence import Effect
from hvq_edge.common.atomic import write_text
from hvq_edge.common.records import Strict, faults_of
from hvq_edge.common.toml_file import read_toml
from hvq_edge.errors import InputError

PLAN_NAME = "int8-plan.toml"
"""The plan's file in a bundle."""


class Budget(Strict):
    """What INT8 may change, on held-out good images and the same with pseudo-defects."""

    max_drop: float = Field(0.1, ge=0.0, le=100.0)
    """Points of image AUROC, mean over the categories."""
    min_code_agreement: float = Field(0.99, ge=0.0, le=1.0)
    """Share of equal codes on the worst level."""

    def holds(self, effect: Effect) -> bool:
        """Whether an effect is within the budget."""
        return effect.drop <= self.max_drop and effect.codes >= self.min_code_agreement


class Plan(Strict):
    """Which layers stay in float."""

    format: Literal["hvq-edge-int8-plan/1"] = "hvq-edge-int8-plan/1"
    made_by: Literal["rule", "search", "hand"]
    budget: Budget | None = None
    """The budget that the search kept to."""
    effect: Effect | None = None
    """What the plan changes, as the search measured it."""
    float_layers: dict[str, str]
    """The reason for each layer in float, by the node's name."""

    def int8_layers(self, candidates: Sequence[str]) -> tuple[str, ...]:
        """Return the layers in int8, in the graph's order.

        Args:
            candidates: the graph's :func:`hvq_edge.calibration.quantise.quantisable_nodes`.

        Raises:
            InputError: the plan names layers that the graph does not have.
        """
        unknown = sorted(set(self.float_layers) - set(candidates))
        if unknown:
            raise InputError(
                f"the INT8 plan keeps layers in float that this model does not have: "
                f"{', '.join(unknown[:5])}{' …' if len(unknown) > 5 else ''}.",
                next_step="use the plan of this very model, or export with --max-drop to search "
                "for one",
            )
        return tuple(name for name in candidates if name not in self.float_layers)


def default_plan(candidates: Collection[str]) -> Plan:
    """Return the plan for a graph where none is given or searched for: a rule of layer names."""
    return Plan(made_by="rule", float_layers=default_exclusions(candidates))


def read_plan(path: Path) -> Plan:
    """Read a plan.

    Raises:
        InputError: no file there, or not a plan; names every fault.
    """
    given = read_toml(path, "--plan", "INT8 plan")
    try:
        return Plan.model_validate(given)
    except ValidationError as error:
        faults = "; ".join(faults_of(error, Plan))
        raise InputError(
            f"{path} is not an INT8 plan: {faults}.",
            next_step=f"compare it with the {PLAN_NAME} that hvq-edge export --int8 writes",
        ) from error


def write_plan(path: Path, plan: Plan) -> None:
    """Write a plan atomically.

    Raises:
        OutputError: it cannot be written.
    """
    write_text(path, plan_text(plan))


def plan_text(plan: Plan) -> str:
    """Return a plan as TOML."""
    return (
        "# Which layers INT8 leaves in float, and why; other convolutions and linears are int8.\n"
        "# Edit it and use it again: hvq-edge export --int8 --plan THIS_FILE\n"
        + tomli_w.dumps(plan.model_dump(exclude_none=True))
    )
