"""Splicing: one member changes, every other byte stays."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.codec import loads
from gateway.core.splice import append, members, replace, spans

names = st.sampled_from(["model", "m", "stream_options", 'quo"te', "back\\slash", "é", "", "a{b", "c]d"])
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["model", '"model"', '{"model":1}', "\\", "}", "]", ",", ":", "", "x\n", "\\\\\"", "é"]),
)  # fmt: skip
values = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=3)),
    max_leaves=12,
)
spaces = st.sampled_from(["", " ", "\n\t", " \r\n"])


@st.composite
def objects(draw: st.DrawFn) -> tuple[bytes, list[tuple[str, str]]]:
    """A JSON object as somebody wrote it, and its members: name and the value's text."""
    space = draw(spaces)
    found = []
    for name, value in draw(st.lists(st.tuples(names, values), max_size=6)):
        text = json.dumps(value, ensure_ascii=draw(st.booleans()), separators=(f"{space},", f":{space}"))
        found.append((name, text))
    spelled = [(_spelled(draw, name), text) for name, text in found]
    inside = f"{space},{space}".join(f"{name}{space}:{space}{text}" for name, text in spelled)
    return f"{space}{{{space}{inside}{space}}}{space}".encode(), found


def _spelled(draw: st.DrawFn, name: str) -> str:
    """A name in quotes, perhaps with escapes that nobody needs."""
    if name and draw(st.booleans()):
        return '"' + "".join(f"\\u{ord(letter):04x}" for letter in name) + '"'
    return json.dumps(name, ensure_ascii=False)


@given(objects())
def test_members_are_found_where_they_stand(given_: tuple[bytes, list[tuple[str, str]]]) -> None:
    data, expected = given_
    found = [(json.loads(key), data[start:end].decode()) for key, start, end in members(data)]
    assert found == expected


@given(objects(), values)
@example((b'{"a":"model","mode\\u006c":1}', [("a", '"model"'), ("model", "1")]), 2)
@example((b'{"x":"\\"model","model":1}', [("x", '"\\"model"'), ("model", "1")]), 2)
def test_a_replaced_value_is_the_only_change(given_: tuple[bytes, list[tuple[str, str]]], value: Any) -> None:
    data, expected = given_
    if not any(name == "model" for name, _ in expected):
        return
    changed = replace(data, "model", json.dumps(value).encode())
    pairs = json.loads(changed, object_pairs_hook=lambda pairs: pairs)
    before = json.loads(data, object_pairs_hook=lambda pairs: pairs)
    wanted = json.loads(json.dumps(value), object_pairs_hook=lambda pairs: pairs)
    assert pairs == [(name, wanted if name == "model" else old) for name, old in before]
    start, end = spans(data, "model")[0]
    assert changed.startswith(data[:start])
    assert len(spans(data, "model")) > 1 or changed.endswith(data[end:])


@given(objects())
def test_an_appended_member_comes_last(given_: tuple[bytes, list[tuple[str, str]]]) -> None:
    data, expected = given_
    changed = append(data, "new", b"[1]")
    pairs = json.loads(changed, object_pairs_hook=lambda pairs: pairs)
    assert [name for name, _ in pairs] == [*(name for name, _ in expected), "new"]
    assert loads(changed)["new"] == [1]


def test_the_spelling_of_numbers_survives() -> None:
    data = b'{"a":1e400,"b":12345678901234567890123,"model":"x","c":0.10,"d":1E+2, "e" : -0.0}'
    assert replace(data, "model", b'"y"') == data.replace(b'"x"', b'"y"')
    assert append(data, "z", b"1") == data[:-1] + b',"z":1}'


def test_an_empty_object_gets_its_first_member() -> None:
    assert append(b" { } ", "a", b"1") == b' { "a":1} '


def test_a_name_inside_another_object_is_not_meant() -> None:
    data = b'{"metadata":{"model":"inner"},"tools":[{"model":1}],"model":"outer"}'
    assert replace(data, "model", b'"new"') == data.replace(b'"outer"', b'"new"')


def test_large_and_deep_values_are_walked_over() -> None:
    deep = b"[" * 900 + b"]" * 900
    data = b'{"model":"a","deep":%b,"text":"%b","model2":["model","model"]}' % (deep, b'\\"' * 500_000)
    assert replace(data, "model", b'"b"') == data.replace(b'"a"', b'"b"', 1)
