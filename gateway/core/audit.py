"""The audit's chain of hashes: how a deed becomes a record, and whether a chain is still whole.

A record's hash is the SHA-256 of its canonical JSON (`core.codec.canonical`) without the member `hash`; the
member `previous` is the hash of the record before it, so that nothing can be changed, taken out or put in
without all later hashes changing. Nothing here reads or writes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from gateway.core.codec import canonical
from gateway.core.records import AuditRecord, Deed

GENESIS = "audit.begin"  # the first record of a chain
CHECKPOINT = "audit.checkpoint"  # says which records retention has removed

_MEMBERS = tuple(item.name for item in fields(AuditRecord) if item.name != "hash")
_MOST_TEXT, _MOST_ITEMS, _DEEPEST = 2000, 1000, 12  # characters, members of one list or table, levels
_MOST_DOCUMENT = 64 * 1024  # bytes
_MOST_FAULTS = 100

_SECRETS = {"key", "secret", "password", "token", "api_key", "apikey", "authorization", "credential"}
_DIGESTS = {"digest", "previous", "hash"}
_LOOKS_SECRET = re.compile(r"\b(sk-|eyJ)[A-Za-z0-9_\-.]{12,}")


# ---------------------------------------------------------------------- records


def sealed(deed: Deed, chain: str, n: int, previous: str, now_ms: int) -> AuditRecord:
    """The record number `n` of a chain. What is secret in its documents is masked here."""
    record = AuditRecord(
        chain=chain,
        n=n,
        ts_ms=deed.ts_ms or now_ms,
        actor={name: value for name, value in clean(asdict(deed.actor)).items() if value},
        action=_text(deed.action),
        target=_text(deed.target),
        before=_document(deed.before),
        after=_document(deed.after),
        revision=_text(deed.revision),
        detail=_document(deed.detail),
        previous=previous,
        hash="",
    )
    return replace(record, hash=digest_of(record))


def members(record: AuditRecord) -> dict[str, Any]:
    """The record as a JSON object, `hash` last."""
    return {**{name: getattr(record, name) for name in _MEMBERS}, "hash": record.hash}


def digest_of(record: AuditRecord) -> str:
    """What the record's hash must be."""
    return hashlib.sha256(canonical({name: getattr(record, name) for name in _MEMBERS})).hexdigest()


def record_of(document: Mapping[str, Any]) -> AuditRecord:
    """The record of such an object, as `penstock audit export` writes it. Raises `TypeError`."""
    record = AuditRecord(**document)
    if not isinstance(record.n, int) or not isinstance(record.actor, Mapping):
        raise TypeError("n must be a number and actor an object")
    if not all(isinstance(getattr(record, name), str) for name in ("chain", "action", "previous", "hash")):
        raise TypeError("chain, action, previous and hash must be texts")
    if record.detail is not None and not isinstance(record.detail, Mapping):
        raise TypeError("detail must be an object or null")
    return record


# ---------------------------------------------------------------------- nothing secret


def clean(value: Any, name: str = "", level: int = 0) -> Any:
    """The value without anything secret, and bounded: long texts and lists are cut.

    Members that hold secrets are masked; digests are shortened to a fingerprint that tells two apart.
    """
    if isinstance(value, Mapping):
        if level >= _DEEPEST:
            return "…"
        items = list(value.items())[:_MOST_ITEMS]
        return {_text(str(key)): clean(each, str(key).lower(), level + 1) for key, each in items}
    if isinstance(value, list | tuple | set | frozenset):
        each = sorted(value) if isinstance(value, set | frozenset) else list(value)
        return [clean(item, name, level + 1) for item in each[:_MOST_ITEMS]] if level < _DEEPEST else "…"
    if name in _DIGESTS and value:
        return _fingerprint(value)
    if name in _SECRETS and value and not str(value).startswith("key_"):
        return "•••"
    if isinstance(value, bytes):
        return _fingerprint(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    return _text(str(value))


def _fingerprint(value: Any) -> str:
    text = value.hex() if isinstance(value, bytes) else str(value).removeprefix("sha256:").rstrip("…")
    return f"sha256:{_text(text)[:8]}…"


def _text(text: str) -> str:
    text = text if text.isascii() else text.encode("utf-8", "replace").decode()
    text = _LOOKS_SECRET.sub(r"\1•••", text)
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}…"


