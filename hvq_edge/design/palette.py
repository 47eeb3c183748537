"""The colours of ``colours.css``, for what is drawn and not laid out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from types import MappingProxyType
from typing import Literal

Scheme = Literal["light", "dark", "print"]
Colour = tuple[int, int, int]
"""RGB."""

_BLOCK = re.compile(r"(?:@media (?P<media>[^{]+){\s*)?:root {(?P<body>[^}]*)}")
_TOKEN = re.compile(r"--([\w-]+): (#[0-9a-f]{6});")
_MEDIA: dict[str, Scheme] = {"screen and (prefers-color-scheme: dark)": "dark", "print": "print"}


@lru_cache(maxsize=1)
def palette() -> Mapping[Scheme, Mapping[str, Colour]]:
    """Return the colours by scheme and name; each scheme has all of them.

    Example:
        >>> palette()["dark"]["reject-ink"]
        (255, 255, 255)
    """
    text = files("hvq_edge.design").joinpath("colours.css").read_text(encoding="utf-8")
    found: dict[Scheme, Mapping[str, Colour]] = {}
    light: dict[str, Colour] = {}
    for block in _BLOCK.finditer(text):
        own = {name: _rgb(value) for name, value in _TOKEN.findall(block["body"])}
        media = (block["media"] or "").strip()
        light = light or own
        found[_MEDIA[media] if media else "light"] = MappingProxyType({**light, **own})
    return MappingProxyType(found)


def _rgb(value: str) -> Colour:
    red, green, blue = bytes.fromhex(value[1:])
    return red, green, blue
