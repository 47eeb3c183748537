"""What the API takes and gives, as pydantic models: they are its OpenAPI schemas as well."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Message(BaseModel):
    """Base: nothing unknown, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class CountsMessage(Message):
    """What became of frames; while none is in flight, frames is the sum of the others."""

    frames: int
    passed: int
    rejected: int
    no_decision: int
    dropped: int


class DecisionMessage(Message):
    """A decision on one frame."""

    sequence: int = Field(description="Counts decisions from 1, over all cameras.")
    camera: str
    frame: int
    time: float = Field(description="Seconds since 1970, UTC.")
    category: str | None
    score: float | None
    threshold: float | None = Field(description="In force when it was made.")
    verdict: Literal["pass", "reject", "no_decision"]
    reason: str
    latency_ms: float
    grade: str | None = Field(description="How bad a reject is, where grades are set.")


class CameraMessage(Message):
    """A camera."""

    name: str
    connected: bool
    fault: str
    gaps: int = Field(description="How often it was lost.")
    counts: CountsMessage
    frames_per_second: float = Field(description="Decided, over the last seconds.")
    newest: DecisionMessage | None


class SinkMessage(Message):
    """Something that takes decisions."""

    name: str
    written: int
    dropped: int
    waiting: int
    fault: str


class StageMessage(Message):
    """How long one step takes, in milliseconds."""

    name: str
    frames: int
    p50: float | None
    p95: float | None
    p99: float | None


class ThresholdMessage(Message):
    """A threshold in force."""

    category: str
    value: float


class CategoryMessage(Message):
    """The category that every frame is judged as."""

    names: tuple[str, ...]
    current: str


class HealthMessage(Message):
    """Whether frames are judged; reasons only for who may read."""

    working: bool
    failing: tuple[str, ...]
    degraded: tuple[str, ...]


class StateMessage(Message):
    """All that the page shows but images and decisions."""

    run: str = Field(description="Another one after the inspector was started again.")
    title: str
    seconds: float = Field(description="Since it started.")
    sequence: int = Field(description="Of the newest decision.")
    paused: bool
    image_interval_ms: float = Field(description="A browser asks for no images faster.")
    may_change: bool = Field(description="Whether this request carried the token.")
    can_save: bool = Field(description="Whether thresholds can be kept in the bundle.")
    counts: CountsMessage
    cameras: tuple[CameraMessage, ...]
    sinks: tuple[SinkMessage, ...]
    stages: tuple[StageMessage, ...]
    thresholds: tuple[ThresholdMessage, ...]
    category: CategoryMessage | None = Field(description="null where the model chooses it.")
    health: HealthMessage


class DecisionsMessage(Message):
    """Recent decisions, oldest first."""

    run: str
    sequence: int
    decisions: tuple[DecisionMessage, ...]


class RejectsMessage(Message):
    """Rejects remembered, newest first."""

    run: str
    rejects: tuple[DecisionMessage, ...]


class PreviewMessage(Message):
    """What a threshold would have done to recent frames of its category."""

    category: str
    threshold: float
    in_force: float
    frames: int
    would_reject: int
    rejects_now: int
    lowest: float | None
    highest: float | None


class LoginRequest(Message):
    """Ask for a cookie."""

    token: str


class PauseRequest(Message):
    """Pause, or go on."""

    paused: bool


class ThresholdRequest(Message):
    """Put a threshold in force."""

    category: str
    value: float
    save: bool = Field(False, description="Keep it in the bundle as well.")


class CategoryRequest(Message):
    """Choose what every frame is judged as."""

    category: str


class Done(Message):
    """It is done."""

    done: Literal[True] = True


class Refusal(Message):
    """It is not done, and why."""

    cause: str
    next_step: str = ""
