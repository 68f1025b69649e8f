"""Sums of calls, derived from their rows: appended in steps, never changed. In the caller's transaction.

A replica sums up its own rows alone, so replicas that share a database do not wait for each other. How far it
has come stands beside the sums and moves with them: at any moment sums and the rows beyond are the whole.
"""

from __future__ import annotations

from gateway.stores.base.columns import COARSE, SUMS
from gateway.stores.base.tables import Tables

STEP = 20_000  # rows summed at once: some 0.1 s
_COMING = 2 * STEP  # sums by hour that may come together before the day is over

_TOTALS = ", ".join(f"sum({name})" for name in SUMS)
_NAMES = ", ".join(SUMS)
_ENTRIES = "FROM entries e{tags} WHERE e.replica = ? AND e.n > ? AND e.n <= ?"
# The number is no value that is bound: what is the same in all rows needs no sorting.
_ROLL = (
    f"INSERT INTO hours (replica, hour, label, calls, {_NAMES})"
    f" SELECT {{replica:d}}, e.ts / 3600000, e.label, count(*), {_TOTALS} {_ENTRIES.format(tags='')}"
    " GROUP BY e.label, e.ts / 3600000"
)
# A call counts under each of its tags.
TAGS_ROLLED = (
    f"INSERT INTO tag_hours (replica, hour, tag, label, calls, {_NAMES})"
    f" SELECT {{replica:d}}, e.ts / 3600000, t.tag, e.label, count(*), {_TOTALS}"
    f" {_ENTRIES.format(tags=' JOIN tagged t ON t.tagset = e.tagset')} AND e.tagset <> 0"
    " GROUP BY e.label, e.ts / 3600000, t.tag"
)
ROLLED = "UPDATE replicas SET rolled = ? WHERE n = ?"
_HOURS = "WHERE replica = ? AND n > ? AND n <= ?"
_SUM = (
    f"INSERT INTO days (replica, n, day, label, calls, {_NAMES})"
    f" SELECT {{replica:d}}, {{upto:d}}, hour / 24, label, sum(calls), {_TOTALS} FROM hours {_HOURS}"
    " GROUP BY label, hour / 24"
)
_SUM_TAGS = (
    f"INSERT INTO tag_days (replica, n, day, tag, label, calls, {_NAMES})"
    f" SELECT {{replica:d}}, {{upto:d}}, hour / 24, tag, label, sum(calls), {_TOTALS} FROM tag_hours {_HOURS}"
    " GROUP BY label, hour / 24, tag"
)
_COARSE = ", ".join(COARSE)
_COARSEN = (
    f"INSERT INTO coarse_hours (replica, hour, {_COARSE}, calls, {_NAMES})"
    f" SELECT {{replica:d}}, s.hour, {', '.join(f'l.{name}' for name in COARSE)}, sum(s.calls), "
    f"{', '.join(f'sum(s.{name})' for name in SUMS)} FROM hours s JOIN labels l ON l.id = s.label"
    " WHERE s.replica = ? AND s.n > ? AND s.n <= ?"
    f" GROUP BY s.hour, {', '.join(f'l.{name}' for name in COARSE)}"
)


def known(db: Tables, id: str) -> int:
    """The number of a replica in this database; its row is made where it is new."""
    found = db.execute("SELECT n FROM replicas WHERE id = ?", (id,)).fetchone()
    if found is None:
        db.execute(
            "INSERT INTO replicas (n, id, rolled, summed, tags_summed, day)"
            " SELECT coalesce(max(n), 0) + 1, ?, 0, 0, 0, 0 FROM replicas",
            (id,),
        )
        found = db.execute("SELECT n FROM replicas WHERE id = ?", (id,)).fetchone()
    return int(found[0])


def roll(db: Tables, replica: int) -> int:
    """Sum up the next rows by hour; how many, at most `STEP`."""
    (rolled,) = db.execute("SELECT rolled FROM replicas WHERE n = ?", (replica,)).fetchone()
    upto, count = _next(db, "entries", replica, rolled, STEP)
    if count:
        db.execute(_ROLL.format(replica=replica), (replica, rolled, upto))
        db.execute(TAGS_ROLLED.format(replica=replica), (replica, rolled, upto))
        db.execute(ROLLED, (upto, replica))
    return count


