"""The key directory: found by digest, swapped as a whole, memories kept where nothing changed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.core.group import Member, Tenant
from gateway.core.keys import Keys
from gateway.core.ports import KeyDirectory
from gateway.core.principal import KeyEntry, Principal, digest, rotate


def entry(name: str, **rest: object) -> KeyEntry:
    return KeyEntry(f"key_{name}", name, digest(name.encode()), **rest)  # type: ignore[arg-type]


def test_a_key_is_found_by_its_digest_and_nothing_else() -> None:
    keys: KeyDirectory = Keys([entry("a"), entry("b")])
    found = keys.find(digest(b"a"))
    assert found is not None and found.key.name == "a"
    assert keys.find(b"a") is None
    assert keys.find(digest(b"c")) is None


def test_an_unchanged_key_keeps_its_memo_and_a_changed_one_does_not() -> None:
    keys = Keys([entry("a"), entry("b")])
    for name in ("a", "b"):
        principal = keys.find(digest(name.encode()))
        assert principal is not None
        principal.memo["seen"] = True
    keys.replace([entry("a"), replace(entry("b"), revoked=True)])
    same, changed = keys.find(digest(b"a")), keys.find(digest(b"b"))
    assert same is not None and same.memo == {"seen": True}
    assert changed is not None and changed.memo == {} and changed.key.revoked


def test_a_key_that_is_left_out_is_gone_and_the_generation_moves() -> None:
    keys = Keys([entry("a")])
    before = keys.generation
    keys.replace([])
    assert keys.find(digest(b"a")) is None
    assert keys.generation > before and len(keys) == 0


def rotated(name: str, before: str, until: float, **rest: object) -> KeyEntry:
    return entry(name, previous=digest(before.encode()), previous_until=until, **rest)


def found(keys: Keys, secret: str) -> Principal:
    principal = keys.find(digest(secret.encode()))
    assert principal is not None, secret
    return principal


def test_rotation_gives_another_secret_and_the_one_before_ends_in_time() -> None:
    old = entry("a")
    secret, new = rotate(old, 60.0, now=1000.0)
    assert new.digest == digest(secret.encode()) != old.digest
    assert (new.id, new.name, new.previous, new.previous_until) == (old.id, "a", old.digest, 1060.0)
    _, again = rotate(new, 0.0, now=1001.0)
    assert (again.previous, again.previous_until) == (b"", None)


@pytest.mark.parametrize(
    ("old", "overlap", "why"),
    [
        (entry("a", revoked=True), 60.0, "revoked"),
        (entry("a", expires=999.0), 60.0, "expired"),
        (entry("a"), -1.0, "0 seconds or more"),
        (entry("a"), float("nan"), "0 seconds or more"),
        (entry("a"), float("inf"), "0 seconds or more"),
    ],
    ids=["revoked", "expired", "negative", "nan", "endless"],
)
def test_a_key_that_can_not_be_rotated_is_refused(old: KeyEntry, overlap: float, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        rotate(old, overlap, now=1000.0)


def test_both_secrets_of_a_rotated_key_are_one_caller_and_the_old_one_has_its_own_end() -> None:
    keys = Keys([rotated("new", "old", 50.0)])
    new, old = found(keys, "new"), found(keys, "old")
    assert new.key.id == old.key.id and new.memo is old.memo
    assert (new.key.expires, old.key.expires) == (None, 50.0)
    keys.replace([rotated("new", "old", 50.0, expires=40.0)])
    assert (found(keys, "new").key.expires, found(keys, "old").key.expires) == (40.0, 40.0)
    keys.change([entry("new")])
    assert keys.find(digest(b"old")) is None and len(keys) == 1


def test_a_secret_that_another_key_has_now_is_not_taken_back_by_a_rotation() -> None:
    for entries in ([entry("a"), rotated("b", "a", 50.0)], [rotated("b", "a", 50.0), entry("a")]):
        assert found(Keys(entries), "a").key.name == "a"


def test_changes_come_one_by_one_and_leave_the_others_alone() -> None:
    keys = Keys([entry("a"), entry("b"), entry("c")])
    same = found(keys, "a")
    before = keys.generation
    keys.change([replace(entry("b"), revoked=True), entry("d")], gone=["key_c", "key_unknown"])
    assert keys.generation > before
    assert found(keys, "a") is same
    assert found(keys, "b").key.revoked and found(keys, "d").key.name == "d"
    assert keys.find(digest(b"c")) is None and len(keys) == 3


def test_the_files_key_keeps_its_secret_whatever_is_made_later() -> None:
    keys = Keys([entry("a")])
    keys.change([replace(entry("x", origin="ledger"), digest=digest(b"a"))])
    assert found(keys, "a").key.name == "a"
    keys.change([], gone=["key_x"])
    assert found(keys, "a").key.name == "a"


ACME = Tenant("acme", models=("gpt-*",), teams={"search": Member(tags=("s",))}, users={"bot": Member()})


def test_a_caller_is_in_the_groups_about_which_something_is_said() -> None:
    member = entry("a", tenant="acme", team="search", user="bot")
    keys = Keys([member, entry("b", tenant="acme", team="other"), entry("c", team="search")], [ACME])
    assert [group[:2] for group in found(keys, "a").groups] == [
        ("tenant", "acme"), ("team", "search"), ("user", "bot"),
    ]  # fmt: skip
    assert found(keys, "a").tenant is not None
    assert [group.kind for group in found(keys, "b").groups] == ["tenant"]
    assert found(keys, "c").groups == () and found(keys, "c").tenant is None


def test_another_tenant_is_news_to_its_members_alone() -> None:
    keys = Keys([entry("a", tenant="acme"), entry("b", tenant="other")], [ACME, Tenant("other")])
    member, stranger = found(keys, "a"), found(keys, "b")
    keys.change([], tenants=[replace(ACME, disabled=True), Tenant("other")])
    assert found(keys, "a") is not member and found(keys, "a").groups[0].rules.disabled
    assert found(keys, "b") is stranger
    keys.change([entry("c", tenant="acme")])
    assert found(keys, "c").groups[0].rules.disabled
    keys.replace([entry("a", tenant="acme")])
    assert found(keys, "a").groups == ()


def test_callers_without_a_key_keep_their_memo_from_one_token_to_the_next() -> None:
    keys = Keys(tenants=[ACME])
    token = KeyEntry("jwt:1", "somebody", b"", tenant="acme", expires=1.0, origin="jwt")
    one, two = keys.caller(token), keys.caller(replace(token, expires=2.0))
    assert one.memo is two.memo and (one.key.expires, two.key.expires) == (1.0, 2.0)
    assert two.groups[0].rules is ACME
    assert keys.caller(replace(token, roles=("admin",))).memo is not one.memo
    for number in range(20_000):
        keys.caller(replace(token, name=str(number)))
    assert 8192 <= len(keys._callers) <= 16_384


names = st.sampled_from("abcd")
ending = st.one_of(st.none(), names)


class Directory(RuleBasedStateMachine):
    """Changes one by one lead to where the whole would have led."""

    def __init__(self) -> None:
        super().__init__()
        self.keys = Keys()
        self.entries: dict[str, KeyEntry] = {}

    @rule(name=names, before=ending, revoked=st.booleans())
    def put(self, name: str, before: str | None, revoked: bool) -> None:
        made = entry(name, revoked=revoked)
        if before is not None:
            made = replace(made, previous=digest(f"old {before}".encode()), previous_until=9.0)
            others = [e for e in self.entries.values() if e.previous == made.previous and e.id != made.id]
            if others:
                return
        self.entries[made.id] = made
        self.keys.change([made])

    @rule(name=names)
    def remove(self, name: str) -> None:
        self.entries.pop(f"key_{name}", None)
        self.keys.change([], gone=[f"key_{name}"])

    @invariant()
    def same(self) -> None:
        whole = Keys(list(self.entries.values()))
        secrets = [*"abcd", *(f"old {name}" for name in "abcd")]
        for secret in secrets:
            one, two = self.keys.find(digest(secret.encode())), whole.find(digest(secret.encode()))
            assert (one and one.key) == (two and two.key)
        assert len(whole) == len(self.keys)


TestDirectory = Directory.TestCase
