"""What a command says when Ctrl-C ends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def advice_if_interrupted(advice: Callable[[], str]) -> Iterator[None]:
    """Give a Ctrl-C within the block its advice; an outer block's replaces an inner one's.

    Args:
        advice: asked at that moment; one or two sentences, or nothing.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(advice()) from None


def interruption_said(stop: BaseException) -> str | None:
    """Return what to say of an end by Ctrl-C; ``None`` where it was none.

    Args:
        stop: what ended the command; Typer turns a ``KeyboardInterrupt`` into its own exceptions.
    """
    error: BaseException | None = stop
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return None if error is None else f"Interrupted. {error}".rstrip()
