"""What every store of captures does: one suite for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.core.captured import Captured
from tests.contract.given import KINDS, Ledger, Store, made


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with made(request.param, tmp_path, request) as store:
        yield store


@pytest.fixture
def captures(store: Store) -> Ledger:
    return store.open("r1")


def one(number: int, tenant: str = "acme", until: int = 10_000) -> Captured:
    return Captured(
        f"req_{number:04}", 1000 + number // 2, tenant, "key", "gpt-4o", "chat/completions",
        f"p{number} é '?%", "", {"email": number}, until,
    )  # fmt: skip


def test_what_is_kept_can_be_read_again(captures: Ledger) -> None:
    captures.keep_captures([one(1), one(2)])
    assert captures.capture("req_0002") == one(2)
    assert captures.capture("req_0003") is None


def test_what_comes_twice_is_kept_once_and_as_it_was(captures: Ledger) -> None:
    captures.keep_captures([one(1)])
    captures.keep_captures([Captured("req_0001", 5, "other", "", "", "", "", ""), one(2)])
    assert list(captures.captures()) == [one(2), one(1)]


def test_they_come_newest_first_in_pages_without_gaps(captures: Ledger) -> None:
    everything = [one(number) for number in range(250)]
    captures.keep_captures(everything)
    assert list(captures.captures()) == everything[::-1]
    assert list(captures.captures(most=120)) == everything[::-1][:120]
    assert list(captures.captures(after="req_0100", most=5)) == everything[95:100][::-1]
    assert list(captures.captures(after="req_9999")) == []


def test_they_can_be_chosen_by_tenant_and_time(captures: Ledger) -> None:
    captures.keep_captures([one(number, "acme" if number % 3 else "other") for number in range(12)])
    assert [each.id for each in captures.captures(tenant="other")] == [
        "req_0009",
        "req_0006",
        "req_0003",
        "req_0000",
    ]
    assert [each.id for each in captures.captures(since_ms=1002, until_ms=1003)] == ["req_0005", "req_0004"]


def test_those_whose_time_is_up_go_in_small_steps(captures: Ledger) -> None:
    captures.keep_captures([one(number, until=5000 + number) for number in range(10)])
    assert captures.end_captures(4999) == 0
    assert [captures.end_captures(5006, most=3) for _ in range(4)] == [3, 3, 1, 0]
    assert [each.id for each in captures.captures()] == ["req_0009", "req_0008", "req_0007"]


def test_all_of_a_tenant_can_be_removed(captures: Ledger) -> None:
    captures.keep_captures([one(1), one(2, "other"), one(3)])
    assert captures.forget_captures("acme") == 2
    assert [each.tenant for each in captures.captures()] == ["other"]
