"""The tables of `core.records.Records` in PostgreSQL, and what keeps the audit as it was written."""

from __future__ import annotations

from gateway.stores.base.tables import tables

# Nobody changes an audit record; only what a checkpoint has stated (`chains.base`) can be removed.
_APPEND_ONLY = (
    """CREATE FUNCTION audit_stays() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT AS $$
    BEGIN
        IF TG_OP = 'DELETE' THEN
            IF OLD.n <= coalesce((SELECT base FROM chains WHERE chain = OLD.chain), 0) THEN
                RETURN OLD;
            END IF;
            RAISE EXCEPTION 'audit records are removed by retention alone';
        END IF;
        RAISE EXCEPTION 'audit records are never changed';
    END $$""",
    """CREATE TRIGGER audit_no_change BEFORE UPDATE OR DELETE ON audit
        FOR EACH ROW EXECUTE FUNCTION audit_stays()""",
    "CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON audit EXECUTE FUNCTION audit_stays()",
)

STATEMENTS = (*tables("BIGINT", "BYTEA"), *_APPEND_ONLY)
