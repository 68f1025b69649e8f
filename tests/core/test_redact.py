"""Redaction: what it finds of generated samples, what it leaves alone, and that no text makes it slow."""

from __future__ import annotations

import base64
import json
import string
import time
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.core.redact import KINDS, finds, redact

WORD = string.ascii_letters + string.digits
ORDINARY = ["the", "key", "is", "here:", "for", "you,", "please", "(see", "below)", "and", "also", "42"]
words = st.lists(st.sampled_from(ORDINARY), max_size=5)


def of(alphabet: str, least: int, most: int | None = None) -> st.SearchStrategy[str]:
    return st.text(alphabet, min_size=least, max_size=most or least + 20)


def part(document: dict[str, object]) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")


def luhn(digits: str) -> str:
    """The digits with their check digit."""
    total = sum(int(d) if at % 2 else sum(divmod(2 * int(d), 10)) for at, d in enumerate(reversed(digits)))
    return digits + str(-total % 10)


def grouped(text: str, sizes: tuple[int, ...], between: str) -> str:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(text[at : at + size])
        at += size
    return between.join([*pieces, text[at:]] if at < len(text) else pieces)


def iban(country: str, rest: str) -> str:
    number = "".join(str(int(c, 36)) for c in rest + country + "00")
    return f"{country}{98 - int(number) % 97:02}{rest}"