def sum_days(db: Tables, replica: int, today: int) -> bool:
    """Sum up hours by day where a day has ended since, or many have come together; whether there is more.

    `today` 0 leaves days as they are that have merely ended.
    """
    row = db.execute("SELECT summed, tags_summed, day FROM replicas WHERE n = ?", (replica,)).fetchone()
    summed, tags_summed, day = row
    upto, count = _next(db, "hours", replica, summed, _COMING)
    tags_upto, tags_count = _next(db, "tag_hours", replica, tags_summed, _COMING)
    more = _COMING in (count, tags_count)
    if not more and today <= day:
        return False
    db.execute(_SUM.format(replica=replica, upto=upto), (replica, summed, upto))
    db.execute(_SUM_TAGS.format(replica=replica, upto=tags_upto), (replica, tags_summed, tags_upto))
    db.execute(
        "UPDATE replicas SET summed = ?, tags_summed = ?, day = ? WHERE n = ?",
        (upto, tags_upto, day if more else today, replica),
    )
    return more


def coarsen(db: Tables, replica: int) -> bool:
    """Sum up the next hours as coarse ones; whether there may be more."""
    (coarsened,) = db.execute("SELECT coarsened FROM replicas WHERE n = ?", (replica,)).fetchone()
    upto, count = _next(db, "hours", replica, coarsened, _COMING)
    if count:
        db.execute(_COARSEN.format(replica=replica), (replica, coarsened, upto))
        db.execute("UPDATE replicas SET coarsened = ? WHERE n = ?", (upto, replica))
    return count == _COMING


def _next(db: Tables, table: str, replica: int, after: int, most: int) -> tuple[int, int]:
    """The number of the last of the next rows, and how many these are."""
    numbers = f"SELECT n FROM {table} WHERE replica = ? AND n > ? ORDER BY n LIMIT {most}"
    (upto, count) = db.execute(f"SELECT max(n), count(*) FROM ({numbers}) x", (replica, after)).fetchone()
    return (after if upto is None else int(upto)), int(count)


# ---------------------------------------------------------------------- retention

_DROPPED = 20_000  # rows removed at once
_MARGIN = (
    2  # days that labels stay longer: clocks differ, and a process notes only once a day what it has seen
)


def drop_hours(db: Tables, before: int) -> bool:
    """Remove sums of hours before that one that are in days; whether there may be more.

    The newest rows stay: numbers go on from them.
    """
    gone = False
    for table, summed in (("hours", "summed"), ("tag_hours", "tags_summed")):
        rows = (
            f"SELECT s.n FROM {table} s JOIN replicas r ON r.n = s.replica WHERE s.hour < ?"
            f" AND s.n <= r.{summed} AND s.n < (SELECT max(n) FROM {table}) LIMIT {_DROPPED}"
        )
        deleted = db.execute(f"DELETE FROM {table} WHERE n IN ({rows})", (before,)).rowcount
        gone = deleted >= _DROPPED or gone
    old = f"SELECT n FROM coarse_hours WHERE hour < ? LIMIT {_DROPPED}"
    deleted = db.execute(f"DELETE FROM coarse_hours WHERE n IN ({old})", (before,)).rowcount
    return deleted >= _DROPPED or gone


def drop_days(db: Tables, before: int) -> bool:
    """Remove sums of the oldest day, if it is before that one; whether there may be more."""
    gone = 0
    for table in ("days", "tag_days"):
        (oldest,) = db.execute(f"SELECT min(day) FROM {table}").fetchone()
        if oldest is not None and oldest < before:
            gone += db.execute(f"DELETE FROM {table} WHERE day = ?", (oldest,)).rowcount
    return gone > 0


def drop_labels(db: Tables, before: int) -> None:
    """Remove what no call had since that day: nothing refers to it any more."""
    db.execute("DELETE FROM labels WHERE seen < ?", (before - _MARGIN,))


def drop_tags(db: Tables, before: int) -> None:
    """As `drop_labels`; sums have their tags themselves."""
    db.execute("DELETE FROM tagged WHERE seen < ?", (before - _MARGIN,))
