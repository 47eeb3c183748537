"""Who asks: somebody's program, our own page, or another site's page in somebody's browser."""

from __future__ import annotations

import pytest

from hvq_edge.stream.same_site import is_host, is_same_origin


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("127.0.0.1:8642", True),
        ("[::1]:8642", True),
        ("10.0.0.7", True),
        ("localhost:1", True),
        ("Factory.Example", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("", False),
        ("[::1", False),
        ("127.0.0.1/healthz?", False),
        ("127.0.0.1#", False),
        ("127.0.0.1\\login?", False),
        ("evil@127.0.0.1", False),
        ("127.0.0.1:80:80", False),
        ("127.0.0.1:", False),
        ("127.0.0.1\n", False),
    ],
)
def test_a_name_that_somebody_else_may_own_is_not_ours(host, ours):
    assert is_host(host, ("factory.example",)) is ours


@pytest.mark.parametrize(
    ("headers", "same"),
    [
        ({"host": "a:1"}, True),
        ({"host": "a:1", "origin": "http://a:1"}, True),
        ({"host": "a:1", "origin": "http://a:2"}, False),
        ({"host": "a:1", "origin": "https://a:1"}, True),
        ({"host": "a:1", "origin": "null"}, False),
        ({"host": "a:1", "origin": "http://["}, False),
        ({"host": "a:1", "origin": "http://evil@a:1"}, False),
        ({"host": "a:1", "origin": "http://a:1/"}, False),
        ({"host": "a:1", "sec-fetch-site": "cross-site"}, False),
        ({"host": "a:1", "sec-fetch-site": "same-site"}, False),
    ],
)
def test_a_page_of_another_site_is_told(headers, same):
    assert is_same_origin(headers) is same
