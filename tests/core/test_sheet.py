"""Records as tables: nothing is lost, nothing is mixed up, and what is no record is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.codec import dumps, loads
from gateway.core.sheet import LABELS, Sheet, gathered, tabulated

texts = st.one_of(st.text(max_size=8), st.sampled_from([',"id":"x"', '"', "\\", ',\\"id\\":', "}", "{"]))
heads = st.fixed_dictionaries(
    {"method": texts},
    optional={name: texts | st.integers(0, 3) for name in ("key", "model", "alias", "worker", "tries")},
)
rests = st.fixed_dictionaries(
    {"id": texts, "ts": st.integers(0, 9)},
    optional={
        "status": st.sampled_from([200, 500]),
        "input": st.integers(0, 9),
        "tries": st.integers(1, 3),
        "tags": st.fixed_dictionaries({"a": texts, "id": texts}),
    },
)


def pile(records: list[dict[str, Any]]) -> list[bytes]:
    return sorted(dumps(dict(sorted(record.items()))) for record in records)


def rows(sheets: list[Sheet]) -> list[dict[str, Any]]:
    return [record for sheet in sheets for record in sheet.records()]


@given(st.lists(st.tuples(heads, rests), max_size=20))
def test_what_is_gathered_is_what_the_lines_say(parts: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    # As a worker writes them: the common members, then its own from `id` on; what comes last goes.
    lines = [dumps(head)[:-1] + b"," + dumps({"id": rest["id"], **rest})[1:] for head, rest in parts]
    sheets = gathered(lines)
    assert pile(rows(sheets)) == pile([loads(line) for line in lines])
    for sheet in sheets:
        assert sheet.size == len(sheet.records()) > 0
        assert not set(sheet.columns) & set(sheet.common)


@given(st.lists(rests, max_size=20))
def test_any_records_make_sheets(records: list[dict[str, Any]]) -> None:
    assert pile(rows(tabulated(records))) == pile(records)


@given(st.lists(rests, min_size=1, max_size=20))
def test_parts_have_one_value_each_and_are_the_whole(records: list[dict[str, Any]]) -> None:
    for sheet in tabulated(records):
        parts = sheet.parted(LABELS)
        assert all(set(part.columns).isdisjoint(LABELS) for part in parts)
        assert len({part.common.get("status") for part in parts}) == len(parts)
        assert pile(rows(parts)) == pile(sheet.records())


def test_calls_of_one_shape_share_a_sheet_in_their_order_whatever_their_keys() -> None:
    lines = [b'{"key":"k%d","model":"m","id":"c%d","input":%d}' % (n % 3, n, n) for n in range(9)]
    (sheet,) = gathered(lines)
    assert sheet.common == {"model": "m"}
    assert list(sheet.columns["id"]) == [f"c{n}" for n in range(9)]
    assert sheet.total("input") == 36 and sheet.total("output") == 0
    assert list(sheet.column("model")) == ["m"] * 9 and list(sheet.column("code")) == []


@pytest.mark.parametrize(
    "lines",
    [
        [b"nonsense"],
        [b""],
        [b"[1]"],
        [b'{"id":"a"}', b'{"id":"b"'],
        [b'{"id":"a","b":[1', b'"x":2}]}'],
        [b'{"id":"a","tags":[{}', b"{}]}"],
        [b'["key","id":"a"}'],
        [b'{"key":{"a":1,"id":"b"},"c":2}'],
    ],
)
def test_lines_that_are_no_records_are_refused(lines: list[bytes]) -> None:
    with pytest.raises(ValueError):
        gathered(lines)
