"""Claims: found by dotted paths, turned into names that can't be mistaken for others."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.claims import Unfit, at, entry, label, words
from gateway.core.token import Claims, Jwt
from gateway.settings.callers import LABEL

CLAIMS: dict[str, Any] = {
    "sub": "ada",
    "org": {"name": "acme", "ids": [7, 8]},
    "groups": ["search", {"id": "g2"}],
    "https://example.com/org": "by-url",
    "https://example.com/teams": ["by-url-team"],
    "a.b": {"c": 1},
    "a": {"b": {"c": 2}},
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("sub", "ada"),
        ("org.name", "acme"),
        ("org.ids.1", 8),
        ("groups.0", "search"),
        ("groups.1.id", "g2"),
        ("https://example.com/org", "by-url"),
        ("https://example.com/teams.0", "by-url-team"),
        ("a.b.c", 1),
        ("missing", None),
        ("org.missing", None),
        ("groups.2", None),
        ("groups.-1", None),
        ("groups.x", None),
        ("groups.٣", None),
        ("sub.0", None),
        ("org.name.0", None),
    ],
)
def test_a_path_leads_to_a_claim_or_to_nothing(path: str, found: object) -> None:
    assert at(CLAIMS, path) == found


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("ab.0", max_size=4), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(json_values, st.text("ab.01", max_size=20))
def test_whatever_the_claims_are_a_path_never_fails(claims: Any, path: str) -> None:
    at(claims, path)


@given(st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=5), st.integers())
def test_a_path_of_plain_names_goes_down_step_by_step(names: list[str], value: int) -> None:
    claims: Any = value
    for name in reversed(names):
        claims = {name: claims}
    assert at(claims, ".".join(names)) == value


@given(st.text(min_size=1, max_size=30), st.text(min_size=1, max_size=30))
def test_two_claims_never_give_one_name_and_every_name_is_one(one: str, two: str) -> None:
    try:
        first, second = label(one, "x"), label(two, "x")
    except Unfit:
        return
    assert (first == second) == (one == two)
    assert re.fullmatch(LABEL.pattern, first) and first.isprintable() and len(first) <= 128


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (None, ""),
        ("", ""),
        ("acme", "acme"),
        (42, "42"),
        ("/search", "%2Fsearch"),
        ("auth0|123", "auth0%7C123"),
        ("100%", "100%25"),
        (" a b ", "%20a b%20"),
        ("a\x00b\n", "a%00b%0A"),
        ("Zoë", "Zoë"),
    ],
)
def test_what_a_name_can_not_hold_is_written_as_in_urls(value: object, name: str) -> None:
    assert label(value, "x") == name


@pytest.mark.parametrize("value", [True, 1.5, ["a"], {"a": 1}, "x" * 129, "/" * 60, 1 << 70])
def test_what_is_no_name_is_unfit(value: object) -> None:
    with pytest.raises(Unfit, match="org"):
        label(value, "org")


def test_words_come_as_a_list_or_with_blanks_between() -> None:
    assert words("openid  caller", "scope") == ("openid", "caller")
    assert words(["a", "b", "a", ""], "roles") == ("a", "b")
    assert words(None, "roles") == ()
    for wrong in (7, {"a": 1}, ["a", 1], ["x" * 129], ["a\n"], ["r"] * 300):
        with pytest.raises(Unfit):
            words(wrong, "roles")


def rule(required: tuple[str, ...] = (), **where: str) -> Jwt:
    return Jwt("https://idp.example", ("p",), claims=Claims(**where), required=required)


def test_a_caller_is_what_the_claims_say() -> None:
    claims = {"sub": "auth0|1", "scope": "caller x", "models": ["gpt-*"], "tags": ["a:b"], "org": 7}
    made = entry(rule(tenant="org", user="sub", roles="scope", models="models", tags="tags"), claims, 5.0)
    assert (made.tenant, made.user, made.name) == ("7", "auth0%7C1", "auth0%7C1")
    assert (made.roles, made.models, made.tags) == (("caller", "x"), ("gpt-*",), ("a:b",))
    assert (made.expires, made.digest, made.origin) == (5.0, b"", "jwt")


def test_without_a_claim_for_roles_a_token_is_a_callers() -> None:
    assert entry(rule(), {"sub": "a", "roles": ["admin"]}, 5.0).roles == ("caller",)
    assert entry(rule(roles="roles"), {"sub": "a"}, 5.0).roles == ()


def test_an_empty_list_of_models_is_none_of_them_and_no_list_is_all() -> None:
    assert entry(rule(models="m"), {"sub": "a"}, 5.0).models == ()
    assert entry(rule(models="m"), {"sub": "a", "m": []}, 5.0).models == ("",)


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"sub": 7},
        {"sub": ""},
        {"sub": "a", "tags": ["a b"]},
        {"sub": "a", "tags": [str(n) for n in range(17)]},
    ],
)
def test_claims_that_name_nobody_or_no_tags_are_unfit(claims: dict[str, Any]) -> None:
    with pytest.raises(Unfit):
        entry(rule(user="", tags="tags"), claims, 5.0)


def test_one_subject_has_one_id_at_each_issuer() -> None:
    one = entry(rule(), {"sub": "a"}, 5.0)
    other = entry(Jwt("https://other.example", ("p",)), {"sub": "a"}, 5.0)
    assert one.id == entry(rule(), {"sub": "a", "org": "x"}, 9.0).id != other.id
    assert re.fullmatch("jwt:[0-9a-f]{16}", one.id)


@given(st.dictionaries(st.sampled_from(["sub", "org", "groups", "roles", "m", "t"]), json_values))
def test_claims_of_any_shape_give_a_caller_or_are_unfit(claims: dict[str, Any]) -> None:
    where = rule(tenant="org", team="groups.0", roles="roles", models="m", tags="t", user="sub")
    try:
        made = entry(where, claims, 5.0)
    except Unfit:
        return
    assert made.id.startswith("jwt:") and len(made.name) <= 128
