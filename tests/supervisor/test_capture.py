"""Texts that came with calls: opened, redacted, kept, and never in the way of a booking."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pytest

from gateway.core.captured import Captured, Captures
from gateway.link.seal import Seal
from gateway.supervisor.capture import Texts

WANTED = {
    "prompt": "ann@example.com",
    "response": "from 10.0.0.1",
    "redact": ["email"],
    "most": 100,
    "keep": 60,
}


class Kept(Captures):
    """A store that keeps in memory, or fails."""

    def __init__(self, fails: bool = False) -> None:
        self.all: list[Captured] = []
        self._fails = fails

    def keep_captures(self, captures: Sequence[Captured]) -> None:
        if self._fails:
            raise OSError("canary-disk")
        self.all += captures


def record(seal: Seal, **texts: Any) -> dict[str, Any]:
    return {"id": "req_1", "ts": 1000, "tenant": "acme", "model": "gpt-4o", "sealed": seal.close(texts)}


def test_texts_to_be_counted_are_put_in_the_record_and_nothing_is_kept() -> None:
    seal, store = Seal.fresh(), Kept()
    texts, booked = Texts(seal, store), record(seal, prompt="p", text="t")
    texts.opened(booked)
    texts.keep()
    assert booked == {
        "id": "req_1",
        "ts": 1000,
        "tenant": "acme",
        "model": "gpt-4o",
        "prompt": "p",
        "text": "t",
    }
    assert store.all == []


def test_what_a_tenant_wants_is_redacted_and_kept_and_leaves_the_record() -> None:
    seal, store = Seal.fresh(), Kept()
    texts, booked = Texts(seal, store), record(seal, capture=WANTED)
    texts.opened(booked)
    texts.keep()
    texts.keep()
    (kept,) = store.all
    assert (kept.prompt, kept.response) == ("[email]", "from 10.0.0.1")
    assert (kept.id, kept.tenant, kept.ts_ms, kept.until_ms) == ("req_1", "acme", 1000, 61_000)
    assert kept.redactions == {"email": 1}
    assert set(booked) == {"id", "ts", "tenant", "model"}


def test_texts_are_cut_without_leaving_half_a_find() -> None:
    seal, store = Seal.fresh(), Kept()
    texts = Texts(seal, store)
    secret = "sk-abcdefghijklmnopqrstuvwxyz"
    texts.opened(
        record(seal, capture={**WANTED, "prompt": f"éé {secret} more", "response": "\0x", "most": 12})
    )
    texts.keep()
    assert store.all[0].prompt == "éé [secret"
    assert store.all[0].response == "�x"


def test_what_another_supervisor_sealed_is_left_out() -> None:
    store = Kept()
    texts, booked = Texts(Seal.fresh(), store), record(Seal.fresh(), prompt="p", text="t", capture=WANTED)
    texts.opened(booked)
    texts.keep()
    assert set(booked) == {"id", "ts", "tenant", "model"} and store.all == []


@pytest.mark.parametrize("odd", [{"prompt": 5}, {**WANTED, "most": "x"}, {**WANTED, "redact": 5}, {"x": 1}])
def test_a_capture_that_is_none_is_counted_and_stops_nothing(odd: Any) -> None:
    seal, store = Seal.fresh(), Kept()
    texts = Texts(seal, store)
    texts.opened(record(seal, capture=odd))
    texts.keep()
    assert texts.lost == 1 and store.all == []


def test_a_store_that_fails_stops_no_booking_and_its_words_are_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seal = Seal.fresh()
    texts = Texts(seal, Kept(fails=True))
    texts.opened(record(seal, capture=WANTED))
    with caplog.at_level(logging.ERROR):
        texts.keep()
    assert texts.lost == 1
    assert "1 captures can't be written: OSError" in caplog.text and "canary" not in caplog.text
