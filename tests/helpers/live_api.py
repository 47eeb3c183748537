"""What the API is tested with: a line with three decisions, and the routes there are."""

from __future__ import annotations

import pytest
from helpers.live_line import Line

from hvq_edge.stream.live_page import predict_api
from hvq_edge.stream.live_page.api import common, router

CHANGES = [
    ("/api/pause", {"paused": True}),
    ("/api/threshold", {"category": "bolt", "value": 0.7}),
    ("/api/category", {"category": "nut"}),
]


@pytest.fixture
def line() -> Line:
    made = Line()
    for score in (0.1, 0.7, None):
        made.see(score)
    return made


ROUTES = [*router.routes, *common.routes, *predict_api.router.routes]
DESCRIBED = [route for route in ROUTES if route.include_in_schema]
API = [route for route in DESCRIBED if route.path.startswith("/api/")]
