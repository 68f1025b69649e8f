"""Changes to a body: bytes and document stay in step; what can be read in two ways is told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.core.amend import Draft, unambiguous
from gateway.core.call import Call
from gateway.core.codec import loads
from gateway.core.errors import CallerError
from gateway.core.splice import begins, elements, members, remove, spans

names = st.sampled_from(["temperature", "tools", "seed", "a", "b", 'quo"te', "é"])
values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-9, 9), st.sampled_from(["x", "]", "}", ",", '"tools":1', "\\"])
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(names, inner, max_size=3)),
    max_leaves=10,
)
documents = st.dictionaries(names, values, max_size=5)
spaces = st.sampled_from([(", ", ": "), (",", ":"), (" ,\n\t", " :\r\n")])


def call(body: bytes) -> Call:
    made = Call("POST", "/chat/completions", "chat/completions", [], body)
    made.document = loads(body)
    return made


def written(document: Any, space: tuple[str, str]) -> bytes:
    return json.dumps(document, separators=space).encode()


@given(documents, spaces, st.lists(st.tuples(names, st.one_of(st.none(), values)), max_size=5))
def test_bytes_and_document_stay_in_step(
    document: dict[str, Any], space: tuple[str, str], changes: list[tuple[str, Any]]
) -> None:
    made = call(written(document, space))
    draft, expected = Draft(made), dict(document)
    for name, value in changes:
        assume(name.isascii() and '"' not in name)
        if value is None and name in expected:
            draft.drop(name)
            del expected[name]
        else:
            draft.put(name, value)
            expected[name] = value
    assert loads(made.body) == made.document == expected


@given(documents, spaces, st.sampled_from(["temperature", "tools"]))
def test_taking_a_member_away_leaves_the_others_as_they_were_spelt(
    document: dict[str, Any], space: tuple[str, str], name: str
) -> None:
    body = written(document, space)
    left = remove(body, name)
    assert loads(left) == {key: value for key, value in document.items() if key != name}
    texts = [body[start:end] for key, start, end in members(body) if json.loads(key) != name]
    assert [left[start:end] for _, start, end in members(left)] == texts


@given(st.lists(values, max_size=5), spaces)
def test_elements_of_an_array_are_found_where_they_stand(items: list[Any], space: tuple[str, str]) -> None:
    body = written({"tools": items}, space)
    (start,) = begins(body, "tools")
    assert start == spans(body, "tools")[0][0]
    assert [loads(body[at:end]) for at, end in elements(body, start)] == items


@given(st.lists(values, min_size=1, max_size=5), spaces, st.integers(0, 31))
def test_thinning_keeps_what_is_wanted(items: list[Any], space: tuple[str, str], mask: int) -> None:
    made = call(written({"model": "m", "tools": items}, space))
    wanted = [id(item) for at, item in enumerate(made.document["tools"]) if mask >> at & 1]  # type: ignore[index]
    expected = [item for item in made.document["tools"] if id(item) in wanted]  # type: ignore[index]
    Draft(made).thin("tools", lambda item: id(item) in wanted)
    assert loads(made.body) == made.document
    assert made.document.get("tools", []) == expected  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("body", "clear"),
    [
        (b'{"tools":[],"x":"\\u00e9"}', True),
        (b'{"tools":[],"messages":[{"tools":1,"Tools":2}]}', True),
        (b'{"tools":[{"properties":{"ID":1,"id":2}}]}', True),
        (b'{"other":1,"other":2,"Other":3}', True),
        (b'{"tools":[],"tools":[]}', False),
        (b'{"tools":[],"t\\u006fols":[]}', False),
        (b'{"t\\u006fols":[]}', True),
        (b'{"TOOLS":[]}', False),
        (b'{"tools":[{"a":1,"a":1}]}', False),
        (b'{"tools":[{"f":{"a":1,"\\u0061":1}}]}', False),
        (b'{"tools":' + b"[" * 900 + b"]" * 900 + b"}", None),
        (b'{"tools":[' + b"1" * 5000 + b"]}", None),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(body: bytes, clear: bool | None) -> None:
    made = call(b"{}")
    try:
        made = call(body)
    except ValueError:
        pass  # the front refuses it before
    made.body = body
    try:
        unambiguous(made, ["tools", "temperature"], ["tools"])
    except CallerError as error:
        assert clear is not True and error.status == 400
    else:
        assert clear is not False


def test_a_body_that_is_no_document_is_left_to_others() -> None:
    made = Call("POST", "/files", "files", [], b"--x")
    unambiguous(made, ["tools"])
