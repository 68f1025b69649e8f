"""For whom a limit is raised: what can be known is checked, what callers say themselves is not."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from gateway.control.bucket import Buckets
from gateway.core.claims import Jwt
from gateway.core.errors import CallerError
from gateway.core.group import Member, Tenant
from gateway.core.limit import LimitRule
from gateway.core.principal import KeyEntry
from gateway.core.route import ModelRule
from gateway.settings.schema import Auth, BackendSettings, Settings

KEYS = (
    KeyEntry("key_1", "ci", b"1", tenant="acme", team="search"),
    KeyEntry("key_2", "twice", b"2"),
    KeyEntry("key_3", "twice", b"3"),
    KeyEntry("key_4", "old", b"4", revoked=True),
)
TENANTS = (Tenant("acme", users=MappingProxyType({"ann": Member()})),)
EXACT = Settings(
    backends={"main": BackendSettings("main", "echo", "")},
    models=(ModelRule("gpt-4o", ()), ModelRule("org/m", ())),
)
GLOBS = replace(EXACT, models=(ModelRule("gpt-*", ()),))


def meant(scope: str, wanted: str, settings: Settings = EXACT, match: str = "*") -> str:
    rule = LimitRule("r", tuple(scope.split("/")), "requests", 10, 60.0, match=match)
    return Buckets(settings, KEYS, TENANTS).meant(rule, wanted)


@pytest.mark.parametrize(
    "scope, wanted",
    [
        ("key", "key_1"), ("key", "key_?"), ("key", "open"), ("tenant", "acme"), ("tenant", "a*"),
        ("team", "search"), ("user", "ann"), ("model", "gpt-4o"), ("model", "org/m"), ("model", "org/*"),
        ("backend", "main"), ("tag", "anything"), ("global", "*"), ("tenant/model", "acme/gpt-4o"),
        ("tenant/model", "acme/org/m"), ("tenant/model", "*"), ("tenant/model", "ac*"),
        ("model/tenant", "org/m/acme"), ("tag/key", "a/b"), ("key/model", "key_1/*"),
    ],
)  # fmt: skip
def test_what_a_call_can_be_counted_by_stays_as_it_is(scope: str, wanted: str) -> None:
    assert meant(scope, wanted) == wanted


def test_the_name_of_a_key_stands_for_its_id() -> None:
    assert meant("key", "ci") == "key_1"
    assert meant("key/model", "ci/gpt-4o") == "key_1/gpt-4o"
    assert meant("tenant/key", "acme/ci") == "acme/key_1"
    assert meant("key", "ci", match="c*") == "key_1"


@pytest.mark.parametrize(
    "scope, wanted, why",
    [
        ("key", "rq", "There is no key of that name or id for 'rq': there are 'ci', 'twice'."),
        ("key", "old", "There is no key"),
        ("key", "no-such-value/at/all", "There is no key"),
        ("key", "twi*", "matches the id of no key"),
        ("tenant", "globex", "There is no tenant for 'globex': there are 'acme'."),
        ("tenant", "glo*", "There is no tenant"),
        ("team", "find", "There is no team"),
        ("user", "bob", "There is no user"),
        ("model", "gpt-5", "There is no model for 'gpt-5': there are 'gpt-4o', 'org/m'."),
        ("backend", "other", "There is no backend"),
        ("global", "acme", "counts all calls together: leave value out"),
        (
            "tenant/model",
            "acme",
            "counts by tenant/model: value has all of them, as in 'acme' with /* after it",
        ),
        ("tenant/model", "acme/gpt-5", "There is no model"),
        ("tenant/model", "globex/*", "There is no tenant"),
    ],
)
def test_what_no_call_can_be_counted_by_is_refused_with_what_would_be_right(
    scope: str, wanted: str, why: str
) -> None:
    with pytest.raises(CallerError) as caught:
        meant(scope, wanted)
    assert why in caught.value.message and (caught.value.status, caught.value.param) == (400, "value")


def test_a_name_that_two_keys_have_is_refused_with_their_ids() -> None:
    with pytest.raises(CallerError, match="key_2 or key_3") as caught:
        meant("key", "twice")
    assert caught.value.status == 409


def test_what_a_limit_does_not_match_is_refused() -> None:
    with pytest.raises(CallerError, match="holds for 'twi"):
        meant("key", "ci", match="twi*")


@pytest.mark.parametrize(
    "scope, wanted", [("model", "gpt-5"), ("model", "gpt-5*"), ("tenant/model", "acme/gpt-5")]
)
def test_a_model_that_a_pattern_serves_is_known(scope: str, wanted: str) -> None:
    assert meant(scope, wanted, GLOBS) == wanted


@pytest.mark.parametrize(
    "scope, wanted",
    [("user", "bob"), ("tenant", "globex"), ("team", "find"), ("key", "jwt:1f"), ("key", "jwt:*")],
)
def test_what_tokens_may_say_is_not_known(scope: str, wanted: str) -> None:
    tokens: Any = Jwt.__new__(Jwt)
    settings = replace(EXACT, auth=Auth(jwt=tokens))
    assert meant(scope, wanted, settings) == wanted
    with pytest.raises(CallerError, match="There is no key"):
        meant("key", "rq", settings)
