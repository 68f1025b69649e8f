"""Rights: key, tenant, team and user must all allow what is asked."""

from __future__ import annotations

import pytest

from gateway.core.group import Member, Tenant, groups_of
from gateway.core.principal import KeyEntry, Principal
from gateway.core.rights import Rights, address_of, rights_of


def rights(*tenants: Tenant, **key: object) -> Rights:
    entry = KeyEntry("key_1", "k", b"d", tenant="acme", team="search", user="bot", **key)  # type: ignore[arg-type]
    known = {tenant.name: tenant for tenant in tenants}
    return Rights(Principal(entry, groups_of(known, "acme", "search", "bot")))


def test_a_model_must_be_allowed_by_all_and_the_first_that_does_not_is_named() -> None:
    team, user = Member(models=("gpt-4*", "o3")), Member(models=("*-mini", "o3"))
    acme = Tenant("acme", models=("gpt-*", "o3"), teams={"search": team}, users={"bot": user})
    found = rights(acme, models=("gpt-*", "o*"))
    assert [found.model(name) for name in ("gpt-4o-mini", "o3")] == ["", ""]
    assert found.model("claude") == "This key"
    assert found.model("o1") == "The tenant `acme`"
    assert found.model("gpt-3") == "The team `search`"
    assert found.model("gpt-4o") == "The user `bot`"
    assert found.chosen and found.listed and not found.fenced


def test_members_of_other_groups_are_not_touched() -> None:
    acme = Tenant("acme", teams={"ads": Member(disabled=True)}, users={"ada": Member(models=("x",))})
    found = rights(acme, Tenant("other", disabled=True))
    assert (found.disabled, found.chosen, found.listed) == ("", False, False)
    assert found.model("anything") == "" and found.endpoint("files") == ""


@pytest.mark.parametrize(
    ("tenant", "who"),
    [
        (Tenant("acme", disabled=True), "The tenant `acme`"),
        (Tenant("acme", teams={"search": Member(disabled=True)}), "The team `search`"),
        (Tenant("acme", users={"bot": Member(disabled=True)}), "The user `bot`"),
    ],
    ids=["tenant", "team", "user"],
)
def test_any_of_them_may_be_switched_off(tenant: Tenant, who: str) -> None:
    assert rights(tenant).disabled == who


@pytest.mark.parametrize(
    ("roles", "calls"),
    [
        ((), True),
        (("caller",), True),
        (("engineer",), True),
        (("admin", "caller"), True),
        (("admin",), False),
        (("viewer", "operator", "auditor"), False),
    ],
)
def test_roles_of_operators_alone_call_no_models(roles: tuple[str, ...], calls: bool) -> None:
    assert rights(roles=roles).calls is calls


def test_an_address_must_be_in_a_network_of_each_that_has_any() -> None:
    found = rights(Tenant("acme", networks=("10.0.0.0/8",)), networks=("10.1.0.0/16", "2001:db8::/32"))
    assert found.fenced
    assert found.address("10.1.2.3") == found.address("::ffff:10.1.2.3") == ""
    assert found.address("10.2.2.3") == "This key"
    assert found.address("2001:db8::1") == "The tenant `acme`"
    for nowhere in ("", "local", "10.1.2.3.4", "10.1.2.3/32"):
        assert found.address(nowhere) == "This key"


def test_addresses_are_remembered_in_bounds() -> None:
    found = rights(networks=("10.0.0.0/8",))
    for number in range(1000):
        assert found.address(f"10.0.{number // 256}.{number % 256}") == ""
    assert len(found._addresses) <= 256


def test_a_zone_is_no_part_of_an_address() -> None:
    assert str(address_of("fe80::1%eth0")) == "fe80::1"
    assert str(address_of("::ffff:192.0.2.1")) == "192.0.2.1"
    assert address_of("nowhere") is None


def test_tags_of_all_are_noted_once() -> None:
    acme = Tenant("acme", tags=("a", "b"), teams={"search": Member(tags=("c", "a"))})
    assert rights(acme, tags=("k", "b")).tags == ("k", "b", "a", "c")


def test_rights_are_worked_out_once() -> None:
    principal = Principal(KeyEntry("k", "k", b"d"))
    assert rights_of(principal) is rights_of(principal)
