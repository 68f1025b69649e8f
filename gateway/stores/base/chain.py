"""Audit chains in a database: appended to, read, and shortened by retention. In the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from gateway.core.audit import CHECKPOINT, GENESIS, sealed
from gateway.core.codec import JSONError, canonical, loads
from gateway.core.records import Actor, AuditRecord, Deed
from gateway.core.refusal import EACH, GROUPS, OTHERS, Refusals, more
from gateway.stores.base.tables import Tables

_COLUMNS = "chain, n, ts, actor, action, target, before, after, revision, detail, previous, hash"
_INSERT = "INSERT INTO audit (" + _COLUMNS + ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_PAGE = 500  # records read at once
_DAY_MS = 86_400_000
MINUTE_MS = 60_000


def append(db: Tables, chain: str, deeds: Iterable[Deed], now_ms: int) -> None:
    """Add deeds to a chain. Whoever else appends to it waits until this transaction has ended."""
    n, hash = _tip(db, chain)
    if n == 0:
        deeds = [Deed(Actor("config"), GENESIS, f"chain/{chain}", detail={"hashes": "sha256"}), *deeds]
    for deed in deeds:
        n += 1
        record = sealed(deed, chain, n, hash, now_ms)
        hash = record.hash
        db.execute(_INSERT, _row(record))
    db.execute("UPDATE chains SET n = ?, hash = ? WHERE chain = ?", (n, hash, chain))


def _tip(db: Tables, chain: str) -> tuple[int, str]:
    """The newest number and hash; the row is ours until the transaction ends."""
    lock = "UPDATE chains SET n = n WHERE chain = ?"
    if not db.execute(lock, (chain,)).rowcount:
        insert = "INSERT INTO chains (chain, n, hash, base) VALUES (?, 0, '', 0) ON CONFLICT DO NOTHING"
        db.execute(insert, (chain,))
        db.execute(lock, (chain,))
    n, hash = db.execute("SELECT n, hash FROM chains WHERE chain = ?", (chain,)).fetchone()
    return int(n), str(hash)


def _row(record: AuditRecord) -> tuple[Any, ...]:
    documents = (record.before, record.after, record.detail)
    before, after, detail = [None if each is None else canonical(each).decode() for each in documents]
    return (
        record.chain, record.n, record.ts_ms, canonical(record.actor).decode(), record.action, record.target,
        before, after, record.revision, detail, record.previous, record.hash,
    )  # fmt: skip


def _record(row: Sequence[Any]) -> AuditRecord:
    """The record of a row, also of one that somebody has written to: what no record holds fits no hash."""
    n, ts = [each if isinstance(each, int) else 0 for each in row[1:3]]
    before, after, detail = [None if each is None else _table(each) for each in (row[6], row[7], row[9])]
    chain, action, target, revision, previous, hash = [str(row[at]) for at in (0, 4, 5, 8, 10, 11)]
    return AuditRecord(
        chain, n, ts, _table(row[3]), action, target, before, after, revision, detail, previous, hash
    )


def _table(text: Any) -> dict[str, Any]:
    try:
        found = loads(text)
        if isinstance(found, dict) and canonical(found).decode() == text:
            return found
    except (JSONError, TypeError):  # no JSON, no text, or too deep to be written
        pass
    return {"not as it was written": str(text)[:200]}


def heads(db: Tables) -> dict[str, tuple[int, str]]:
    """Each chain's newest number and hash."""
    return {chain: (int(n), hash) for chain, n, hash in db.execute("SELECT chain, n, hash FROM chains")}


# ---------------------------------------------------------------------- reading


def read(
    db: Tables, place: tuple[str, int], only: str, since_ms: int, until_ms: int
) -> Iterator[AuditRecord]:
    """Records beyond a place, by chain and number; a page at a time, so that no cursor stays open."""
    where = "(chain > ? OR (chain = ? AND n > ?)) AND (? = '' OR chain = ?) AND ts >= ? AND ts < ?"
    select = f"SELECT {_COLUMNS} FROM audit WHERE {where} ORDER BY chain, n LIMIT {_PAGE}"
    until_ms = until_ms or 1 << 62
    while True:
        chain, n = place
        rows = db.execute(select, (chain, chain, n, only, only, since_ms, until_ms)).fetchall()
        yield from map(_record, rows)
        if len(rows) < _PAGE:
            return
        place = rows[-1][0], rows[-1][1]


