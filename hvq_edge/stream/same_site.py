"""Whether a request may have been made by another site's page in somebody's browser.

A browser on this machine, or on one that reaches it, may be made to ask for anything by whatever
page is open in it. Each server of the inspector asks both functions before it does anything.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")
"""A name or an address, and a port. No more: whatever else the syntax of a URL allows here (a path,
a user) would be read in one way by us and in another by a library."""


def is_host(header: str, names: Collection[str] = ()) -> bool:
    """Tell whether a Host header is one of ours.

    A page of another site can point its own name at this machine (DNS rebinding), and then
    reads what we serve. It cannot do so with an address, so addresses are always fine.

    Args:
        header: its value.
        names: host names that are ours besides ``localhost``, in lower case.
    """
    match = _HOST.fullmatch(header)
    if match is None:
        return False
    host = match[1].strip("[]").lower()
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host in names
    return True


def is_same_origin(headers: Mapping[str, str]) -> bool:
    """Tell whether a request comes from our own page, or from no page at all.

    Browsers send ``Origin`` with everything that may change something; programs do not.

    Args:
        headers: by lower-case name.
    """
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin, host = headers.get("origin"), headers.get("host")
    return origin is None or origin in (f"http://{host}", f"https://{host}")