def _document(document: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if document is None:
        return None
    cleaned: dict[str, Any] = clean(document)
    try:
        size = len(canonical(cleaned))
    except (TypeError, ValueError):  # an integer beyond 64 bits
        return {"unreadable": True}
    return cleaned if size <= _MOST_DOCUMENT else {"left_out": f"a document of {size} bytes"}


# ---------------------------------------------------------------------- is it whole?


@dataclass(slots=True)
class ChainState:
    """What was found of one chain: its records from `first` to `last`, and what is wrong with it."""

    first: int = 0
    last: int = 0
    hash: str = ""  # of the newest
    records: int = 0
    removed: int = 0  # by retention, as a checkpoint says
    faults: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Walk:
    state: ChainState
    heads: dict[int, set[str]]  # number → hashes it must have, as somebody noted them
    start: tuple[int, str] | None = None  # of the record before the first one, where it was removed
    vouched: bool = False  # a checkpoint says the same


def verify(
    records: Iterable[AuditRecord], heads: Iterable[tuple[str, int, str]] = ()
) -> dict[str, ChainState]:
    """Look through whole chains, their records in order of chain and number.

    `heads` are (chain, number, hash) that were noted elsewhere: a chain must reach them, and have that hash
    there. A chain that has lost its beginning is whole if a later checkpoint of it tells so.
    """
    walks: dict[str, _Walk] = {}
    for chain, n, hash in heads:
        walk = walks.setdefault(chain, _Walk(ChainState(), {}))
        walk.heads.setdefault(n, set()).add(hash)
    for record in records:
        _step(walks.setdefault(record.chain, _Walk(ChainState(), {})), record)
    for walk in walks.values():
        _finish(walk)
    return {chain: walk.state for chain, walk in sorted(walks.items())}


def _step(walk: _Walk, record: AuditRecord) -> None:
    state = walk.state
    if not state.records:
        state.first = record.n
        if record.n == 1:
            if record.previous or record.action != GENESIS:
                _fault(state, "record 1 is not the beginning of a chain")
        else:
            walk.start = (record.n - 1, record.previous)
    elif record.n <= state.last:
        _fault(state, f"record {record.n} stands after record {state.last}: it was put in or moved")
    elif record.n > state.last + 1:
        _fault(state, f"{_numbers(state.last + 1, record.n - 1)} missing: removed")
    elif record.previous != state.hash:
        _fault(state, f"record {record.n} does not follow record {state.last}: one of them was replaced")
    if digest_of(record) != record.hash:
        _fault(state, f"record {record.n} was altered: its hash does not fit what it says")
    noted = walk.heads.pop(record.n, set())
    if noted - {record.hash}:
        _fault(state, f"record {record.n} has another hash than was noted: it was replaced")
    if record.action == CHECKPOINT and walk.start is not None:
        detail = record.detail or {}
        walk.vouched |= (detail.get("through"), detail.get("head")) == walk.start
    state.last, state.hash, state.records = record.n, record.hash, state.records + 1


def _finish(walk: _Walk) -> None:
    state = walk.state
    if walk.start is not None and walk.vouched:
        state.removed = walk.start[0]
        before = walk.heads.pop(state.removed, None)
        if before and before != {walk.start[1]}:
            _fault(state, f"record {state.removed} had another hash than was noted, before it was removed")
    elif walk.start is not None:
        numbers = _numbers(1, walk.start[0])
        _fault(state, f"{numbers} missing, and no checkpoint says that retention removed them")
    beyond = [n for n in walk.heads if n > state.last]
    if beyond:
        has = f"ends with record {state.last}" if state.records else "has no records"
        _fault(state, f"the chain {has}, record {max(beyond)} was noted: its end was cut off")


def _numbers(first: int, last: int) -> str:
    return f"record {first} is" if first == last else f"records {first} to {last} are"


def _fault(state: ChainState, what: str) -> None:
    if len(state.faults) < _MOST_FAULTS:
        state.faults.append(what)
