"""Where the live page is served, and who may see it."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from hvq_edge.common.records import Strict, faults_of
from hvq_edge.common.redaction import redacted
from hvq_edge.design.language import languages
from hvq_edge.errors import SettingsError

DEFAULT_PORT = 8642


class LivePageSettings(Strict):
    """Settings of the live page; :meth:`of` reports faults as one message."""

    host: str = "127.0.0.1"
    """Address to serve it on; any but 127.0.0.1 needs --page-token-file."""
    port: int = Field(DEFAULT_PORT, ge=0, le=65535)
    """Port; 0 takes any that is free."""
    token_file: Path | None = None
    """File with the token that the page asks for. Without one reading is open to this machine, and
    a token that lasts as long as the run is made for changes."""
    names: tuple[str, ...] = ()
    """Host names under which a browser may reach the page, besides addresses and ``localhost``:
    those of a reverse proxy, for example."""
    language: str | None = None
    """Of the page: en, de. By default the one that the browser asks for."""
    frames_per_second: float = Field(10.0, gt=0.0, le=60.0)
    """At most so many images a second go to one browser."""

    @classmethod
    def of(cls, **values: Any) -> LivePageSettings:  # noqa: ANN401 - pydantic checks them
        """Check and make settings.

        Raises:
            SettingsError: lists every fault with its key.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise SettingsError(
                f"the live page cannot be set up so: {'; '.join(faults_of(error, cls))}.",
                next_step="docs/reference/line-settings.md lists its settings",
            ) from error

    @field_validator("language")
    @classmethod
    def _language_is_there(cls, code: str | None) -> str | None:
        if code is not None and code not in languages():
            raise ValueError(f"choose one of {', '.join(languages())}")
        return code

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the page."""
        return is_loopback(self.host)

    @model_validator(mode="after")
    def _others_need_a_token(self) -> LivePageSettings:
        if not self.loopback and self.token_file is None:
            raise ValueError(
                f"whoever reaches {redacted(self.host)} could see the page: give a token file "
                "(--page-token-file, or token_file in [page]; --token-file of hvq-edge "
                "review and serve), or serve it on 127.0.0.1"
            )
        return self


def is_loopback(host: str) -> bool:
    """Tell whether an address or name is this machine's own; a name that is not known is not."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
