"""Conditions made ready: what does not change between calls is decided once, the rest becomes closures.

A condition that is bound to a caller, model, endpoint, backend and tags is True, False, None (it can't be
told), or a function of `Seen` that gives one of these.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from fnmatch import translate
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any
from zoneinfo import ZoneInfo

from gateway.core.policy import CLASS, STEADY, Globs, Header, Hours, Levels, Networks, Range, When
from gateway.core.principal import KeyEntry
from gateway.core.tools import Offered
from gateway.stages.policy import spelling
from gateway.stages.policy.seen import EMPTY, OPAQUE, UNKNOWN, Seen

Holds = Callable[[Seen], bool | None]
Bound = bool | None | Holds

_MOST_ADDRESSES = 4096


@lru_cache(4096)
def matcher(globs: Globs) -> Callable[[str], bool]:
    """Whether a value that is there matches."""
    of, but = _any_of(globs.of), _any_of(globs.but)
    if not globs.but:
        return of if globs.of else lambda value: True
    if not globs.of:
        return lambda value: not but(value)
    return lambda value: of(value) and not but(value)


def _any_of(patterns: tuple[str, ...]) -> Callable[[str], bool]:
    exact = frozenset(pattern for pattern in patterns if not any(mark in pattern for mark in "*?["))
    globs = [re.compile(translate(pattern)).match for pattern in patterns if pattern not in exact]
    if not globs:
        return exact.__contains__
    return lambda value: value in exact or any([glob(value) for glob in globs])


def one(globs: Globs, *values: str) -> bool:
    """Whether one thing with several names matches: any of them `of`, none of them `but`."""
    there = [value for value in values if value]
    if globs.of and not any(map(matcher(Globs(globs.of)), there)):
        return False
    return not (globs.but and any(map(matcher(Globs(globs.but)), there)))


def some(globs: Globs, values: Sequence[str]) -> bool:
    """Whether at least one of several values matches."""
    return any(map(matcher(globs), values))


class Fixed:
    """What stays the same for one caller, model, endpoint and tags; `backend` is filled in by turns."""

    def __init__(
        self,
        key: KeyEntry,
        model: str,
        names: tuple[str, ...],
        tags: tuple[str, ...],
        kind: int,
        levels: Sequence[str],
    ) -> None:
        self.meant = [meant for meant in spelling.endpoints(names[-1]) if meant not in names]
        self.tags = tags
        self.level = level_of(tags, levels)
        self.levels = levels
        self.roles = key.roles
        self.hidden = kind == OPAQUE and not model  # the model stands where nobody here can read it
        self.asked = bool(model) or not (kind == EMPTY or names[0] == "files")  # else no model is asked
        self.names: dict[str, tuple[str, ...]] = {
            "tenant": (key.tenant,),
            "team": (key.team,),
            "user": (key.user,),
            "key": (key.name, key.id),
            "model": (model,),
            "endpoint": names,
            "backend": ("",),
        }

    def holds(self, name: str, test: Any) -> bool | None:
        """Whether a steady attribute passes its test."""
        if name == "tags":
            return some(test, self.tags)
        if name == "roles":
            return some(test, self.roles)
        if name == "classification":
            return _level(test, self.level, self.levels)
        if name == "model" and (self.hidden or not self.asked):
            return None if self.hidden else False
        found = one(test, *self.names[name])
        if name == "endpoint" and any([one(test, meant) is not found for meant in self.meant]):
            return None  # many servers would take it for that endpoint
        if name == "model" and one(spelling.folded(test), spelling.model(self.names[name][0])) is not found:
            return None  # or for that model
        return found


def level_of(tags: Sequence[str], levels: Sequence[str]) -> int:
    """How sensitive the data is: the highest `class:…` tag; one that names no level counts as the highest."""
    found = 0
    for tag in tags:
        if tag.startswith(CLASS):
            name = tag[len(CLASS) :]
            found = max(found, levels.index(name) if name in levels else len(levels) - 1)
    return found


def _level(test: Levels, level: int, levels: Sequence[str]) -> bool:
    if test.of:
        return levels[level] in test.of
    if test.above and level <= levels.index(test.above):
        return False
    return not (test.below and level >= levels.index(test.below))


def bind(when: When, fixed: Fixed) -> Bound:
    """A condition for one caller, model, endpoint, backend and set of tags."""
    parts: list[Bound] = []
    for name, test in when.tests:
        parts.append(fixed.holds(name, test) if name in STEADY else dynamic(name, test))
    if when.either:
        parts.append(_either([bind(each, fixed) for each in when.either]))
    parts += [_never(bind(each, fixed)) for each in when.never]
    return _every(parts)


def _every(parts: list[Bound]) -> Bound:
    if any(part is False for part in parts):
        return False
    rest = [part for part in parts if callable(part)]
    sure = None if any(part is None for part in parts) else True
    if not rest:
        return sure
    if len(rest) == 1 and sure:
        return rest[0]

    def holds(seen: Seen) -> bool | None:
        result = sure
        for part in rest:
            found = part(seen)
            if found is False:
                return False
            if found is None:
                result = None
        return result

    return holds


def _never(part: Bound) -> Bound:
    if not callable(part):
        return None if part is None else not part
    holds = part

    def never(seen: Seen) -> bool | None:
        found = holds(seen)
        return None if found is None else not found

    return never


def _either(parts: list[Bound]) -> Bound:
    return _never(_every([_never(part) for part in parts]))


# -- what differs from call to call


def dynamic(name: str, test: Any) -> Holds:
    """The test of an attribute that is a matter of the single call."""
    if isinstance(test, Globs):
        return _named(name, test)
    if isinstance(test, Range):
        return _measured(test, _MEASURES[name])
    if isinstance(test, bool):
        flag = Seen.stream if name == "stream" else Seen.images
        return lambda seen: None if (found := flag(seen)) is None else found is test
    return _BY_TYPE[type(test)](test)


def _named(name: str, test: Globs) -> Holds:
    if name == "session":
        return lambda seen: one(test, seen.call.session)
    told = Seen.tools if name == "tools" else Seen.choice
    matches = matcher(test)

    def holds(seen: Seen) -> bool | None:
        found: Offered = told(seen)
        for value in found.names:
            if matches(value):
                return True
        return None if found.unknown else False

    return holds


_MEASURES: Mapping[str, Callable[[Seen], Any]] = {
    "cost": Seen.cost,
    "tokens": Seen.tokens,
    "max_tokens": Seen.max_tokens,
    "temperature": Seen.temperature,
}


def _measured(test: Range, measure: Callable[[Seen], Any]) -> Holds:
    above, below = test.above, test.below

    def holds(seen: Seen) -> bool | None:
        value = measure(seen)
        if value is None or value is UNKNOWN:
            return False if value is None else None
        return (above is None or value > above) and (below is None or value < below)

    return holds


def _hours(test: Hours) -> Holds:
    zone = ZoneInfo(test.zone)
    last, state = -1, False

    def holds(seen: Seen) -> bool:
        nonlocal last, state
        minute = int(seen.call.wall // 60)
        if minute != last:  # spans and zones change at whole minutes
            last, state = minute, within(test, datetime.fromtimestamp(minute * 60, zone))
        return state

    return holds


def within(test: Hours, now: datetime) -> bool:
    """Whether a moment lies in the hours, by the clock of its zone."""
    day, minute = now.weekday(), now.hour * 60 + now.minute
    if not test.spans:
        return day in test.days
    for begin, end in test.spans:
        if begin < end:
            if begin <= minute < end and day in test.days:
                return True
        elif (minute >= begin and day in test.days) or (minute < end and (day - 1) % 7 in test.days):
            return True
    return False


def _networks(test: Networks) -> Holds:
    of, but = ([ip_network(text) for text in texts] for texts in (test.of, test.but))
    known: dict[str, bool] = {}

    def inside(client: str) -> bool:
        try:
            address = ip_address(client.partition("%")[0])
        except ValueError:  # a Unix socket's client has none
            return not of
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return (not of or any(address in each for each in of)) and not any(address in each for each in but)

    def holds(seen: Seen) -> bool:
        client = seen.call.client
        found = known.get(client)
        if found is None:
            if len(known) >= _MOST_ADDRESSES:
                known.clear()
            found = known[client] = inside(client)
        return found

    return holds


def _header(test: Header) -> Holds:
    name, matches, absent = test.name.encode(), matcher(test.value), not test.value.of

    def holds(seen: Seen) -> bool:
        values = [value for key, value in seen.call.headers if key == name]
        return any([matches(value.decode("latin-1")) for value in values]) if values else absent

    return holds


_BY_TYPE: Mapping[type, Callable[[Any], Holds]] = {Hours: _hours, Networks: _networks, Header: _header}
