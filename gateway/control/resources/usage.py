"""`/admin/v1/usage`: what was used and what it cost, grouped and filtered as `penstock usage` does."""

from __future__ import annotations

from datetime import datetime

from gateway.control.operation import Answer, Ask, Operation
from gateway.core.errors import CallerError, LedgerError
from gateway.core.moment import moment

_FILTERS = ("tenant", "team", "user", "key", "key_name", "model", "backend", "tag")


async def _usage(ask: Ask) -> Answer:
    by = [part.strip() for part in ask.query.get("by", "key_name").split(",") if part.strip()]
    if not by or len(set(by)) < len(by):
        raise CallerError("by must name some columns, each once: key,model,day.", param="by")
    since, until = _moment(ask, "since"), _moment(ask, "until")
    only = {name: [ask.query[name]] for name in _FILTERS if name in ask.query}
    own = ask.operator.tenant
    if own and only.setdefault("tenant", [own]) != [own]:
        return Answer({"data": []})
    most = ask.whole("top", 10_000, 1, 10_000)
    try:
        rows = await ask.desk.do(lambda books: books.usage(by, since, until, only))
    except LedgerError as error:
        if any(name in str(error) for name in by):  # it knows no such column
            raise CallerError(f"by: {error}.", param="by") from None
        raise
    if "top" in ask.query:
        rows.sort(key=lambda row: -int(row["cost_micros"] or row["tokens"]))
    return Answer({"data": rows[:most]})


def _moment(ask: Ask, name: str) -> datetime | None:
    text = ask.query.get(name, "")
    if not text:
        return None
    try:
        return moment(text)
    except ValueError:
        raise CallerError(f'{name} must be a date or date-time such as "2027-01-01".', param=name) from None


_QUERY = {
    "by": "columns, with commas: key, key_name, tenant, team, user, model, backend, tag, day, month …",
    "since": "a date or date-time (UTC); included",
    "until": "a date or date-time (UTC); not included",
    "top": "only so many, the dearest first",
    **{name: f"only calls of this {name}" for name in _FILTERS},
}

OPERATIONS = (
    Operation("GET", "/usage", "usage.read", "Calls, tokens and money", _usage, query=_QUERY, answer="Usage"),
)
