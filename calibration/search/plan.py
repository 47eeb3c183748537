"""An INT8 plan: which layers stay in float, and why, as a TOML file that can be read and reused."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from hvq_edge.calibration.quantise import usual_float
from hvq_edge.calibration.search.evidence import Effect
from hvq_edge.common.atomic import write_text
from hvq_edge.common.records import Strict, faults_of
from hvq_edge.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:  # Python 3.10, JetPack 6
    import tomli as tomllib

PLAN_NAME = "int8-plan.toml"
"""In a bundle."""


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
    """That the search kept to."""
    effect: Effect | None = None
    """What the plan was found to change."""
    float_layers: dict[str, str]
    """Why each stays in float, by the node's name."""

    def int8_layers(self, candidates: Sequence[str]) -> tuple[str, ...]:
        """Return the layers that are rounded, in the graph's order.

        Args:
            candidates: :func:`hvq_edge.calibration.quantise.candidates_of` the graph.

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


def usual_plan(candidates: Collection[str]) -> Plan:
    """Return the plan that is used where nobody gives one or searches: a rule of layer names."""
    return Plan(made_by="rule", float_layers=usual_float(candidates))


def read_plan(path: Path) -> Plan:
    """Read a plan.

    Raises:
        InputError: no file there, or not a plan; names every fault.
    """
    try:
        return Plan.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(
            f"the INT8 plan {path} cannot be read: {error.strerror}.",
            next_step=f"give the {PLAN_NAME} of a bundle with --plan",
        ) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"the INT8 plan {path} is not TOML: {error}.") from error
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
    lines = [
        "# Which layers INT8 leaves in float, and why; other convolutions and linears are int8.",
        "# Edit it and use it again: hvq-edge export --int8 --plan THIS_FILE",
        f"format = {_string(plan.format)}",
        f"made_by = {_string(plan.made_by)}",
    ]
    for name, table in (("budget", plan.budget), ("effect", plan.effect)):
        if table is not None:
            lines += ["", f"[{name}]"]
            lines += [f"{key} = {value!r}" for key, value in table.model_dump().items()]
    lines += ["", "[float_layers]"]
    lines += [f"{_string(name)} = {_string(why)}" for name, why in plan.float_layers.items()]
    return "\n".join(lines) + "\n"


def _string(text: str) -> str:
    """Quote a string as TOML does, which for these is as JSON does."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
