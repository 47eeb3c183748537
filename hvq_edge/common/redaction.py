"""Credentials taken out of what is shown: addresses, pipelines, settings of any key, messages."""

from __future__ import annotations

import re
from typing import Any

HIDDEN = "..."
"""Stands in place of what was taken out."""

_SCHEME = (
    r"[A-Za-z][A-Za-z0-9+.-]{0,30}(?<!\b[A-Za-z])(?<!\bfile)(?<!\bwatch)(?<!\bmailto):"
    r"(?://|/(?!/))"
)
"""Not of a drive's letter, nor of what stands before a path."""
_PROTOCOL = r"(?:rtsps?|rtmps?|https?|s?ftp|mqtts?|grpcs?|opc\.tcp|wss?|tcp|udp|srt|smb)"
_MISTYPED = rf"{_PROTOCOL}(?::/{{1,2}}|//)"
_ADDRESS = re.compile(
    rf"://|[?&]|\b{_MISTYPED}|^[^/]*\b\d{{1,3}}(?:\.\d{{1,3}}){{3}}(?::\d+)?/", re.IGNORECASE
)
"""In a word that is an address, and no path."""
_QUERY = re.compile(_SCHEME + r"[^?#]*[?#]")
_KEY_FILE = re.compile(r"(?:,[^,]*?|\.(?:pem|der|key|p12|pfx))::")
"""Before the password of a key file, as in ``Policy,Mode,cert.pem,key.pem::password``."""
_ANYWHERE = (
    r"passw|passphrase|passcode|pwd|psw|secret|token|credential|authori[sz]|authentic|signature|jwt"
)
_ALONE = (
    # ``apikey`` and ``userPass`` are of secrets, ``monkey``, ``compass`` and ``author`` are not.
    r"(?:(?<![A-Za-z])|(?<=api)|(?<=login)|(?<=user)|(?<=access)|(?<=private)|(?<=auth)"
    r"|(?<=admin)|(?-i:(?<=[a-z])(?=[A-Z])))(?:pas|pass|pw|psk|auth|creds?|sig|keys?)(?![a-z])"
)
_COUNTED = (
    r"(?:(?:key|token)s\s{0,9}=\s{0,9}\d+|(?:pass|key)\s{0,9}=\s{0,9}(?:\d{1,3}|yes|no|true|false))"
    r"(?![^\s,;:)\]}'\"])"
)
"""A number or a choice: ``pass=3``, ``key = 12``."""
_NAME = (
    rf"(?:(?:{_ANYWHERE})|{_ALONE})"
    r"(?![\w.-]{0,40}(?<=[_-])(?:file|env)[\"']?\s{0,9}[=:])[\w.-]{0,40}"
)
"""From what tells that a name is that of a secret to the name's end: cameras write ``pas`` too. Not
of a file that holds one."""
_PLAIN = rf"(?<![&?;_])(?<![A-Za-z])(?:{_COUNTED})"
_ASSIGNED = rf"(?!{_PLAIN}){_NAME}[\"']?\s{{0,9}}="
_OUTRIGHT = r"(?:passw(?:or)?d|passphrase|pwd|secret|token|authorization|api[_-]?key|credentials?)"
_GIVEN = re.compile(rf"{_ASSIGNED}|{_OUTRIGHT}[\"']?\s{{0,9}}:|\b(?-i:Bearer)\s", re.IGNORECASE)
_GIVEN_IN_MESSAGE = re.compile(
    rf"({_ASSIGNED}\s?(?:\(\w+\)\s?)?|{_NAME}[\"']\s?:\s?"
    # Behind a name in a sentence; not where it is said what is wrong with a key of that name.
    rf"|(?<![\w./-]){_OUTRIGHT}\s?:\s(?!unknown key|must |is missing))"
    r"(?:\"(?:[^\"\\]|\\.)*\"?|'(?:[^'\\]|\\.)*'?|(?:(?:Bearer|Basic|Digest)\s+)?\S+)",
    re.IGNORECASE,
)
_SCHEME_OF_HTTP = re.compile(
    r"\b(Bearer\s+(?!tokens?\b)|Basic\s+(?=[A-Za-z]*[A-Z0-9+/=]))[\w+/.~=-]+"
)
"""Credentials as HTTP sends them; ``Basic`` before a word that is none of a sentence."""
_HOST = (
    r"(?:(?:[\w-]+(?:\.[\w-]+)+|localhost|\[[\da-fA-F:.]+\])(?::\d{1,5})?|[\w.-]+(?=/))"
    r"(?:/[^\s@]*)?[\"':;,.)]*(?=\s|$)"
)
_USER_IN_MESSAGE = re.compile(rf"({_SCHEME})(?!{_HOST})(?:(?!://)[^\n]){{0,300}}@")
"""A password may hold spaces: up to the last ``@``, unless the host stands there already."""
_SCHEME_HERE = re.compile(_SCHEME)
_MISTYPED_HERE = re.compile(_MISTYPED, re.IGNORECASE)
_USER = re.compile(rf"(?:[A-Za-z][\w+.-]*:/{{1,2}}|{_PROTOCOL}//?)?[^/]*", re.IGNORECASE)
"""Before the colon of ``user:password``, with an address's beginning or without. As a path an
address has lost one of its slashes."""
_HOST_ALONE = re.compile(r"(?:\w+://)?(?:[\w.-]+|\[[\da-fA-F:.]+\])(?::\d+)?/?")
_WORD = re.compile(r"\S+")
_WORD_ENDS = " \t\n\"'("
_WORD_END = re.compile(f"[{_WORD_ENDS}=]")


