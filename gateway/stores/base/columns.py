"""The tables of calls, of every database: single calls, their sums by hour and by day, what they share.

`entries` has one row per call and `hours` and `days` sums of them, each only ever appended to: a sum is
never changed, and several rows may stand for the same hour. `replicas` says how far each replica's rows are
summed: entries with an `n` above `rolled` are in no hour yet, hours with one above `summed` in no day, and
with one above `coarsened` in no coarse hour. Those are for time series: they have few labels, in themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.sheet import LABELS
from gateway.core.usage import KINDS

HOUR_MS = 3_600_000
DAY_MS = 86_400_000

# What many calls share is kept once per combination, in `labels`. `tagged` is 1 where calls have tags.
SHARED = (*LABELS, "tagged")
COARSE = ("tenant", "model", "backend", "outcome", "usage_source")  # what coarse hours know of calls
NUMBERS = frozenset(("stream", "status", "tagged"))  # of these; the others are texts

SUMS = (*KINDS, "cost_micros", "hold_tokens", "hold_micros", "total_us")
REST = (
    "client", "tries", "queue_us", "connect_us", "first_byte_us", "first_token_us",
    "overhead_us", "revision", "worker", "path", "session", "tags", "trace", "reasons",
)  # fmt: skip
JSON = ("tags", "reasons")
TEXTS = frozenset(("id", "client", "revision", "path", "session", "tags", "trace", "reasons"))
OWN = ("ts", "id", *SUMS, *REST)  # the columns of one call alone

MOST = 1 << 40  # of one figure of one call: a provider that reports nonsense can't make sums overflow


def quoted(names: Sequence[str]) -> str:
    """Column names for a statement; some are words of SQL."""
    return ", ".join(f'"{name}"' for name in names)


def _shared(name: str) -> str:
    return f'"{name}" {"INTEGER" if name in NUMBERS else "TEXT"} NOT NULL'


_SUMMED = "replica INTEGER NOT NULL, label {big} NOT NULL, calls {big} NOT NULL, "
_SUMMED += ", ".join(f"{name} {{big}} NOT NULL" for name in SUMS)
_TAG = "tag TEXT NOT NULL, "


def _hours(table: str, tag: str = "") -> str:
    return f"CREATE TABLE {table} (n {{serial}}, hour {{big}} NOT NULL, {tag}{_SUMMED})"


def _days(table: str, tag: str = "") -> str:
    """By label, so that sums by label over many days need no sorting. `n` is the last of the hours in it."""
    key = f"label, day, {'tag, ' if tag else ''}replica, n"
    columns = f"n {{big}} NOT NULL, day INTEGER NOT NULL, {tag}{_SUMMED}"
    return f"CREATE TABLE {table} ({columns}, PRIMARY KEY ({key})) {{clustered}}"


# `seen` is the day (since 1970) on which a call last had it, so that it can go when nothing refers to it.
TABLES = (
    f"CREATE TABLE labels (id {{big}} PRIMARY KEY, seen INTEGER NOT NULL, {', '.join(map(_shared, SHARED))})",
    """CREATE TABLE tagged (
        tagset {big} NOT NULL, tag TEXT NOT NULL, seen INTEGER NOT NULL, PRIMARY KEY (tagset, tag)
    )""",
    """CREATE TABLE replicas (
        n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, rolled {big} NOT NULL, summed {big} NOT NULL,
        tags_summed {big} NOT NULL, day INTEGER NOT NULL
    )""",
    """CREATE TABLE offsets (
        replica INTEGER NOT NULL, source TEXT NOT NULL, "offset" {big} NOT NULL, PRIMARY KEY (replica, source)
    )""",
    _hours("hours"),
    _days("days"),
    _hours("tag_hours", _TAG),
    _days("tag_days", _TAG),
    "CREATE INDEX hours_hour ON hours (hour)",
    "CREATE INDEX days_day ON days (day)",
    "CREATE INDEX tag_hours_hour ON tag_hours (hour)",
    "CREATE INDEX tag_days_day ON tag_days (day)",
)

_COARSE = ", ".join(f"{name} TEXT NOT NULL" for name in COARSE)
_COARSE += ", calls {big} NOT NULL, " + ", ".join(f"{name} {{big}} NOT NULL" for name in SUMS)
COARSE_TABLES = (
    f"CREATE TABLE coarse_hours (n {{serial}}, hour {{big}} NOT NULL, replica INTEGER NOT NULL, {_COARSE})",
    "CREATE INDEX coarse_hours_hour ON coarse_hours (hour)",
    "ALTER TABLE replicas ADD COLUMN coarsened {big} NOT NULL DEFAULT 0",
)

# People read this.
VIEW = f"""CREATE VIEW calls AS SELECT
    e.id, e.ts, "key", key_name, tenant, team, "user", client, method, endpoint, path, model, alias, backend,
    target, stream, status, outcome, code, tries, {", ".join(f"e.{name}" for name in KINDS)}, usage_source,
    cost_micros, hold_tokens, hold_micros, queue_us, connect_us, first_byte_us, first_token_us, total_us,
    overhead_us, revision, worker, session, tags, trace, reasons, prompt_version, arm, r.id AS replica
    FROM entries e JOIN labels ON labels.id = e.label JOIN replicas r ON r.n = e.replica"""


def coarse_tables(big: str, serial: str) -> tuple[str, ...]:
    """As `tables`, of what came with a later version. Older sums get there bit by bit, as new ones do."""
    return tuple(statement.format(big=big, serial=serial) for statement in COARSE_TABLES)


def tables(big: str, serial: str, clustered: str) -> list[str]:
    """The statements, with a database's own words for a 64-bit integer and a number that it gives itself.

    `clustered` makes a table stand in the order of its key, where a database has that.
    """
    return [statement.format(big=big, serial=serial, clustered=clustered) for statement in TABLES]
