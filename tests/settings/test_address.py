from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.settings.address import parse
from gateway.settings.kinds import Wrong


@pytest.mark.parametrize(
    ("text", "loopback"),
    [
        ("127.0.0.1:80", True),
        ("127.8.8.8:80", True),
        ("localhost:80", True),
        ("[::1]:80", True),
        ("unix:/run/p.sock", True),
        ("0.0.0.0:80", False),
        ("[::]:80", False),
        ("10.0.0.1:80", False),
        ("gateway.example:80", False),
        ("localhost.example:80", False),
    ],
)
def test_loopback_is_what_only_this_machine_reaches(text: str, loopback: bool) -> None:
    assert parse(text).loopback is loopback
    assert str(parse(text)) == text


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("127.0.0.1:80", "127.0.0.1:80", True),
        ("127.0.0.1:80", "127.0.0.1:81", False),
        ("127.0.0.1:80", "127.0.0.2:80", False),
        ("0.0.0.0:80", "127.0.0.1:80", True),
        ("127.0.0.1:80", "[::]:80", True),
        ("127.0.0.1:0", "127.0.0.1:0", False),
        ("unix:/a", "unix:/a", True),
        ("unix:/a", "unix:/b", False),
        ("unix:/a", "127.0.0.1:80", False),
    ],
)
def test_addresses_that_can_not_both_be_listened_on_meet(one: str, other: str, meet: bool) -> None:
    assert parse(one).meets(parse(other)) is meet and parse(other).meets(parse(one)) is meet


@given(st.text() | st.from_regex(r"[\[\]:0-9a-f.%]{0,20}:?[0-9]{0,6}", fullmatch=True))
def test_any_other_text_is_refused_in_words(text: str) -> None:
    try:
        assert parse(str(parse(text))) == parse(text)
    except Wrong as wrong:
        assert str(wrong)
