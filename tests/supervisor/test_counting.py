"""Estimated calls: tokens counted offline, cost by the prices in force, generated text thrown away."""

from __future__ import annotations

import pytest

from gateway.core.codec import dumps
from gateway.core.cost import Price
from gateway.core.tokens import count
from gateway.link.seal import Seal
from gateway.settings.schema import BackendSettings, Settings
from gateway.supervisor.batch import batched
from gateway.supervisor.capture import Texts
from gateway.supervisor.counting import Counting

SETTINGS = Settings(
    backends={
        "openai": BackendSettings(name="openai", kind="openai"),
        "echo": BackendSettings(name="echo", kind="echo"),
    },
    prices={"gpt-4o": Price.of({"input": 2.0, "output": 10.0})},
)
TEXT = "The quick brown fox jumps over the lazy dog. " * 7


def record(**more):
    base = {
        "id": "1",
        "backend": "openai",
        "target": "gpt-4o",
        "usage_source": "estimated",
        "input": 100,
        "output": 1,
    }
    return {**base, **more}


def test_an_estimated_call_is_counted_and_priced():
    row = record(text=TEXT)
    assert Counting(SETTINGS).complete(row)
    tokens = count("gpt-4o", TEXT)
    assert (row["output"], row["cost_micros"]) == (tokens, 200 + 10 * tokens)
    assert "text" not in row


def test_a_call_whose_provider_stated_its_usage_is_left_alone():
    row = record(usage_source="provider", cost_micros=7)
    assert not Counting(SETTINGS).complete(row)
    assert (row["output"], row["cost_micros"]) == (1, 7)


def test_text_is_never_kept():
    row = record(usage_source="provider", text=TEXT, cost_micros=7)
    assert Counting(SETTINGS).complete(row)
    assert "text" not in row and row["output"] == 1
    empty = record(text="")
    assert Counting(SETTINGS).complete(empty) and "text" not in empty


def test_what_has_no_price_costs_nothing_and_so_does_the_echo():
    for row in (record(text=TEXT, target="unheard-of"), record(text=TEXT, backend="echo")):
        Counting(SETTINGS).complete(row)
        assert row["output"] > 1 and row["cost_micros"] == 0


def test_the_alias_has_a_price_where_the_target_has_none():
    row = record(text=TEXT, target="deployment-7", alias="gpt-4o")
    Counting(SETTINGS).complete(row)
    assert row["cost_micros"] > 0


def test_the_prompt_is_counted_too():
    row = record(text=TEXT, prompt=TEXT, input=1)
    assert Counting(SETTINGS).complete(row) and "prompt" not in row
    assert row["input"] == row["output"] > 1


@pytest.mark.parametrize(
    "more, source",
    [
        ({"whole": True}, "counted"),
        ({"whole": True, "target": "openai/gpt-4o-mini-2024-07-18"}, "counted"),
        ({"whole": False}, "estimated"),
        ({}, "estimated"),
        ({"whole": True, "prompt": ""}, "estimated"),
        ({"whole": True, "target": "llama-3"}, "estimated"),
        ({"whole": True, "target": "o3-mini"}, "estimated"),
        ({"whole": True, "target": "gpt-5"}, "estimated"),
        ({"whole": True, "target": "gpt-4o-audio-preview"}, "estimated"),
        ({"whole": True, "usage_source": "provider"}, "provider"),
    ],
)
def test_only_what_was_counted_whole_with_the_models_own_encoding_is_counted(more, source):
    row = {**record(text=TEXT, prompt=TEXT), **more}
    Counting(SETTINGS).complete(row)
    assert row["usage_source"] == source
    assert row.keys().isdisjoint({"text", "prompt", "whole"})


def test_a_batch_tells_what_was_counted_of_its_calls_and_what_had_been_estimated():
    seal = Seal.fresh()
    sealed = seal.close({"prompt": "hello", "text": TEXT, "whole": False})
    stated = record(usage_source="provider", cost_micros=7)
    lines = [dumps(record(sealed=sealed)), dumps(stated)]
    ((before, after),) = batched(lines, Counting(SETTINGS), Texts(seal)).recounted
    assert (before["input"], before["output"], before.get("cost_micros")) == (100, 1, 0)
    assert (after["input"], after["output"]) == (count("gpt-4o", "hello"), count("gpt-4o", TEXT))
