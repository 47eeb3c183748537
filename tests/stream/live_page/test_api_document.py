"""The API's OpenAPI document tells the truth: routes, what is asked and what is answered."""

from __future__ import annotations

import pytest
from helpers.live_api import API, CHANGES, DESCRIBED, line  # noqa: F401  # a fixture
from helpers.live_line import BEARER, CAMERA, TOKEN, Line
from jsonschema import Draft202012Validator


@pytest.fixture(scope="module")
def document() -> dict:
    answer = Line().client().get("/openapi.json")
    assert answer.json()["openapi"] == "3.1.0"
    return answer.json()


def test_every_route_of_the_api_is_described_and_the_other_way_round(document):
    served = {(route.path, method.lower()) for route in DESCRIBED for method in route.methods}
    described = {
        (path, method) for path, methods in document["paths"].items() for method in methods
    }
    assert served == described
    for path, methods in document["paths"].items():
        for one in methods.values():
            named = {item["name"] for item in one.get("parameters", []) if item["in"] == "path"}
            assert named == {part[1:-1] for part in path.split("/") if part.startswith("{")}


def validate(document: dict, schema: dict, content: object) -> None:
    whole = {**schema, "components": document["components"]}
    Draft202012Validator.check_schema(whole)
    Draft202012Validator(whole).validate(content)


ASKED = {
    "preview": "?category=bolt&threshold=0.3",
    "tested_images": "?category=bolt&threshold=0.3",
    "login": {"token": TOKEN},
    "logout": {},
    "pause": {"paused": False},
    "threshold": {"category": "bolt", "value": 0.6, "save": True},
    "category": {"category": "nut"},
    "acknowledge_drift": {"camera": CAMERA},
}


@pytest.mark.parametrize("route", API, ids=lambda route: route.name)
def test_answers_are_as_described(line, document, route):
    line.see(0.9)
    client = line.client(**BEARER)
    ((method, described),) = document["paths"][route.path].items()
    assert described["operationId"] == route.name
    path = route.path.replace("{index}", "0").replace("{sequence}", "2")
    if method == "get":
        answer = client.get(path + ASKED.get(route.name, ""))
    else:
        content = ASKED[route.name]
        if route.name != "logout":
            schema = described["requestBody"]["content"]["application/json"]["schema"]
            validate(document, schema, content)
        answer = client.post(path, json=content)
    assert answer.status_code == 200
    ((media, told),) = described["responses"]["200"]["content"].items()
    assert answer.headers["content-type"] == media
    if media == "application/json":
        validate(document, told["schema"], answer.json())
    if path in dict(CHANGES):
        assert described["security"] == [{"token": []}]
        refused = line.client().post(path, json=content)
        schema = described["responses"]["4XX"]["content"]["application/json"]["schema"]
        validate(document, schema, refused.json())
