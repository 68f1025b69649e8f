"""Access policies as the operator wrote them: when they hold, and what they then do.

A condition is true, false, or can't be told from what the gateway sees of a call. What can't be told is
taken for the worse: a denial, a requirement and a setting hold unless the condition is false, an allowance
holds only where it is true.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

LEVELS = ("public", "internal", "confidential", "restricted")
CLASS = "class:"  # a tag of this form classifies a call's data
DEFAULT = "default"  # stands for `[access] default` where a policy's name would stand

# Attributes of a call that do not change from call to call of one principal, model, endpoint and set of tags.
STEADY = frozenset(("tenant", "team", "user", "key", "model", "endpoint", "backend", "roles", "tags",
                    "classification"))  # fmt: skip


@dataclass(slots=True, frozen=True)
class Globs:
    """Holds for a value that matches one of `of` (any value where that is empty) and none of `but`.

    What is absent matches no `of`. Of several values one has to hold.
    """

    of: tuple[str, ...] = ()
    but: tuple[str, ...] = ()


@dataclass(slots=True, frozen=True)
class Networks:
    """As `Globs`, for an IP address: CIDR ranges."""

    of: tuple[str, ...] = ()
    but: tuple[str, ...] = ()


@dataclass(slots=True, frozen=True)
class Range:
    """Holds strictly between the two; None is no bound."""

    above: float | None = None
    below: float | None = None


@dataclass(slots=True, frozen=True)
class Levels:
    """Holds for these levels of data, or for those above or below one ("" is no bound)."""

    of: tuple[str, ...] = ()
    above: str = ""
    below: str = ""


@dataclass(slots=True, frozen=True)
class Hours:
    """Holds on these days (0 is Monday) within these spans, in minutes since midnight of time `zone`.

    A span that ends at or before its beginning goes on into the next day and belongs to the day it began.
    """

    days: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6)
    spans: tuple[tuple[int, int], ...] = ()
    zone: str = "UTC"


@dataclass(slots=True, frozen=True)
class Header:
    """Holds when one of the request headers of this (lower-case) name does."""

    name: str
    value: Globs


@dataclass(slots=True, frozen=True)
class When:
    """A condition: every test holds, and one of `either` where there are any, and none of `never`.

    A test is a pair of attribute and `Globs`, `Networks`, `Range`, `Levels`, `Hours`, `Header` or bool.
    """

    tests: tuple[tuple[str, Any], ...] = ()
    either: tuple[When, ...] = ()
    never: tuple[When, ...] = ()

    def attributes(self) -> Iterator[str]:
        """Every attribute that is looked at, at any depth."""
        for name, _ in self.tests:
            yield name
        for inner in (*self.either, *self.never):
            yield from inner.attributes()


@dataclass(slots=True, frozen=True)
class Tooling:
    """What tools must be: `none` of them; by name; `strict`; `constrained` (see docs/policies.md)."""

    none: bool = False
    only: Globs | None = None
    strict: bool = False
    constrained: bool = False


@dataclass(slots=True, frozen=True)
class Demand:
    """What a call must have. `stated` are members of its body that must be there and not null."""

    response_format: bool = False  # an answer that follows a JSON schema
    most_tokens: int = 0  # max_tokens must be stated, and not be above; 0: no such demand
    tools: Tooling | None = None
    tool_choice: Globs | None = None
    tags: Globs | None = None
    stream: bool | None = None
    stated: tuple[str, ...] = ()


@dataclass(slots=True, frozen=True)
class Setting:
    """One change to a body's member: an exact value, or a ceiling; of tools those to `remove`."""

    member: str
    value: Any = None
    at_most: float | None = None
    remove: Globs | None = None


@dataclass(slots=True, frozen=True)
class Policy:
    """One `[[policies]]`. Exactly one of `allow`, `deny` (the message) and the pair `require`, `set`.

    In the mode "shadow" it is counted and noted, refuses nothing and changes nothing.
    """

    name: str
    when: When = When()
    allow: bool = False
    deny: str = ""
    require: Demand | None = None
    set: tuple[Setting, ...] = ()
    mode: str = "enforce"

    @property
    def effect(self) -> str:
        """What it does, in a word or two: allow, deny, require, set, "require, set"."""
        if self.allow or self.deny:
            return "allow" if self.allow else "deny"
        return ", ".join(word for word, there in (("require", self.require), ("set", self.set)) if there)


@dataclass(slots=True, frozen=True)
class Access:
    """`[access]`: what holds where no policy allows or denies, and the levels of data, lowest first."""

    default: str = "allow"
    classifications: tuple[str, ...] = LEVELS


OPEN = Access()
