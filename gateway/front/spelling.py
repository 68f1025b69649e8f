"""Other spellings of the paths whose calls are metered.

A server may decode one, or serve it under a prefix, and what it then makes would have passed by the rules
for endpoints, models and money. So each of these paths has one spelling here.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from gateway.core.errors import CallerError

_METERED = re.compile(
    r"/(?:(?:(?:openai/)?v1/)*(messages)|(?:.*?/)??((?:chat/)?completions|embeddings|responses|moderations"
    r"|rerank|audio/(?:speech|trans[a-z]+)|images/(?:generations|edits|variations)))(?:/*[;?].*|/*)\Z",
    re.IGNORECASE,
)
_READING = frozenset(("GET", "HEAD", "OPTIONS", "DELETE"))


def check(method: str, path: str) -> None:
    """A path without a leading /v1. Raises `CallerError` where it leads elsewhere than it says."""
    if method in _READING:
        return
    meant = _METERED.match(unquote(path))
    if meant is None:
        return
    known = (meant.group(1) or meant.group(2)).lower()
    if path != f"/{known}":
        raise CallerError(f"This is another spelling of /v1/{known}: send the call there, with a 'model'.")
