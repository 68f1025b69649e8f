"""The tables of `core.records.Records` in SQLite, and the keys of older files as entities."""

from __future__ import annotations

from gateway.stores.base.tables import tables

# Keys had a table of their own; their documents are those of `core.principal.document_of`.
_KEYS = """INSERT INTO entities
    (kind, id, version, document, changed, deleted, stamp, born, name, digest, revoked)
    SELECT 'key', id, 1, json_object(
        'created', 0.0, 'digest', lower(hex(digest)), 'endpoints', json(endpoints), 'expires', expires,
        'id', id, 'made_by', '', 'models', json(models), 'name', name, 'networks', json('[]'),
        'origin', 'ledger', 'previous', '', 'previous_until', NULL,
        'revoked', json(CASE WHEN revoked THEN 'true' ELSE 'false' END), 'roles', json(roles),
        'tags', json(tags), 'team', team, 'tenant', tenant, 'user', user
    ), 0, 0, row_number() OVER (ORDER BY n), row_number() OVER (ORDER BY n), name, lower(hex(digest)), revoked
    FROM keys ORDER BY n"""

# Nobody changes an audit record; only what a checkpoint has stated (`chains.base`) can be removed.
_APPEND_ONLY = (
    """CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit
        BEGIN SELECT RAISE(ABORT, 'audit records are never changed'); END""",
    """CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit
        WHEN OLD.n > coalesce((SELECT base FROM chains WHERE chain = OLD.chain), 0)
        BEGIN SELECT RAISE(ABORT, 'audit records are removed by retention alone'); END""",
)

# To triggers REPLACE is an insert alone: what it takes the place of, by either key, is not deleted to them.
NO_REPLACE = (
    """CREATE TRIGGER audit_no_replace BEFORE INSERT ON audit
        WHEN EXISTS (SELECT 1 FROM audit WHERE (chain = NEW.chain AND n = NEW.n) OR rowid = NEW.rowid)
        BEGIN SELECT RAISE(ABORT, 'audit records are never changed'); END""",
)

STATEMENTS = (
    *tables("INTEGER", "BLOB"),
    *_APPEND_ONLY,
    _KEYS,
    "UPDATE stamps SET n = (SELECT count(*) FROM keys) WHERE name = 'entities'",
    "DROP TABLE keys",
)
