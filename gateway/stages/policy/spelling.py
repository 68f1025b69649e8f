"""Names that other servers may read as another one: where that would matter a condition can't be told."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote

from gateway.core.policy import Globs

# What may stand before an endpoint where a backend's address ends early: its API, its version, a deployment.
_BEFORE = re.compile(r"(?:(?:openai|v1)/)*(?:(?:deployments|engines)/[^/]+/)?")


def endpoints(path: str) -> tuple[str, ...]:
    """Endpoints that a path comes to where a server decodes it, folds its case or drops its last slash, also
    with what may stand before an endpoint left out."""
    plain = unquote(path).strip("/").lower()
    before = _BEFORE.match(plain)
    return (plain, plain[before.end() :]) if before is not None and before.end() else (plain,)


def model(name: str) -> str:
    """A model's name to servers that do not mind its case."""
    return name.strip().casefold()


@lru_cache(4096)
def folded(globs: Globs) -> Globs:
    """The patterns of such a server."""
    return Globs(tuple(map(str.casefold, globs.of)), tuple(map(str.casefold, globs.but)))
