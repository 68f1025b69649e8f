"""`/admin/v1/audit`: who did what, as pages or as JSON lines, and whether the chains are whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from gateway.control.operation import MOST, PAGE, Answer, Ask, Operation
from gateway.core.audit import members, verify
from gateway.core.codec import canonical
from gateway.core.errors import CallerError
from gateway.core.moment import moment
from gateway.core.records import AuditRecord

_BATCH = 500  # records read at once: the ledger's writer is not kept waiting


async def _list(ask: Ask) -> Answer:
    most = ask.whole("limit", PAGE, 1, MOST)
    found = await ask.desk.do(_reading(ask, most + 1, _beyond(ask)))
    last = found[most - 1] if len(found) > most else None
    following = f"{last.chain}:{last.n}" if last is not None else None
    return Answer({"data": [members(record) for record in found[:most]], "next": following})


async def _export(ask: Ask) -> Answer:
    beyond = _beyond(ask)
    first = await ask.desk.do(_reading(ask, _BATCH, beyond))  # what is refused is so before the answer begins

    async def lines() -> Any:
        found = first
        while found:
            yield b"".join(canonical(members(record)) + b"\n" for record in found)
            found = await ask.desk.do(_reading(ask, _BATCH, (found[-1].chain, found[-1].n)))

    return Answer(None, lines=lines())


async def _verify(ask: Ask) -> Answer:
    heads = await ask.desk.do(lambda books: books.chains())
    expected = [(chain, n, hash) for chain, (n, hash) in heads.items()]
    states = await ask.desk.do(lambda books: verify(books.audit(), expected))
    whole = not any(state.faults for state in states.values())
    return Answer({"whole": whole, "chains": {name: asdict(state) for name, state in states.items()}})


def _reading(ask: Ask, most: int, beyond: tuple[str, int] | None) -> Callable[[Any], list[AuditRecord]]:
    chain = ask.query.get("chain", "")
    since, until = _ms(ask, "since"), _ms(ask, "until")

    def read(books: Any) -> list[AuditRecord]:
        found: Iterator[AuditRecord] = books.audit(
            chain=chain, since_ms=since, until_ms=until, most=most, beyond=beyond
        )
        return list(found)

    return read


def _beyond(ask: Ask) -> tuple[str, int] | None:
    text = ask.query.get("after", "")
    if not text:
        return None
    chain, _, n = text.rpartition(":")
    if not n.isdecimal() or len(n) > 18:
        raise CallerError("after must be the `next` of the page before.", param="after")
    return chain, int(n)


def _ms(ask: Ask, name: str) -> int:
    text = ask.query.get(name, "")
    if not text:
        return 0
    try:
        return int(moment(text).timestamp() * 1000)
    except ValueError:
        raise CallerError(f'{name} must be a date-time such as "2027-01-01T00:00:00Z".', param=name) from None


_SPAN = {
    "chain": "only this chain",
    "since": "a date-time; included",
    "until": "a date-time; not included",
}
_PAGES = {"limit": f"records of a page, 1 to {MOST}", "after": "the `next` of the page before"}

OPERATIONS = (
    Operation(
        "GET", "/audit", "audit.read", "Audit records, by chain and number", _list,
        query={**_SPAN, **_PAGES}, answer="AuditPage",
    ),
    Operation(
        "GET", "/audit/export", "audit.read", "All of it as JSON lines", _export,
        query={**_SPAN, "after": _PAGES["after"]}, answer="lines",
    ),
    Operation(
        "GET", "/audit/verify", "audit.read", "Whether the chains are whole", _verify, answer="Verified"
    ),
)  # fmt: skip
