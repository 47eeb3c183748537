"""Settings of the rule from scores to decisions: the table ``[decision]``."""

from __future__ import annotations

import re

from pydantic import Field, model_serializer, model_validator

from hvq_edge.common.records import StrictTypes


class KOfN(StrictTypes):
    """A part is seen in ``n`` frames and rejected when ``k`` of them are above the threshold.

    Written as text: ``"2/3"``.
    """

    k: int = Field(ge=1, le=1000)
    n: int = Field(ge=1, le=1000)

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, given: object) -> object:
        if not isinstance(given, str):
            return given
        numbers = re.fullmatch(r"([0-9]{1,4})/([0-9]{1,4})", given.strip())
        if numbers is None:
            raise ValueError("must be two numbers such as 2/3")
        return {"k": int(numbers[1]), "n": int(numbers[2])}

    @model_serializer
    def _to_text(self) -> str:
        return f"{self.k}/{self.n}"

    @model_validator(mode="after")
    def _k_within_n(self) -> KOfN:
        if self.k > self.n:
            raise ValueError(f"{self.k} of {self.n} frames can never be above the threshold")
        return self


class Grade(StrictTypes):
    """A grade of rejects. It is reached when one of its limits is, or when it has none."""

    name: str = Field(min_length=1)
    area: float | None = Field(None, gt=0, le=1e12)
    """Total area of the regions: mm² where ``mm_per_pixel`` is given, else pixels."""
    excess: float | None = Field(None, ge=0, le=1e12)
    """How far the score is above the threshold, as a share of the threshold's amount."""


class DecisionSettings(StrictTypes):
    """The table ``[decision]``."""

    hysteresis: float = Field(0.0, ge=0.0, lt=1.0)
    """After a reject, pass again only this share below the threshold; for example 0.1."""
    k_of_n: KOfN | None = None
    """N frames show one part, and K above the threshold reject it; for example 2/3."""
    mm_per_pixel: float | None = Field(None, gt=0, le=1e6)
    """Size of a pixel at the part: gives areas of defects in mm² as well."""
    grades: tuple[Grade, ...] = ()
    """From the mildest to the worst."""

    @model_validator(mode="after")
    def _one_rule_over_time(self) -> DecisionSettings:
        if self.hysteresis and self.k_of_n:
            raise ValueError("hysteresis and k_of_n were both given: use one of them")
        names = [grade.name for grade in self.grades]
        if len(set(names)) < len(names):
            raise ValueError("two grades have the same name")
        return self
