"""Whatever a file says, the loader answers with settings or with faults, never with anything else."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.settings.faults import ConfigError
from gateway.settings.kinds import Kind
from gateway.settings.load import load
from gateway.settings.root import ROOT
from gateway.settings.tables import Many, Named, Table
from tests.settings.test_locate import toml

CANARY = "sk-canary-0123456789"
WORDS = st.sampled_from(
    [
        *(
            "openai",
            "azure",
            "echo",
            "env:CANARY",
            "env:NO",
            "file:x",
            "http://127.0.0.1:8080/v1",
            "a",
            "*",
            "",
        ),
        *("5s", "1MiB", "1m", "calendar month", "key", "global", "keys", "open", "auto", "\n", "é", "|"),
        *("127.0.0.1:0", "0.0.0.0:9090", "unix:s"),
    ]
)
LEAVES = WORDS | st.integers(-5, 1 << 70) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()
ANY = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(WORDS, inner, max_size=2)
)


def shaped(kind: Kind) -> st.SearchStrategy[Any]:
    """Values of about the right shape: known keys, odd leaves, sometimes something else altogether."""
    if isinstance(kind, Table):
        keys = {name: shaped(entry.kind) for name, entry in kind.fields.items() if name != "include"}
        return ANY_RARELY | st.fixed_dictionaries({}, optional=keys)
    if isinstance(kind, Named):
        return ANY_RARELY | st.dictionaries(WORDS, shaped(kind.each), max_size=3)
    if isinstance(kind, Many):
        return ANY_RARELY | st.lists(shaped(kind.each), max_size=3)
    return LEAVES


ANY_RARELY = st.integers(0, 9).flatmap(lambda n: ANY if n == 0 else st.nothing() | st.just({}))


@settings(max_examples=150, deadline=None)
@given(shaped(ROOT))
def test_any_document_is_settings_or_faults(document: Any) -> None:
    if not isinstance(document, dict):
        document = {"server": document}
    text = "\n".join(f'"{key}" = {toml(value)}' for key, value in document.items() if key.isidentifier())
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "gateway.toml"
        file.write_text(text)
        try:
            told = repr(load(file, {"CANARY": CANARY}))
        except ConfigError as error:
            told = str(error)
            assert all(fault.line >= 1 and fault.column >= 1 and fault.message for fault in error.faults)
            assert len(told.splitlines()) == len(error.faults) + 1
    assert CANARY not in told


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_settings_or_faults(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "gateway.toml"
        file.write_bytes(data)
        try:
            load(file, {})
        except ConfigError as error:
            assert error.faults
