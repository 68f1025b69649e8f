"""The keyring: turns, rests, and never nothing."""

from __future__ import annotations

from gateway.backends.base.keyring import LIMITED, LONGEST, REFUSED, Keyring


def names(keyring: Keyring, count: int) -> str:
    return "".join(keyring.pick().block.decode() for _ in range(count))


def test_a_key_rests_as_long_as_the_provider_says() -> None:
    now = [0.0]
    keyring = Keyring([b"a", b"b"], lambda: now[0])
    keyring.refused(keyring.pick(), 429, b"20")
    now[0] = 19.9
    assert names(keyring, 3) == "bbb"
    now[0] = 20.0
    assert sorted(names(keyring, 2)) == ["a", "b"]


def test_a_time_to_come_back_may_be_a_date() -> None:
    keyring = Keyring([b"a", b"b"], lambda: 0.0)
    first, second = keyring.pick(), keyring.pick()
    keyring.refused(first, 429, b"Thu, 01 Jan 1970 00:00:00 GMT")
    keyring.refused(second, 429, b"Fri, 31 Dec 9999 23:59:59 GMT")
    assert (first.until, second.until) == (0.0, LONGEST)


def test_without_a_word_it_rests_a_while_and_never_for_ever() -> None:
    now = [0.0]
    keyring = Keyring([b"a", b"b"], lambda: now[0])
    for status, said, rest in (
        (429, None, LIMITED),
        (401, None, REFUSED),
        (429, b"soon", LIMITED),
        (429, b"9" * 40, LONGEST),
    ):
        credential = keyring.pick()
        keyring.refused(credential, status, said)
        assert credential.until == now[0] + rest
        now[0] += LONGEST


def test_when_all_rest_the_one_that_wakes_first_is_asked() -> None:
    keyring = Keyring([b"a", b"b"], lambda: 0.0)
    for pause in (b"30", b"10"):
        keyring.refused(keyring.pick(), 429, pause)
    assert names(keyring, 3) == "bbb"


def test_a_single_key_is_always_asked() -> None:
    keyring = Keyring([b"a"], lambda: 0.0)
    keyring.refused(keyring.pick(), 401, None)
    assert names(keyring, 2) == "aa"


def test_a_credential_shows_nothing_of_itself() -> None:
    assert "secret" not in repr(Keyring([b"secret"]).pick())
