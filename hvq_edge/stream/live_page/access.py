"""Who may read the live page, and who may change something: one token decides.

The token itself never goes into a cookie: the cookie holds a keyed hash of it, so that it stays
valid over a restart, and whoever reads the cookie cannot use the API of another program with it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from pathlib import Path

from starlette.requests import cookie_parser

from hvq_edge.errors import SettingsError
from hvq_edge.stream.live_page.settings import LivePageSettings
from hvq_edge.stream.same_site import is_host

SHORTEST_TOKEN = 16
"""Characters: what a person makes up below that can be guessed over a network."""
_HEAVIEST_TOKEN_FILE = 4096


class Access:
    """Decides by the headers of a request.

    Args:
        token: the secret.
        reading_is_open: whether reading needs no token.
        names: host names that a browser may use, besides addresses and ``localhost``.
    """

    def __init__(
        self, token: str, *, reading_is_open: bool = False, names: tuple[str, ...] = ()
    ) -> None:
        self._token = token.encode()
        self._session = hmac.new(self._token, b"hvq-edge live page", hashlib.sha256).hexdigest()
        self._names = {name.lower() for name in names}
        self.reading_is_open = reading_is_open

    @property
    def session(self) -> str:
        """The cookie's value after a login."""
        return self._session

    def is_token(self, given: str) -> bool:
        """Compare in constant time."""
        return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), self._token)

    def knows(self, headers: Mapping[str, str], cookie: str) -> bool:
        """Tell whether a request carries the token, or the cookie of a login.

        Args:
            headers: by lower-case name.
            cookie: the cookie's name.
        """
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.is_token(given.strip()):
            return True
        # Other programs of this host send theirs as well, in whatever form: not http.cookies, which
        # stops at the first that it does not like.
        session = cookie_parser(headers.get("cookie", "")).get(cookie, "")
        return hmac.compare_digest(session.encode("utf-8", "surrogatepass"), self._session.encode())

    def is_host(self, header: str) -> bool:
        """Tell whether a Host header is one of ours."""
        return is_host(header, self._names)


def open_access(settings: LivePageSettings) -> tuple[Access, str]:
    """Read the token, or make one.

    Returns:
        The access, and the token that was made for this run; empty if it came from a file.

    Raises:
        SettingsError: the token file cannot be read, or holds no token that is safe.
    """
    if settings.token_file is not None:
        token = _read_token(settings.token_file)
        return Access(token, names=(*settings.names, settings.host)), ""
    token = secrets.token_urlsafe(24)
    return Access(token, reading_is_open=True, names=settings.names), token


def _read_token(file: Path) -> str:
    try:
        with file.open(encoding="utf-8") as opened:
            token = opened.read(_HEAVIEST_TOKEN_FILE).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise SettingsError(
            f"the token file {file} cannot be read: {reason}.",
            next_step="make one that only the service can read: "
            f"(umask 077; openssl rand -hex 24 > {file})",
        ) from error
    if len(token) < SHORTEST_TOKEN or not token.isascii() or any(c.isspace() for c in token):
        raise SettingsError(
            f"the token in {file} is not one line of at least {SHORTEST_TOKEN} ASCII characters "
            "without blanks.",
            next_step=f"make a better one: (umask 077; openssl rand -hex 24 > {file})",
        )
    return token
