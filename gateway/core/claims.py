"""From a token's claims to who calls: paths into them, and names made of what stands there."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from gateway.core.principal import KeyEntry
from gateway.core.token import Claims, Jwt

_LONGEST = 128  # characters of a name, as everywhere
_MOST_WORDS = 256  # roles, models or tags of one token
_MOST_TAGS = 16
_TAG = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:/=+@-")
NOTHING = ""  # a glob that no model matches


class Unfit(ValueError):
    """A claim that is there and can't be used; the message says which, and never what it says."""


def at(claims: Any, path: str) -> Any:
    """What stands at a dotted path, None where nothing does.

    Numbers are places in lists. A claim whose own name has dots ("https://example.com/org") is found by it:
    the longest name that is there counts.
    """
    if isinstance(claims, list):
        head, _, rest = path.partition(".")
        if not (head.isascii() and head.isdecimal() and len(head) < 6) or int(head) >= len(claims):
            return None
        found = claims[int(head)]
        return at(found, rest) if rest else found
    if not isinstance(claims, Mapping):
        return None
    if path in claims:
        return claims[path]
    head = path
    while (dot := head.rfind(".")) > 0:
        head = head[:dot]
        if head in claims:
            return at(claims[head], path[dot + 1 :])
    return None


def label(value: Any, path: str) -> str:
    """A claim as a name: text or a whole number; "" for what is not there. Raises `Unfit`.

    Characters that names can't have are written as in URLs, so that two claims never give one name.
    """
    if value is None or value == "":
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value) if abs(value) < 1 << 63 else value
    if not isinstance(value, str):
        raise Unfit(f"{path} is neither text nor a whole number")
    name = _written(value[: _LONGEST + 1])
    if len(name) > _LONGEST:
        raise Unfit(f"{path} is longer than {_LONGEST} characters")
    return name


def _written(text: str) -> str:
    name = "".join(char if _plain(char) else _escaped(char) for char in text)
    name = _escaped(" ") + name[1:] if name.startswith(" ") else name
    return name[:-1] + _escaped(" ") if name.endswith(" ") else name


def _plain(char: str) -> bool:
    return char.isprintable() and char not in "/|%"


def _escaped(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))


def words(value: Any, path: str) -> tuple[str, ...]:
    """A claim as words: a list of texts, or a text with blanks between. Raises `Unfit`."""
    if value is None:
        return ()
    found = value.split() if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
        raise Unfit(f"{path} is neither a list of texts nor a text")
    if len(found) > _MOST_WORDS or any(len(word) > _LONGEST or not word.isprintable() for word in found):
        raise Unfit(f"{path} has more than {_MOST_WORDS} entries, or one that is no name")
    return tuple(dict.fromkeys(word for word in found if word))


def entry(rule: Jwt, claims: Mapping[str, Any], expires: float) -> KeyEntry:
    """The caller that a good token's claims name, as a key would. Raises `Unfit`.

    Its id is the same for every token of one subject of one issuer.
    """
    for path in rule.required:
        if at(claims, path) in (None, "", []):
            raise Unfit(f"{path} is missing")
    where = rule.claims
    tenant, team, user = (
        label(_find(claims, where, part), getattr(where, part)) for part in ("tenant", "team", "user")
    )
    subject = claims.get("sub") or user
    if not isinstance(subject, str) or not subject:
        raise Unfit("sub is missing, and so is the user")
    return KeyEntry(
        id=f"jwt:{_digest(rule.issuer, subject)}",
        name=_written(subject[:_LONGEST])[:_LONGEST],
        digest=b"",
        tenant=tenant,
        team=team,
        user=user,
        roles=words(_find(claims, where, "roles"), where.roles) if where.roles else ("caller",),
        models=_models(_find(claims, where, "models"), where.models),
        tags=_tags(_find(claims, where, "tags"), where.tags),
        expires=expires,
        origin="jwt",
    )


def _find(claims: Mapping[str, Any], where: Claims, part: str) -> Any:
    path: str = getattr(where, part)
    return at(claims, path) if path else None


def _digest(issuer: str, subject: str) -> str:
    return hashlib.sha256(f"{issuer}|{subject}".encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _models(value: Any, path: str) -> tuple[str, ...]:
    """Globs. An empty list is a list: it allows none."""
    found = words(value, path)
    return found if found or value is None else (NOTHING,)


def _tags(value: Any, path: str) -> tuple[str, ...]:
    found = words(value, path)
    if len(found) > _MOST_TAGS or any(len(tag) > 64 or not _TAG.issuperset(tag) for tag in found):
        raise Unfit(f"{path} has more than {_MOST_TAGS} tags, or one that is none")
    return found