TOKENS = st.one_of(
    of(WORD + "-_", 20).map("sk-".__add__),
    of(WORD + "-_", 43, 43).map("sk-ps-".__add__),
    of(WORD + "-_", 24).map("sk-ant-api03-".__add__),
    of(WORD + "-_", 24).map("sk-proj-".__add__),
    of(string.ascii_uppercase + string.digits, 16, 16).map("AKIA".__add__),
    of(string.ascii_uppercase + string.digits, 16, 16).map("ASIA".__add__),
    of(WORD, 36, 36).map("ghp_".__add__),
    of(WORD + "_", 60).map("github_pat_".__add__),
    of(WORD + "-_", 20).map("glpat-".__add__),
    of(WORD, 24).map("sk_live_".__add__),
    of(WORD + "-_", 35, 35).map("AIza".__add__),
    of(string.digits + "-", 12).map("xoxb-".__add__),
    st.tuples(of(WORD, 4), of(WORD + "-_", 40)).map(
        lambda given: f"{part({'alg': 'RS256'})}.{part({'sub': given[0]})}.{given[1]}"
    ),
    st.tuples(st.sampled_from(["", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED "]), of(WORD + "+/=\n", 64)).map(
        lambda given: (
            f"-----BEGIN {given[0]}PRIVATE KEY-----\n{given[1]}\n-----END {given[0]}PRIVATE KEY-----"
        )
    ),
)
EMAILS = st.tuples(
    of(WORD, 1),
    st.sampled_from(["", ".", "+tag.", "_"]),
    of(WORD, 1),
    st.sampled_from(["example.com", "mail.co.uk", "x-y.io"]),
).map(lambda given: f"{given[0]}{given[1]}{given[2]}@{given[3]}")
CARDS = st.tuples(
    st.sampled_from([("4", 15), ("51", 15), ("2221", 15), ("6011", 15), ("37", 14), ("4", 12)]),
    st.randoms(use_true_random=False),
    st.sampled_from(["", " ", "-"]),
).map(lambda given: _card(*given))
IBANS = st.tuples(
    st.sampled_from([("DE", 18), ("GB", 18), ("FR", 23), ("NL", 14), ("NO", 11), ("MT", 27)]),
    st.randoms(use_true_random=False),
    st.booleans(),
).map(lambda given: _iban(*given))
IPS = st.one_of(st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str)).filter(
    lambda text: "." in text or any(c.isdecimal() for c in text)
)
PHONES = st.one_of(
    st.tuples(
        st.sampled_from(["+49", "+1", "+44", "0033"]),
        of(string.digits, 8, 10),
        st.sampled_from(["", " ", "-"]),
    ).map(lambda given: given[2].join([given[0], given[1][:3], given[1][3:6], given[1][6:]])),
    of(string.digits, 7, 7).map(lambda digits: f"(415) {digits[:3]}-{digits[3:]}"),
    of(string.digits, 7, 7).map(lambda digits: f"415-{digits[:3]}-{digits[3:]}"),
)


def _card(start: tuple[str, int], random: object, between: str) -> str:
    prefix, length = start
    number = luhn(prefix + "".join(random.choice(string.digits) for _ in range(length - len(prefix))))  # type: ignore[attr-defined]
    if not between or len(number) == 13:
        return number
    return grouped(number, (4, 6, 5) if len(number) == 15 else (4, 4, 4, 4), between)


def _iban(start: tuple[str, int], random: object, spaced: bool) -> str:
    country, length = start
    made = iban(country, "".join(random.choice(string.digits) for _ in range(length)))  # type: ignore[attr-defined]
    return grouped(made, (4,) * (len(made) // 4), " ") if spaced else made


def test_of_two_telephone_numbers_in_a_row_both_go() -> None:
    text = "phone +49 30 1234567 (415) 555-2671, +1 (415) 555-2671 or +49 (0)30 123456"
    left = "".join(c for c in redact(text, KINDS)[0] if c.isdecimal())
    assert left == ""


SAMPLES = {"secret": TOKENS, "email": EMAILS, "card": CARDS, "iban": IBANS, "ip": IPS, "phone": PHONES}


QUOTES = ('"', "'", "\n")


@pytest.mark.parametrize("kind", KINDS)
def test_every_sample_is_found_wherever_it_stands(kind: str) -> None:
    @given(SAMPLES[kind], words, words, st.sampled_from([" ", "\n", "\t", ": ", '"', "'", "(", "=", "é "]))
    def found(sample: str, before: list[str], after: list[str], joint: str) -> None:
        assume(not (kind == "card" and joint == "="))
        text = f"{' '.join(before)}{joint}{sample}{joint if joint in QUOTES else ' '}{' '.join(after)}"
        clean, counts = redact(text)
        assert sample not in clean, clean
        assert sum(counts.values()) >= 1
        longest = max((sample[at : at + 8] for at in range(len(sample) - 7)), default=sample, key=len)
        assert longest not in clean or longest in " ".join([*before, *after])

    found()


@pytest.mark.parametrize(
    "text",
    [
        "task-oriented-programming-language-design",
        "the year 2024, 1,234,567 items at 12:30:45 on 2024-05-06",
        "std::vector<int>::iterator a::b x::y::z",
        "order 1234567890123 and 4111 1111 1111 1112 are no cards",
        "0000 0000 0000 0000",
        "DE00 0000 0000 0000 0000 00 is no account",
        "a@b and @mention and user@localhost",
        "3.14159 2.0.0 v1.2.3 999.1.1.1 10.0.0",
        "eyJ is how they begin; sk- too, AKIA and ghp_",
        "https://example.com/path?x=1 and redis://host:6379/0",
        "func(a, b) { return a + b; } // 555-1234",
        "123456789",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert redact(text) == (text, {})


def test_each_find_is_replaced_by_its_kind_and_counted() -> None:
    text = "ann@example.com, bob@example.com at 10.1.2.3, redis://:hunter22@cache:6379"
    assert redact(text) == (
        "[email], [email] at [ip], redis://[secret]@cache:6379",
        {"email": 2, "ip": 1, "secret": 1},
    )


def test_kinds_can_be_left_out_but_never_credentials() -> None:
    text = "ann@example.com sk-abcdefghijklmnopqrst 10.1.2.3"
    assert redact(text, ("ip",)) == ("ann@example.com [secret] [ip]", {"secret": 1, "ip": 1})
    assert redact(text, ()) == ("ann@example.com [secret] 10.1.2.3", {"secret": 1})


def test_a_private_key_without_an_end_goes_as_far_as_the_text() -> None:
    text = "see -----BEGIN RSA PRIVATE KEY-----\nMIIE\nand nothing more"
    assert redact(text) == ("see [secret]", {"secret": 1})


def test_a_card_among_other_numbers_is_found() -> None:
    assert redact("10 20 30 4000 4111 1111 1111 1111 5 6")[1] == {"card": 1}
    assert redact("card:4111111111111111.")[0] == "card:[card]."


@given(st.integers(0, 60))
def test_a_find_that_reaches_across_the_end_is_taken_out_as_a_whole(most: int) -> None:
    text = "write to ann@example.com about sk-abcdefghijklmnopqrst"
    clean, _ = redact(text, KINDS, most)
    for secret in ("ann@example.com", "sk-abcdefghijklmnopqrst"):
        start = text.index(secret)
        if start < most:
            assert secret[:3] not in clean
    assert len(clean) <= most + len("[secret]")


@given(st.text(max_size=300))
def test_any_text_is_text_in_order_with_finds_apart(text: str) -> None:
    found = finds(text)
    assert all(0 <= span.start < span.end <= len(text) for span in found)
    assert all(one.end <= other.start for one, other in pairwise(found))
    clean, counts = redact(text)
    assert sum(counts.values()) == len(found)
    assert (clean == text) == (not found) or "[" in text


PIECES = [
    "a", "@", "a@", "a.", "a@b.", "1", "1 ", "1-", "1111 ", "1111-", "sk-", "sk-a ", "eyJ", "eyJaaaaaaaa.",
    ".", "-----BEGIN PRIVATE KEY-----", "-----BEGIN ", "-----END ", "-", "://", "://a:", "://a:b", "DE12",
    "DE12 ",
    "A", "A1", ":", "a:", "1.", "1.1.1.1", "+1", "+", "00", "(555) ", "bearer ", "access_key=", "AKIA",
    "ghp_", "SG.aaaaaaaaaaaaaaaaa", "é", "\n", "\0", "_", "%",
]  # fmt: skip


@pytest.mark.parametrize("piece", PIECES)
def test_no_repetition_makes_it_slow(piece: str) -> None:
    """Anything quadratic would take minutes to hours. The limit only ends a failed test."""
    text = piece * (500_000 // len(piece))
    began = time.process_time()
    redact(text)
    assert time.process_time() - began < 60


@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=4), st.integers(0, 3))
def test_no_mixture_makes_it_slow(pieces: list[str], turn: int) -> None:
    unit = "".join(pieces)
    text = (unit * (20_000 // len(unit)))[turn:]
    began = time.process_time()
    redact(text)
    assert time.process_time() - began < 10
