"""The key directory: found by digest, swapped as a whole, memories kept where nothing changed."""

from __future__ import annotations

from dataclasses import replace

from gateway.core.keys import Keys
from gateway.core.ports import KeyDirectory
from gateway.core.principal import KeyEntry, digest


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