def redacted(value: str) -> str:
    """Return a value without credentials: where it holds some, rather too much goes.

    What goes is ``user:password@``, the query of a URL, all behind a name like ``password=``,
    ``user-pw=`` or ``token:``, and the password behind a key file (``,key.pem::password``).

    Args:
        value: the whole of a setting, of an address or of a name, so that a password with spaces
            or with any other character goes as a whole.
    """
    known: dict[int, bool] = {}
    given = (found for found in _GIVEN.finditer(value) if not _in_path(value, found, known))
    return _without(value, next(given, None))


def redacted_message(text: str) -> str:
    """Return a sentence without credentials: likewise, but of the words that hold them alone."""
    text = _USER_IN_MESSAGE.sub(rf"\1{HIDDEN}@", text)
    text = _GIVEN_IN_MESSAGE.sub(
        lambda found: found[0] if _in_path(found.string, found, {}) else found[1] + HIDDEN, text
    )
    text = _SCHEME_OF_HTTP.sub(rf"\1{HIDDEN}", text)
    return _WORD.sub(lambda word: _without(word[0], None), text)


def shown_server(address: str) -> str:
    """Return what may be shown of a server's address, which is not a path: its host and port."""
    before, _, host = address.rpartition("@")
    in_query = "?" in before or "#" in before  # the @, perhaps
    return HIDDEN if in_query or not _HOST_ALONE.fullmatch(host) else host


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


def _in_path(text: str, found: re.Match[str], known: dict[int, bool]) -> bool:
    """Tell whether a name stands in a path: ``parts/key=front/good`` is a folder like any other.

    Args:
        text: that the name was found in.
        found: begins with it.
        known: by where words begin, whether they are paths; grows.
    """
    begin = max(text.rfind(mark, 0, found.start()) for mark in _WORD_ENDS) + 1
    slash = text.rfind("/", begin, found.start())
    if slash < 0 or any(mark in text[slash : found.start()] for mark in ";,:!"):
        return False
    if begin not in known:
        word = _WORD.match(text, begin)
        known[begin] = word is not None and _ADDRESS.search(word[0]) is None
    return known[begin]


def _user(value: str) -> tuple[int, int] | None:
    """Return where ``user:password`` stands: up to the last ``@``, for it may hold another one."""
    at = value.rfind("@")
    colon = value.find(":", 0, max(at, 0))
    while colon >= 0:
        begin = max(value.rfind(mark, 0, colon) for mark in (*_WORD_ENDS, "=")) + 1
        scheme = _SCHEME_HERE.match(value, begin, at)
        if scheme and (scheme[0].endswith("//") or _MISTYPED_HERE.match(value, begin, at)):
            return scheme.end(), at
        user = _USER.fullmatch(value, begin, colon)  # else it is a path: /2024-05-31T10:20/a@b
        if user and not value.startswith(("/", "\\"), colon + 1):
            return (scheme.end() if scheme else begin), at
        next_word = None if user else _WORD_END.search(value, colon)
        if not user and next_word is None:
            return None
        colon = value.find(":", next_word.end() if next_word else colon + 1, at)
    return None


def _query(value: str) -> re.Match[str] | None:
    return _QUERY.search(value) if "?" in value or "#" in value else None
