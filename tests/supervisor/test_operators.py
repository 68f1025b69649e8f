"""Who opens the admin API."""

from __future__ import annotations

import asyncio
import stat
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.control.operator import Operator
from gateway.core.group import Tenant
from gateway.core.principal import KeyEntry, digest
from gateway.settings.schema import Settings
from gateway.supervisor.directory import News
from gateway.supervisor.operators import Operators, admin_token

TOKEN = "psa-token-0123456789"
OPERATOR = KeyEntry("key_1", "op", digest(b"sk-op"), roles=("operator", "caller"), tenant="acme")


class Directory:
    """What the real one says of keys and tenants."""

    def __init__(self, keys: list[KeyEntry], tenants: list[Tenant]) -> None:
        self.keys = lambda: keys
        self.tenants = lambda: tenants


def find(
    credential: bytes, *keys: KeyEntry, tenants: tuple[Tenant, ...] = (), address: str = "127.0.0.1"
) -> Operator | None:
    settings = Settings(revision="r")
    jwks: Any = None  # nobody asks for it without [auth.jwt]
    operators = Operators(TOKEN, lambda: settings, jwks)
    directory: Any = Directory(list(keys), list(tenants))
    operators.hear(directory, News(whole=True))
    return asyncio.run(operators.find(credential, address))


def test_the_admin_token_may_all_and_is_named_in_the_audit() -> None:
    found = find(TOKEN.encode())
    assert found is not None and found.entry is None and found.roles == ("admin",)
    assert (found.actor.kind, found.actor.address) == ("token", "127.0.0.1")
    assert TOKEN not in repr(found)


def test_a_key_has_the_roles_that_are_for_operators() -> None:
    found = find(b"sk-op", OPERATOR)
    assert found is not None and found.roles == ("operator",) and found.tenant == "acme"


@pytest.mark.parametrize(
    "credential", [b"", b"psa", TOKEN.encode() + b"x", b"sk-op\0", "é".encode(), b"x" * 70_000], ids=len
)
def test_what_is_unknown_opens_nothing(credential: bytes) -> None:
    assert find(credential, OPERATOR) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"roles": ("caller",)},
        {"roles": ()},
        {"revoked": True},
        {"expires": 1.0},
        {"networks": ("192.0.2.0/24",)},
    ],
    ids=str,
)
def test_a_key_that_is_not_for_it_opens_nothing(changed: dict[str, Any]) -> None:
    assert find(b"sk-op", replace(OPERATOR, **changed)) is None


def test_a_key_of_a_disabled_tenant_opens_nothing() -> None:
    assert find(b"sk-op", OPERATOR, tenants=(Tenant("acme", disabled=True),)) is None
    assert find(b"sk-op", OPERATOR, tenants=(Tenant("acme", networks=("192.0.2.0/24",)),)) is None
    assert find(b"sk-op", OPERATOR, tenants=(Tenant("acme"),)) is not None


def test_the_old_secret_of_a_rotated_key_works_until_its_time_is_up() -> None:
    for ahead, works in ((60.0, True), (-60.0, False)):
        rotated = replace(OPERATOR, previous=digest(b"sk-old"), previous_until=time.time() + ahead)
        assert (find(b"sk-old", rotated) is not None) is works


def test_a_token_is_made_once_kept_for_its_owner_and_used_again(tmp_path: Path) -> None:
    made, fresh = admin_token(tmp_path, {})
    assert fresh and len(made) > 40
    assert stat.S_IMODE((tmp_path / "admin.token").stat().st_mode) == 0o600
    assert admin_token(tmp_path, {}) == (made, False)
    assert admin_token(tmp_path, {"PENSTOCK_ADMIN_TOKEN": TOKEN}) == (TOKEN, False)
    assert (tmp_path / "admin.token").read_text().strip() == made


@pytest.mark.parametrize("token", ["short", "with a long enough text é", "two\nlines-of-some-length"])
def test_a_token_that_is_no_good_is_refused_without_being_shown(tmp_path: Path, token: str) -> None:
    with pytest.raises(ValueError, match="16 or more printable") as told:
        admin_token(tmp_path, {"PENSTOCK_ADMIN_TOKEN": token})
    assert token not in str(told.value)
