from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.settings.faults import Path, Place
from gateway.settings.locate import Places

DOCUMENT = """\
title = "x"                      # a comment with [brackets] and = signs
a.b."c d" = 1
'lit eral' = 'no \\escape'

[server]
listen = \"\"\"
[not.a.header]
key = 1 \\\"\"\" \"\"\"
bounds = { body = "1MiB", deep = { idle = [1, { x = 2 }] } }

[[keys]]
name = "one"
[keys.more]
x = 1
[[keys]]
name = "two"
models = [
  "a", # ] not yet
  'b]',
]
[[keys.sub]]
y = 1
[[keys.sub]]
y = 2
["quoted \\u0041 key"]
z = 2027-01-01 10:00:00
"""


def paths(value: Any, path: Path = ()) -> list[Path]:
    """Every path in a parsed document."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += paths(item, (*path, key))
    return found


def test_keys_and_values_are_found_where_they_stand() -> None:
    places = Places(DOCUMENT)
    assert places.key(("title",)) == Place(1, 1)
    assert places.value(("title",)) == Place(1, 9)
    assert places.key(("a", "b", "c d")) == Place(2, 5)
    assert places.key(("server",)) == places.value(("server",)) == Place(5, 2)
    assert places.key(("server", "bounds", "deep", "idle")) == Place(9, 36)
    assert places.value(("server", "bounds", "deep", "idle", 1, "x")) == Place(9, 53)
    assert places.key(("keys", 0, "name")) == Place(12, 1)
    assert places.key(("keys", 0, "more", "x")) == Place(14, 1)
    assert places.key(("keys", 1, "models", 1)) == Place(19, 3)
    assert places.key(("keys", 1, "sub", 1, "y")) == Place(24, 1)
    assert places.value(("quoted A key", "z")) == Place(26, 5)
    assert places.key(("nowhere",)) is None


def test_every_path_of_a_document_has_a_place() -> None:
    places = Places(DOCUMENT)
    for path in paths(tomllib.loads(DOCUMENT)):
        assert places.key(path) and places.value(path), path


def test_a_key_set_twice_is_found_with_both_places() -> None:
    twice = Places("[a]\nx = 1\ny = 2\nx = 3\n").twice
    assert [(t.path, t.first, t.second) for t in twice] == [(("a", "x"), Place(2, 1), Place(4, 1))]


def test_lines_are_counted_as_tomllib_does_with_carriage_returns() -> None:
    assert Places("a = 1\r\nb = 2\r\n").key(("b",)) == Place(2, 1)


def test_absurd_nesting_is_survived() -> None:
    Places("a = " + "[" * 50_000)


LETTERS = [*"abc.=[]{},#\"'\\\n\r \t01-é", '"""', "'''", "[[", "]]", "\\u0041", "= 1\n", "x = "]
LINES = [
    *(
        "[a]\n",
        "[[a]]\n",
        "[a.b]\n",
        "[[a.b]]\n",
        "x = 1\n",
        "y.z = 2\n",
        "t = {}\n",
        "'' = 1\n",
        "[]\n",
        "=\n",
    ),
    *('k = """a"" b"""\n', "l = '''\n'''\n", '"q\\"" = [1, {u = 2}, [3]] # c\n', "d = 1979-05-27 07:32:00\n"),
]
TOMLISH = st.lists(st.sampled_from(LETTERS), max_size=60).map("".join)
TOMLISH |= st.lists(st.sampled_from(LINES), max_size=12).map("".join)


@settings(max_examples=600, deadline=None)
@given(TOMLISH)
@example("[[]]")
@example('a = """')
@example("[a\n[[b\n= 1")
@example('"\\ud800" = 1')
def test_no_text_is_too_strange_and_valid_text_is_fully_located(text: str) -> None:
    places = Places(text)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    lines = text.replace("\r\n", "\n").split("\n")
    for path in paths(document):
        place = places.key(path)
        assert place is not None, path
        shown = lines[place.line - 1][place.column - 1 :]
        if isinstance(path[-1], str) and shown[0] not in "\"'":
            assert shown.startswith(path[-1])


KEYS = st.text(max_size=6).filter(lambda s: "\0" not in s)
VALUES = st.recursive(
    st.integers(-99, 99) | st.booleans() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)


def toml(value: Any) -> str:
    """A value as inline TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(k)} = {toml(v)}" for k, v in value.items()) + "}"
    return str(value)


def quoted(text: str) -> str:
    """A basic string, every odd character escaped."""
    return '"' + "".join(c if c.isalnum() else f"\\U{ord(c):08x}" for c in text) + '"'


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_any_document_written_as_toml_is_fully_located(document: dict[str, Any]) -> None:
    text = "\n\n".join(f"  {quoted(key)}  =  {toml(value)} # note" for key, value in document.items())
    places = Places(text)
    for path in paths(tomllib.loads(text)):
        assert places.key(path) and places.value(path), path
