"""Quantities with units: durations `250ms 5s 1m 2h 1d`, sizes `32MiB`, windows `1m` or `calendar month`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from gateway.core.limit import CALENDAR
from gateway.settings.faults import did_you_mean, quote
from gateway.settings.kinds import Kind, Reading, Wrong, named_type
from gateway.settings.tree import Node

SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}

_QUANTITY = re.compile(r"(-?[0-9]{1,12}(?:\.[0-9]{1,9})?) ?([A-Za-zµ]*)", re.ASCII)
_YEAR = 366 * SECONDS["d"]


def split(text: str, units: dict[str, Any], what: str, example: str) -> tuple[float, str]:
    """A number and its unit. Raises `Wrong` naming the units there are."""
    match = _QUANTITY.fullmatch(text)
    known = " ".join(units)
    if match is None:
        raise Wrong(f"{quote(text)} is not {what}; write it like {quote(example)}  (units: {known})")
    number, unit = match.groups()
    if not unit:
        raise Wrong(f"{quote(text)} has no unit; write it like {quote(example)}  (units: {known})")
    if unit not in units:
        near = _meant(unit, units)
        right = f"; did you mean {quote(number + near)}?" if near else ""
        raise Wrong(f"{quote(text)} has an unknown unit {quote(unit)}{right}  (units: {known})")
    return float(number), unit


def _meant(unit: str, units: dict[str, Any]) -> str:
    words = {"sec": "s", "second": "s", "min": "m", "minute": "m", "hour": "h", "hr": "h", "day": "d"}
    words |= {"millisecond": "ms", "msec": "ms", "k": "KiB", "kb": "KiB", "mb": "MiB", "gb": "GiB"}
    words |= {"g": "GiB", "byte": "B"} | ({} if "s" in units else {"m": "MiB"})
    plain = unit.lower()
    found = words.get(plain, words.get(plain.rstrip("s"), ""))
    return found if found in units else next((u for u in units if u.lower() == plain), "")


@dataclass
class Duration(Kind):
    """Seconds as a float, from text with a unit."""

    least: float = 0.001
    most: float = _YEAR
    example: str = "5s"

    def parse(self, node: Node, reading: Reading) -> float:
        if not isinstance(node.value, str):
            given = named_type(node.value)
            raise Wrong(f"must be a duration with its unit such as {quote(self.example)}, not {given}")
        number, unit = split(node.value, SECONDS, "a duration", self.example)
        seconds = number * SECONDS[unit]
        if number < 0:
            raise Wrong(f"{quote(node.value)} is negative; durations are not")
        if seconds < self.least:
            raise Wrong(f"must be at least {quote(self.show(self.least))}")
        if seconds > self.most:
            raise Wrong(f"must be at most {quote(self.show(self.most))}")
        return seconds

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? ?(ms|s|m|h|d)$"}

    def show(self, value: float) -> str:
        """In the largest unit up to minutes-as-seconds that keeps it whole: `250ms`, `75s`, `600s`, `2h`."""
        if value and value < 1:
            return f"{value * 1000:g}ms"
        for unit in ("d", "h"):
            if value and value % SECONDS[unit] == 0:
                return f"{value / SECONDS[unit]:g}{unit}"
        return f"{value:g}s"


@dataclass
class Size(Kind):
    """Bytes as an integer, from text with a unit."""

    least: int = 1
    most: int = 1 << 40
    example: str = "32MiB"

    def parse(self, node: Node, reading: Reading) -> int:
        if not isinstance(node.value, str):
            given = named_type(node.value)
            raise Wrong(f"must be a size with its unit such as {quote(self.example)}, not {given}")
        number, unit = split(node.value, BYTES, "a size", self.example)
        size = number * BYTES[unit]
        if size != int(size):
            raise Wrong(f"{quote(node.value)} is not a whole number of bytes")
        if size < self.least:
            raise Wrong(f"must be at least {quote(self.show(self.least))}")
        if size > self.most:
            raise Wrong(f"must be at most {quote(self.show(self.most))}")
        return int(size)

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? ?(B|KiB|MiB|GiB)$"}

    def show(self, value: int) -> str:
        unit = next(u for u in reversed(BYTES) if value % BYTES[u] == 0 and (value >= BYTES[u] or u == "B"))
        return f"{value // BYTES[unit]}{unit}"


class Window(Kind):
    """A limit's `per`: (seconds of a rolling window, "") or (0.0, name of a calendar window)."""

    _rolling = Duration(least=1.0, example="1m")

    def parse(self, node: Node, reading: Reading) -> tuple[float, str]:
        text = node.value
        if not isinstance(text, str):
            raise Wrong(f'must be a window such as "1m" or "calendar month", not {named_type(text)}')
        word, _, name = text.partition(" ")
        if word == "calendar":
            if name not in CALENDAR:
                near = did_you_mean(name, CALENDAR)
                raise Wrong(f"no calendar window {quote(name)}{near}  (calendar {', '.join(CALENDAR)})")
            return 0.0, name
        if text in CALENDAR:
            rolling = {"minute": "1m", "hour": "1h", "day": "1d", "week": "7d", "month": "30d"}[text]
            raise Wrong(
                f"{quote(text)} could mean two windows: rolling is {quote(rolling)}, "
                f"calendar is {quote(f'calendar {text}')}"
            )
        return self._rolling.parse(node, reading), ""

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "anyOf": [self._rolling.schema(), {"pattern": self._calendar()}]}

    def show(self, value: tuple[float, str]) -> str:
        seconds, calendar = value
        if calendar:
            return f"calendar {calendar}"
        whole = seconds % 60 == 0 and seconds % 3600 != 0
        return f"{seconds / 60:g}m" if whole else self._rolling.show(seconds)

    @staticmethod
    def _calendar() -> str:
        return f"^calendar ({'|'.join(CALENDAR)})$"
