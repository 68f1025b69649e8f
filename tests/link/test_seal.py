"""Texts on their way through a journal: readable with the key alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.link.seal import Seal

DOCUMENT = {"prompt": "canary", "capture": {"most": 5}}


@given(st.dictionaries(st.text(), st.text() | st.integers(-5, 5) | st.none(), max_size=4))
def test_what_is_sealed_can_be_opened_at_the_other_end_of_the_link(document: dict[str, object]) -> None:
    ours, theirs = Seal.fresh(), Seal()
    theirs.hear(ours.message())
    assert ours.open(theirs.close(document)) == document


def test_nothing_of_it_can_be_read_and_no_two_are_alike() -> None:
    seal = Seal.fresh()
    one, other = seal.close(DOCUMENT), seal.close(DOCUMENT)
    assert one != other and "canary" not in one and one.isascii()
    assert "canary" not in repr(seal)


def test_another_key_opens_nothing() -> None:
    sealed = Seal.fresh().close(DOCUMENT)
    assert Seal.fresh().open(sealed) == {}
    assert Seal().open(sealed) == {}


@given(st.integers(0, 200), st.sampled_from("A0/ é"))
def test_what_was_damaged_opens_as_nothing(at: int, other: str) -> None:
    seal = Seal(b"k" * 32)
    sealed = seal.close(DOCUMENT)
    at %= len(sealed)
    damaged = sealed[:at] + other + sealed[at + 1 :]
    assert damaged == sealed or seal.open(damaged) in ({}, DOCUMENT if damaged == sealed else {})


def test_bits_that_mean_nothing_are_damage_as_well() -> None:
    seal, document = Seal(b"k" * 32), {"a": 1}
    while not (sealed := seal.close(document)).endswith("="):
        document["a"] *= 10
    last = sealed.rstrip("=")[-1]
    damaged = sealed.replace(
        last + "=", {"A": "B", "Q": "R", "g": "h", "w": "x"}.get(last, chr(ord(last) + 1)) + "="
    )
    assert seal.open(sealed) == document and seal.open(damaged) == {}


def test_what_is_no_sealed_text_opens_as_nothing() -> None:
    for text in ("", "x", "AAAA", "é", "=" * 40):
        assert Seal.fresh().open(text) == {}


def test_without_a_key_nothing_is_sealed() -> None:
    assert Seal().close(DOCUMENT) == ""
