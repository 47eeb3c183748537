"""Credentials taken out of what is shown: addresses, pipelines, settings of any key, messages."""

from __future__ import annotations

import re
from typing import Any

HIDDEN = "..."
"""Stands in place of what was taken out."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}:/{1,2}")
_QUERY = re.compile(_SCHEME.pattern + r"[^?#]*[?#]")
_KEY_FILE = re.compile(r"(?:,[^,]*?|\.(?:pem|der|key|p12|pfx))::")
"""Before the password of a key file, as in ``Policy,Mode,cert.pem,key.pem::password``."""
_NAME = r"(?:pas|pwd|pw|psw|secret|token|auth|cred|signature|\bsig|key|jwt)[\w.-]{0,40}"
"""From what tells that a name is that of a secret to the name's end: cameras write ``pas`` too."""
_GIVEN = re.compile(
    rf"{_NAME}[\"']?\s{{0,9}}="
    r"|(?:passw(?:or)?d|pwd|secret|token|authorization|api[_-]?key|credentials?)[\"']?\s{0,9}:",
    re.IGNORECASE,
)
_GIVEN_IN_MESSAGE = re.compile(
    rf"({_NAME}(?:[\"']?\s?=|[\"']\s?:)\s?(?:\(\w+\)\s?)?)"
    r"(?:\"(?:[^\"\\]|\\.)*\"?|'(?:[^'\\]|\\.)*'?|\S+)",
    re.IGNORECASE,
)
_USER_IN_MESSAGE = re.compile(rf"({_SCHEME.pattern})[^\n]*@")
_WORD = re.compile(r"\S+")


def redacted(value: str) -> str:
    """Return a value without credentials: where it holds some, rather too much goes.

    What goes is ``user:password@``, the query of a URL, all behind a name like ``password=``,
    ``user-pw=`` or ``token:``, and the password behind a key file (``,key.pem::password``).

    Args:
        value: the whole of a setting, of an address or of a name, so that a password with spaces
            or with any other character goes as a whole.
    """
    return _without(value, _GIVEN.search(value))


def redacted_message(text: str) -> str:
    """Return a sentence without credentials: likewise, but of the words that hold them alone."""
    text = _USER_IN_MESSAGE.sub(rf"\1{HIDDEN}@", text)
    text = _GIVEN_IN_MESSAGE.sub(rf"\1{HIDDEN}", text)
    return _WORD.sub(lambda word: _without(word[0], None), text)


def redacted_table(table: Any) -> Any:  # noqa: ANN401  # what JSON holds
    """Return tables and lists with every text in them redacted, whatever its key."""
    if isinstance(table, str):
        return redacted(table)
    if isinstance(table, list):
        return [redacted_table(item) for item in table]
    if isinstance(table, dict):
        return {key: redacted_table(item) for key, item in table.items()}
    return table


def _without(value: str, given: re.Match[str] | None) -> str:
    """Take out what the forms hide, each looked for in the whole, as they may overlap.

    Args:
        value: with or without credentials.
        given: ends where what is assigned to a secret's name begins.
    """
    begins = [found.end() for found in (given, _query(value), _KEY_FILE.search(value)) if found]
    end = min(begins, default=len(value))
    user = _user(value)
    if user is not None and user[1] >= end:  # the two overlap
        return value[: min(user[0], end)] + HIDDEN
    tail = HIDDEN if value[end:].strip() else value[end:]
    if user is None:
        return value[:end] + tail
    return value[: user[0]] + HIDDEN + value[user[1] : end] + tail


def _user(value: str) -> tuple[int, int] | None:
    """Return where ``user:password`` stands: up to the last ``@``, for it may hold another one."""
    at = value.rfind("@")
    colon = value.find(":", 0, max(at, 0))
    if colon < 0:
        return None
    begin = max(value.rfind(mark, 0, colon) for mark in " \t\n\"'=(") + 1
    scheme = _SCHEME.match(value, begin, at)
    return (scheme.end() if scheme else begin), at


def _query(value: str) -> re.Match[str] | None:
    return _QUERY.search(value) if "?" in value or "#" in value else None
