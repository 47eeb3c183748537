"""What the API takes and gives; FastAPI checks requests and writes OpenAPI by these models.

Where the inspector has a dataclass that says it already, that is the schema: decisions
(:class:`.history.Record`), counts, sinks and health.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from hvq_edge.stream.live_page.health import Health
from hvq_edge.stream.live_page.history import Record
from hvq_edge.stream.sources.source import MOST_CHARACTERS
from hvq_edge.stream.statistics import Counts, SinkStatistics
from hvq_edge.verdict.judgement import Verdict


class Schema(BaseModel):
    """Base: nothing unknown, no NaN; docstrings of attributes are their descriptions."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        json_schema_serialization_defaults_required=True,
    )


class CameraState(Schema):
    """A camera."""

    name: str
    connected: bool
    fault: str
    gaps: int
    """How often it was lost."""
    unlike: str
    """In what its images are unlike the training images; empty where they are alike."""
    drift: str
    """What has drifted, since when, and what to do; empty while nothing has."""
    unread_parts: int
    """Images whose part should have a serial number, and none was found."""
    missed: int
    """Frames that the camera counted and that never came."""
    doubled: int
    """Frames with a number that had been before."""
    incomplete: int
    """Frames of which parts are missing."""
    counts: Counts
    frames_per_second: float
    """Decided, over the last seconds."""
    newest: Record | None


class StageLatency(Schema):
    """How long one step takes, in milliseconds."""

    name: str
    frames: int
    p50: float | None
    p95: float | None
    p99: float | None


class ThresholdInForce(Schema):
    """A threshold in force."""

    category: str
    value: float


class CategoryState(Schema):
    """The category that every frame is judged as."""

    names: tuple[str, ...]
    current: str


class State(Schema):
    """All that the page shows but images and decisions."""

    run: str
    """Another one after the inspector was started again."""
    title: str
    seconds: float
    """Since it started."""
    sequence: int
    """Of the newest decision."""
    paused: bool
    image_interval_ms: float
    """A browser asks for no images faster."""
    may_change: bool
    """Whether this request carried the token."""
    can_save: bool
    """Whether thresholds can be kept in the bundle."""
    can_review: bool
    """Whether decisions are recorded, so that people can judge them."""
    can_explain: bool
    """Whether decisions can be explained."""
    counts: Counts
    cameras: tuple[CameraState, ...]
    sinks: tuple[SinkStatistics, ...]
    stages: tuple[StageLatency, ...]
    thresholds: tuple[ThresholdInForce, ...]
    category: CategoryState | None
    """``null`` where the model chooses it."""
    health: Health


class Decisions(Schema):
    """Recent decisions, oldest first."""

    run: str
    sequence: int
    decisions: tuple[Record, ...]


class Rejects(Schema):
    """Rejects remembered, newest first."""

    run: str
    rejects: tuple[Record, ...]


class Preview(Schema):
    """What a threshold would have done to recent frames of its category."""

    category: str
    threshold: float
    in_force: float
    frames: int
    would_reject: int
    rejects_now: int
    """With the threshold now in force, whenever it was set."""
    lowest: float | None
    """Score among them; ``null`` without frames."""
    highest: float | None
    scores: tuple[float, ...]
    """Of these frames, lowest first: the last ``would_reject`` are those rejected."""


class TestedVerdicts(Schema):
    """What a threshold does to labelled test images."""

    rejected: int
    """Of the good ones."""
    missed: int
    """Of the defective ones: they pass."""


class Tested(Schema):
    """What thresholds do to the labelled test images of a category."""

    category: str
    untested: str
    """Why there are none; empty where there are."""
    good: int
    defective: int
    curve: tuple[tuple[int, int], ...]
    """Good images rejected and defective ones missed, as one threshold for all rises."""
    threshold: float
    in_force: TestedVerdicts
    tried: TestedVerdicts
    """At ``threshold``."""


class Outline(Schema):
    """A region of an image that is above the threshold, in the image's pixels."""

    box: tuple[int, int, int, int]
    """Left, top, width and height."""
    area: float
    area_mm2: float | None
    """``null`` where the size of a pixel is not known."""
    peak: float
    """What the image would score for this region alone."""
    contour: tuple[tuple[int, int], ...]


class Prediction(Schema):
    """The verdict on an image."""

    image: str | None
    """``null``: the image came without a name."""
    part: str | None
    """Serial number of the part; ``null`` where it is not known."""
    verdict: Verdict
    score: float | None
    """Larger is more anomalous; ``null`` where it could not be judged."""
    category: str | None
    p_value: float | None
    """Share of good parts that score at least as high; ``null`` where it is not known."""
    reason: str
    regions: tuple[Outline, ...]
    """The worst first; empty unless it is a reject."""
    threshold: float | None
    """A score above it is a reject."""
    precision: str


class TriggerRequest(Schema):
    """Ask for frames of a triggered camera."""

    camera: str | None = None
    """Its name; not needed where one camera alone has a trigger."""
    part: str | None = Field(None, min_length=1, max_length=MOST_CHARACTERS)
    """Serial number of the part that is there."""


class Triggered(Schema):
    """What a trigger led to; with 202 as much of it as there is yet."""

    frame: int | None
    """The first frame; ``null`` while the camera has not been asked yet."""
    decisions: tuple[dict[str, Any], ...]
    """As lines of ``decisions.jsonl``."""


class LoginRequest(Schema):
    """Ask for a cookie."""

    token: str


class PauseRequest(Schema):
    """Pause, or go on."""

    paused: bool


class ThresholdRequest(Schema):
    """Put a threshold in force."""

    category: str
    value: float
    save: bool = False
    """Keep it in the bundle as well."""
    by: str = Field("", max_length=60)
    """Who changes it, for the log."""


class DriftRequest(Schema):
    """Acknowledge what has drifted: what is usual is learnt anew."""

    camera: str


class CategoryRequest(Schema):
    """Choose what every frame is judged as."""

    category: str


class Done(Schema):
    """It is done."""

    done: Literal[True] = True


class Refusal(Schema):
    """It is not done, and why."""

    cause: str
    next_step: str = ""
