"""Which endpoint a path is, and that those whose calls are metered have one spelling.

A server may decode another one, or serve it under a prefix, and what it then makes would have passed by the
rules for endpoints, models and money.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from gateway.core.endpoints import ENDPOINTS, FAMILIES, MAKING
from gateway.core.errors import CallerError

_SLASH_V1 = re.compile(r"/v1(?=/|\Z)")
# Paths of other things end in /messages as well, those of threads.
_METERED = "|".join(sorted(map(re.escape, MAKING - {"messages"})))
_SPELT = re.compile(
    rf"/(?:(?:(?:openai/)?v1/)*(messages)|(?:.*?/)??({_METERED}))(?:/*[;?].*|/*)\Z", re.IGNORECASE
)
_READING = frozenset(("GET", "HEAD", "OPTIONS", "DELETE"))


def place(path: str) -> tuple[str, str]:
    """The path without a leading /v1, and the endpoint's name ("other" for paths without one)."""
    plain = path[3:] if _SLASH_V1.match(path) else path
    name = plain[1:]
    if name in ENDPOINTS:
        return plain, name
    family = name.partition("/")[0]
    return plain, family if family in FAMILIES else "other"


def check(method: str, path: str) -> None:
    """A path without a leading /v1. Raises `CallerError` where it leads elsewhere than it says."""
    if method in _READING:
        return
    meant = _SPELT.match(unquote(path))
    if meant is None:
        return
    known = (meant.group(1) or meant.group(2)).lower()
    if path != f"/{known}":
        raise CallerError(f"This is another spelling of /v1/{known}: send the call there, with a 'model'.")
