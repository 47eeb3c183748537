"""The API as a table: its routes and its OpenAPI document are both made from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from hvq_edge.stream.live_page import messages

JPEG = "image/jpeg"


@dataclass(frozen=True)
class Parameter:
    """A parameter of a path or a query."""

    name: str
    place: str
    """``path`` or ``query``."""
    schema: dict[str, Any]
    meaning: str
    required: bool = True


@dataclass(frozen=True)
class Operation:
    """One thing that can be asked for."""

    method: str
    path: str
    name: str
    """Of the function that answers."""
    summary: str
    gives: type[BaseModel] | str
    """A message, or a media type."""
    takes: type[BaseModel] | None = None
    parameters: tuple[Parameter, ...] = ()
    open: bool = False
    """Whether anybody may ask."""

    @property
    def changes(self) -> bool:
        """Whether it changes something, so that it always needs the token."""
        return self.method == "POST" and not self.open


_HEAT = Parameter("heat", "query", {"enum": ["0", "1"]}, "1: with the heat map.", required=False)
_AFTER = Parameter(
    "after", "query", {"type": "integer", "minimum": 0}, "Only decisions after this one.", False
)

OPERATIONS = (
    Operation("GET", "/api/state", "state", "Everything but images", messages.StateMessage),
    Operation(
        "GET",
        "/api/decisions",
        "decisions",
        "Recent decisions",
        messages.DecisionsMessage,
        parameters=(_AFTER,),
    ),
    Operation("GET", "/api/rejects", "rejects", "The last rejects", messages.RejectsMessage),
    Operation(
        "GET",
        "/api/rejects/{sequence}/image.jpg",
        "reject_image",
        "A reject's image",
        JPEG,
        parameters=(
            Parameter("sequence", "path", {"type": "integer"}, "Its decision's number."),
            Parameter(
                "size", "query", {"enum": ["view", "thumbnail"]}, "How large.", required=False
            ),
            _HEAT,
        ),
    ),
    Operation(
        "GET",
        "/api/cameras/{index}/image.jpg",
        "camera_image",
        "A camera's newest image; its decision stands in the header X-Decision",
        JPEG,
        parameters=(
            Parameter("index", "path", {"type": "integer"}, "Position of the camera in the state."),
            _HEAT,
        ),
    ),
    Operation(
        "GET",
        "/api/preview",
        "preview",
        "What a threshold would have done to recent frames",
        messages.PreviewMessage,
        parameters=(
            Parameter("category", "query", {"type": "string"}, "Whose frames count."),
            Parameter("threshold", "query", {"type": "number"}, "To try."),
        ),
    ),
    Operation(
        "POST",
        "/api/pause",
        "pause",
        "Pause, or go on",
        messages.Done,
        takes=messages.PauseRequest,
    ),
    Operation(
        "POST",
        "/api/threshold",
        "threshold",
        "Put a threshold in force",
        messages.Done,
        takes=messages.ThresholdRequest,
    ),
    Operation(
        "POST",
        "/api/category",
        "category",
        "Choose what every frame is judged as",
        messages.Done,
        takes=messages.CategoryRequest,
    ),
    Operation(
        "POST",
        "/api/login",
        "login",
        "Get a cookie for the token",
        messages.Done,
        takes=messages.LoginRequest,
        open=True,
    ),
    Operation("POST", "/api/logout", "logout", "Forget the cookie", messages.Done, open=True),
)


def openapi(version: str) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of the API.

    Args:
        version: of hvq-edge.
    """
    models: set[type[BaseModel]] = {messages.Refusal}
    for operation in OPERATIONS:
        models |= {operation.takes} if operation.takes else set()
        models |= set() if isinstance(operation.gives, str) else {operation.gives}
    ordered = sorted(models, key=lambda model: model.__name__)
    _, schemas = models_json_schema(
        [(model, "serialization") for model in ordered],
        ref_template="#/components/schemas/{model}",
    )
    paths: dict[str, Any] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "hvq-edge live page",
            "version": version,
            "description": "Reading is open on a loopback address without a token file, and needs "
            "the token elsewhere. Changes always need it.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _described(operation: Operation) -> dict[str, Any]:
    refused = {"description": "Refused", "content": _json(messages.Refusal)}
    gives = operation.gives
    content = {gives: {}} if isinstance(gives, str) else _json(gives)
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": {
            "200": {"description": "Done", "content": content},
            "4XX": refused,
            "5XX": refused,
        },
        "security": [] if operation.open else [{"token": []}] + [{}] * (not operation.changes),
    }
    if gives == JPEG:
        described["responses"]["204"] = {"description": "There is no image"}
        described["responses"]["304"] = {"description": "Still the one of If-None-Match"}
    if operation.parameters:
        described["parameters"] = [
            {
                "name": parameter.name,
                "in": parameter.place,
                "required": parameter.required,
                "description": parameter.meaning,
                "schema": parameter.schema,
            }
            for parameter in operation.parameters
        ]
    if operation.takes is not None:
        described["requestBody"] = {"required": True, "content": _json(operation.takes)}
    return described


def _json(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}}
