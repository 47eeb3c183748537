"""What people read, in their language.

English stands in the code and in the templates, and is the key: ``languages/CODE.toml`` has the
translation of each message. What machines read (JSON, logs, CSV) stays as it is.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib.resources import files

from hvq_edge.errors import SettingsError

if sys.version_info >= (3, 11):
    import tomllib
else:  # Python 3.10, JetPack 6
    import tomli as tomllib

ENGLISH = "en"
VARIABLE = "HVQ_EDGE_LANGUAGE"
"""Environment variable with the language of whoever asks for no other."""

_PLACE = re.compile(r"{(\w+)}")
_NUMBER = re.compile(r"[+-]?\d+\.\d+(?:e[+-]?\d+)?%?")
_RECORDED = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?P<utc>\+00:00)?")
"""A moment as records and alarms have it."""
_INNER, _NAMES = "said", "names"
_DEEPEST = 50
"""Sentences within a sentence that are translated."""
_ONE = "(?:(?![,:;] ).)"
"""What stands at any other place: no list, and no second sentence."""


@dataclass(frozen=True)
class Language:
    """A language; calling it translates a message and fills its places."""

    code: str = ENGLISH
    """As in ``lang="de"`` of HTML."""
    decimal: str = "."
    date: str = "%Y-%m-%d"
    """Of ``strftime``."""
    day: str = "%m-%d"
    """Likewise, where the year is known."""
    page: Mapping[str, str] = field(default_factory=dict)
    """Messages of the pages that a server gives, by the English ones."""
    report: Mapping[str, str] = field(default_factory=dict)
    """Messages of reports, likewise."""
    said: Mapping[str, str] = field(default_factory=dict)
    """Sentences that the inspector puts together, for machines too, likewise."""

    def __call__(self, message: str, **values: object) -> str:
        """Translate a message.

        Args:
            message: English; ``{name}`` is a place.
            **values: what stands at its places.
        """
        return self.translated(message).format(**values)

    def many(self, count: int, one: str, other: str, **values: object) -> str:
        """Translate ``one`` or ``other``, by a count; its place is ``{n}``."""
        return self(one if count == 1 else other, n=count, **values)

    def translated(self, message: str) -> str:
        """Translate a message whose places stay empty."""
        return self.page.get(message) or self.report.get(message, message)

    def sentence(self, text: str, deep: int = 0) -> str:
        """Translate a sentence that was put together elsewhere: a reason, an alarm.

        What no catalogue knows, such as the words of a network, stays as it is, and so does the
        rest of a very long list.

        Args:
            text: the sentence.
            deep: how many sentences it stands within.
        """
        if self.code == ENGLISH or deep > _DEEPEST:
            return text
        for pattern, translation in self._patterns:
            found = pattern.fullmatch(text)
            if found:
                return translation.format(
                    **{
                        name: self.sentence(part, deep + 1)
                        if name.startswith(_INNER)
                        else self.rewritten(part)
                        for name, part in found.groupdict().items()
                    }
                )
        return self.rewritten(text)

    def number(self, value: float, form: str = "%.4g") -> str:
        """Write a number; ``form`` as for the operator ``%``."""
        return self.digits(form % value)

    def digits(self, text: str) -> str:
        """Put this language's decimal mark into a number that is written already."""
        if self.decimal == "." or not _NUMBER.fullmatch(text):
            return text
        return text.replace(".", self.decimal)

    def rewritten(self, text: str) -> str:
        """Write a number or a recorded moment that is text already as this language has it."""
        recorded = _RECORDED.fullmatch(text)
        if recorded is None:
            return self.digits(text)
        moment = self.moment(dt.datetime.fromisoformat(text))
        return f"{moment} UTC" if recorded["utc"] else moment

    def moment(self, at: dt.datetime) -> str:
        """Write a moment, to the second, where this machine is."""
        return f"{self.day_of(at)} {at:%H:%M:%S}"

    def day_of(self, at: dt.date) -> str:
        """Write a day."""
        return at.strftime(self.date)

    @cached_property
    def _patterns(self) -> list[tuple[re.Pattern[str], str]]:
        """Those with the most words first: they are the ones most surely meant."""
        by_words = sorted(self.said.items(), key=lambda one: -len(_PLACE.sub("", one[0])))
        return [(_pattern(message), translation) for message, translation in by_words]


@lru_cache(maxsize=1)  # asked for every entry of a browser's header, which may have thousands
def languages() -> tuple[str, ...]:
    """Return the codes of all languages, English first."""
    catalogues = files("hvq_edge.design").joinpath("languages").iterdir()
    found = sorted(one.name.removesuffix(".toml") for one in catalogues)
    return (ENGLISH, *(code for code in found if code != ENGLISH))


@lru_cache(maxsize=8)
def language_of(code: str) -> Language:
    """Return a language.

    Raises:
        SettingsError: there is no catalogue of it.
    """
    if code == ENGLISH:
        return Language()
    if code not in languages():
        raise SettingsError(
            f"there is no catalogue of the language {code!r}.",
            next_step=f"choose one of {', '.join(languages())}, or add one file (CONTRIBUTING.md)",
        )
    text = files("hvq_edge.design").joinpath(f"languages/{code}.toml").read_text("utf-8")
    tables = tomllib.loads(text)
    return Language(code, **tables.pop("language"), **tables)


def preferred(accepted: str) -> Language:
    """Return the language that a browser's ``Accept-Language`` wants most of those that are there.

    Example:
        >>> preferred("fr-CH, de;q=0.9, en;q=0.8").code
        'de'
    """
    ranked: list[tuple[float, int, str]] = []
    for place, entry in enumerate(accepted.split(",")):
        name, _, weight = entry.partition(";")
        try:
            rank = float(weight.strip().lower().removeprefix("q=") or 1.0)
        except ValueError:
            continue
        code = name.strip().partition("-")[0].lower()
        if rank > 0 and code in languages():
            ranked.append((-rank, place, code))
    return language_of(min(ranked)[2]) if ranked else Language()


_chosen: Language | None = None
_spoken: ContextVar[Language | None] = ContextVar("language", default=None)


def use_language(code: str | None) -> None:
    """Choose the language of the pages that this process makes; ``None`` changes nothing.

    Raises:
        SettingsError: there is no catalogue of it.
    """
    global _chosen  # noqa: PLW0603 - one language for a process, as a locale is
    if code is not None:
        _chosen = language_of(code)


@contextmanager
def speaking(language: Language) -> Iterator[None]:
    """Make pages in a language as long as the ``with`` block runs, in this thread alone."""
    token = _spoken.set(language)
    try:
        yield
    finally:
        _spoken.reset(token)


def current() -> Language:
    """Return the language that was chosen: by an option, else by ``HVQ_EDGE_LANGUAGE``.

    Raises:
        SettingsError: there is no catalogue of it.
    """
    return _spoken.get() or _chosen or _of_environment()


def _of_environment() -> Language:
    code = os.environ.get(VARIABLE) or ENGLISH
    try:
        return language_of(code)
    except SettingsError as error:
        raise SettingsError(f"{VARIABLE}: {error.cause}", next_step=error.next_step) from None


def _pattern(message: str) -> re.Pattern[str]:
    parts = _PLACE.split(message)
    for place in range(0, len(parts), 2):
        parts[place] = re.escape(parts[place])
    for place in range(1, len(parts), 2):
        several = parts[place] == _NAMES or parts[place].startswith(_INNER)
        parts[place] = f"(?P<{parts[place]}>{'.' if several else _ONE}+?)"
    return re.compile("".join(parts), re.DOTALL)