def newest(db: Tables, only: str, since_ms: int, until_ms: int) -> Iterator[AuditRecord]:
    """Records, the newest first; a page at a time."""
    where = (
        "(? = '' OR chain = ?) AND ts >= ? AND (ts < ? OR (ts = ? AND (chain < ? OR (chain = ? AND n < ?))))"
    )
    select = f"SELECT {_COLUMNS} FROM audit WHERE {where} ORDER BY ts DESC, chain DESC, n DESC LIMIT {_PAGE}"
    ts, chain, n = until_ms or 1 << 62, "", 0
    while True:
        rows = db.execute(select, (only, only, since_ms, ts, ts, chain, chain, n)).fetchall()
        yield from map(_record, rows)
        if len(rows) < _PAGE:
            return
        ts, chain, n = rows[-1][2], rows[-1][0], rows[-1][1]


# ---------------------------------------------------------------------- refusals by policy

_GROUP = "chain = ? AND minute = ? AND key_id = ? AND code = ? AND rule = ?"


def refuse(db: Tables, chain: str, groups: Iterable[Refusals], now_ms: int) -> None:
    """Note what policies refused: the first ones of a minute each for themselves, the others as a count.

    The counts stand in the same database, so they are as exact as the ledger, whoever is killed when.
    """
    close_minutes(db, chain, now_ms)
    minute = now_ms // MINUTE_MS
    (known,) = db.execute(
        "SELECT count(*) FROM refusals WHERE chain = ? AND minute = ?", (chain, minute)
    ).fetchone()
    deeds: list[Deed] = []
    for group in groups:
        key = (chain, minute, group.key, group.code, group.rule)
        found = db.execute("SELECT told FROM refusals WHERE " + _GROUP, key).fetchone()
        if found is None and known >= GROUPS:
            _count(db, (chain, minute, OTHERS, group.code, ""), 0, group.times)
            continue
        known += found is None
        tell = group.deeds[: max(EACH - (found[0] if found else 0), 0)]
        deeds += tell
        _count(db, key, len(tell), group.times[len(tell) :])
    if deeds:
        append(db, chain, deeds, now_ms)


def _count(db: Tables, key: tuple[Any, ...], told: int, times: Sequence[int]) -> None:
    first, last = (min(times), max(times)) if times else (0, 0)
    add = (
        "UPDATE refusals SET told = told + ?, more = more + ?,"
        " last = CASE WHEN last > ? THEN last ELSE ? END,"
        " first = CASE WHEN first > 0 AND (first < ? OR ? = 0) THEN first ELSE ? END WHERE "
    )
    values = (told, len(times), last, last, first, first, first)
    if not db.execute(add + _GROUP, (*values, *key)).rowcount:
        insert = "INSERT INTO refusals VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
        db.execute(insert, (*key, told, len(times), first, last))


def close_minutes(db: Tables, chain: str, now_ms: int) -> None:
    """State the counts of minutes that are over."""
    over = "chain = ? AND minute < ?"
    key = (chain, now_ms // MINUTE_MS)
    select = (
        "SELECT key_id, code, rule, more, first, last FROM refusals WHERE " + over + " ORDER BY minute, first"
    )
    rows = db.execute(select, key).fetchall()
    if rows:
        deeds = [more(*row) for row in rows if row[3]]
        if deeds:
            append(db, chain, deeds, now_ms)
        db.execute("DELETE FROM refusals WHERE " + over, key)


# ---------------------------------------------------------------------- retention


def prune(db: Tables, chain: str, before_ms: int, now_ms: int, most: int) -> int:
    """Remove what is older, from the beginning of the chain on; a checkpoint at its end says what went.

    Looks only once a day's worth has come together, so that there are not more checkpoints than days. The
    newest record stays. Gives how many records went.
    """
    n, _ = _tip(db, chain)
    oldest = db.execute("SELECT n, ts FROM audit WHERE chain = ? ORDER BY n LIMIT 1", (chain,)).fetchone()
    if oldest is None or oldest[1] >= before_ms - _DAY_MS:
        return 0
    (stays,) = db.execute(
        "SELECT min(n) FROM audit WHERE chain = ? AND ts >= ?", (chain, before_ms)
    ).fetchone()
    through = min((n if stays is None else stays) - 1, oldest[0] + most - 1)
    if through < oldest[0]:
        return 0
    hash, newest_ms = db.execute(
        "SELECT hash, ts FROM audit WHERE chain = ? AND n = ?", (chain, through)
    ).fetchone()
    detail = {"from": oldest[0], "through": through, "head": hash, "until_ms": newest_ms}
    append(db, chain, [Deed(Actor("config"), CHECKPOINT, f"chain/{chain}", detail=detail)], now_ms)
    db.execute("UPDATE chains SET base = ? WHERE chain = ?", (through, chain))
    return db.execute("DELETE FROM audit WHERE chain = ? AND n <= ?", (chain, through)).rowcount
