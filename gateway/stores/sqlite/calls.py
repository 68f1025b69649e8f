"""The tables of calls in SQLite, and how the rows of older files get there."""

from __future__ import annotations

from gateway.core.sheet import LABELS
from gateway.stores.base.columns import VIEW, quoted, tables

_OLD = quoted([name for name in LABELS if name not in ("prompt_version", "arm")])
_TODAY = "CAST(strftime('%s', 'now') AS INTEGER) / 86400"

# Sums are made anew from the rows: no file that old has lost any. Tags were known of single calls alone, so
# that calls with tags get labels of their own; numbers below 0 are none that a hash gives.
STATEMENTS = (
    "DROP VIEW calls",
    "DROP TABLE hours",
    "PRAGMA legacy_alter_table = ON",  # the entries' reference stays one to `labels`
    "ALTER TABLE labels RENAME TO labels_before",
    "ALTER TABLE offsets RENAME TO offsets_before",
    "PRAGMA legacy_alter_table = OFF",
    "ALTER TABLE entries ADD COLUMN replica INTEGER NOT NULL DEFAULT 1",
    "ALTER TABLE entries ADD COLUMN tagset INTEGER NOT NULL DEFAULT 0",
    *tables("INTEGER", "INTEGER PRIMARY KEY", "WITHOUT ROWID"),
    f"""INSERT INTO labels (id, seen, {_OLD}, prompt_version, arm, tagged)
        SELECT id, {_TODAY}, {_OLD}, '', '', 0 FROM labels_before""",
    f"""INSERT INTO labels (id, seen, {_OLD}, prompt_version, arm, tagged)
        SELECT -id, {_TODAY}, {_OLD}, '', '', 1 FROM labels_before
        WHERE id IN (SELECT label FROM entries WHERE tags <> '')""",
    "CREATE TEMP TABLE sets (id INTEGER PRIMARY KEY, tags TEXT UNIQUE)",
    "INSERT INTO sets (tags) SELECT DISTINCT tags FROM entries WHERE json_valid(tags)",
    f"""INSERT INTO tagged (tagset, tag, seen)
        SELECT DISTINCT -sets.id, CAST(tag.value AS TEXT), {_TODAY} FROM sets, json_each(sets.tags) tag
        WHERE tag.type = 'text'""",
    """UPDATE entries SET label = -label, tagset = -(SELECT id FROM sets WHERE sets.tags = entries.tags)
        WHERE tags IN (SELECT tags FROM sets WHERE -id IN (SELECT tagset FROM tagged))""",
    "DROP TABLE sets",
    'INSERT INTO offsets (replica, source, "offset") SELECT 1, source, "offset" FROM offsets_before',
    "DROP TABLE offsets_before",
    "DROP TABLE labels_before",
    "INSERT INTO replicas (n, id, rolled, summed, tags_summed, day) VALUES (1, 'local', 0, 0, 0, 0)",
    VIEW,
)
