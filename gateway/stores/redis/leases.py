"""Batches of questions about limits, as the store's script takes them."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.core.codec import dumps
from gateway.core.limit import SLICES, LimitRule, slice_us
from gateway.stores.redis.client import Lost, Store, Word
from gateway.stores.redis.script import HELLO, LEASES

_FIRST = "t0"
TAGS = 64  # slots that buckets are spread over: those of a tenant share one
CHANNEL = "limits"
GRACE = 1.5  # seconds that replicas have to tell an empty store what they have used
THERE = 15.0  # seconds after its last word for which a replica counts as there
_LATE = 0.25  # seconds beyond the deadline after which the store is to ignore a question


class Forgotten(Exception):
    """The store is not the one that was greeted: it has been emptied, or another took its place."""


class Overtaken(Exception):
    """The question arrived too late, and nothing came of it."""


@dataclass(slots=True, frozen=True)
class Met:
    """What a greeting tells: the store's time, replicas that are there, seconds until it grants anything.

    `forgotten`: it has been empty since the last greeting.
    """

    now: float
    replicas: int
    grace: float
    forgotten: bool


class RedisLeases:
    """One replica's word with the store. All raise `Lost`."""

    def __init__(self, store: Store, replica: str, boot: str, lease: float) -> None:
        self._store = store
        self._replica = replica
        self._boot = boot
        self._lease = round(lease * 1_000_000)
        self._epochs: dict[str, str] = {}
        self._used = {_FIRST}
        self.trips = 0  # round trips so far

    async def greet(self, first: bool = False, leaving: bool = False) -> Met:
        """Say that this replica is there, or leaves. `first`: to all that it may ever ask."""
        tags = sorted(self._used)
        if not self._store.sharded:
            tags = [_FIRST]
        elif first:
            tags = [f"t{n}" for n in range(TAGS)]
        answers = await asyncio.gather(*[self._greet(tag, leaving) for tag in tags])
        now, grace, replicas, forgotten = 0.0, 0.0, 1, False
        for tag, (at, epoch, count) in zip(tags, answers, strict=True):
            forgotten = forgotten or self._epochs.get(tag) != epoch.decode()
            self._epochs[tag] = epoch.decode()
            now, replicas = max(now, at / 1e6), max(replicas, count)
            grace = max(grace, (int(epoch.split()[1]) - at) / 1e6)
        return Met(now, replicas, grace, forgotten)

    async def _greet(self, tag: str, leaving: bool) -> Any:
        keys = [self._key(tag, "epoch"), self._key(tag, "replicas")]
        args: list[Word] = [
            f"{self._boot}.{tag}",
            round(GRACE * 1e6),
            self._replica,
            round(THERE * 1e6),
            int(leaving),
        ]
        self.trips += 1
        return await self._store.run(HELLO, keys, args)

    def _key(self, tag: str, rest: str) -> str:
        return self._store.named(f"{{{tag}}}:{rest}")

    async def exchange(
        self, asked: Sequence[tuple[LimitRule, str, int, dict[str, Any]]], now: float, replicas: int
    ) -> tuple[float, list[list[Any]]]:
        """Ask about rules and scope values, with what fits at most and the question itself.

        `now` is the store's time as far as it is known. Gives its time and, for each, [status, …] as the
        script tells it. Raises `Forgotten` and `Overtaken` too: then a part of it may have been taken in.
        """
        groups: dict[str, list[int]] = {}
        for place, (rule, value, _, _) in enumerate(asked):
            tag = tag_of(rule, value) if self._store.sharded else _FIRST
            groups.setdefault(tag, []).append(place)
            self._used.add(tag)
        found = await asyncio.gather(
            *[
                self._ask(tag, [asked[place] for place in places], now, replicas)
                for tag, places in groups.items()
            ],
            return_exceptions=True,
        )
        answers: list[list[Any]] = [[] for _ in asked]
        at = 0.0
        for places, answer in zip(groups.values(), found, strict=True):
            if isinstance(answer, BaseException):
                raise answer
            at = max(at, answer[0])
            for place, reply in zip(places, answer[1], strict=True):
                answers[place] = reply
        return at, answers

    async def _ask(
        self, tag: str, asked: Sequence[tuple[LimitRule, str, int, dict[str, Any]]], now: float, replicas: int
    ) -> tuple[float, list[list[Any]]]:
        keys, documents = [self._key(tag, "epoch")], []
        for rule, value, most, document in asked:
            shape, window = _window(rule, most, document)
            name = f"{rule.id}|{value}"
            keys.append(self._key(tag_of(rule, value), f"l:{shape}:{name}"))
            documents.append({**document, **window, "name": name, "cap": most})
        head = {"id": self._replica, "epoch": self._epochs.get(tag, ""), "lease": self._lease}
        head |= {"void": round((now + self._store.deadline + _LATE) * 1e6), "replicas": max(replicas, 1)}
        head["channel"] = self._store.named(CHANNEL)
        self.trips += 1
        answer = await self._store.run(LEASES, keys, [dumps(head), dumps(documents)])
        if answer[0] == b"epoch":
            raise Forgotten
        if answer[0] == b"late":
            raise Overtaken(answer[1] / 1e6)
        return answer[1] / 1e6, answer[2]


def _window(rule: LimitRule, most: int, document: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """How the script is to count: a name for it, which is part of the key, and what it needs."""
    warn = {"warn": rule.warn * most} if rule.warn else {}
    if rule.unit == "concurrent":
        return "n", {"kind": "none", "keep": 60_000_000}
    if rule.calendar:
        period = [round(border * 1e6) for border in document["period"]]
        window = {"kind": "calendar", "period": period, "keep": period[2] - period[1]}
        return f"{rule.unit}.c.{rule.calendar}.{rule.zone}", window | warn
    if rule.burst:
        step = document["step"]
        keep = max(-(-most * step // 1000), 1_000_000)
        return f"{rule.unit}.g.{rule.seconds:g}", {"kind": "gcra", "step": step, "keep": keep} | warn
    part = slice_us(rule.seconds)
    return f"{rule.unit}.r.{rule.seconds:g}", {
        "kind": "roll",
        "slice": part,
        "keep": part * (SLICES + 1),
    } | warn


def tag_of(rule: LimitRule, value: str) -> str:
    """What decides on the slot: the tenant, or else the bucket itself."""
    owner = f"{rule.id}|{value}"
    if "tenant" in rule.scope:
        place = rule.scope.index("tenant")
        parts = value.split("/")
        owner = parts[-1] if place == len(rule.scope) - 1 else parts[min(place, len(parts) - 1)]
    return f"t{zlib.crc32(owner.encode()) % TAGS}"


__all__ = ["CHANNEL", "Forgotten", "Lost", "Met", "Overtaken", "RedisLeases", "tag_of"]
