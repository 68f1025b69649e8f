"""Tools by name, in every dialect; what has no known shape is said to be unknown."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.tools import NOTHING, UNKNOWN, Offered, chosen, each, names_of, offered

FUNCTION = {"type": "function", "function": {"name": "a", "parameters": {}}}


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ({}, NOTHING),
        ({"tools": None}, NOTHING),
        ({"tools": []}, NOTHING),
        ({"tools": [FUNCTION]}, Offered(("a",))),
        ({"tools": [FUNCTION], "functions": [{"name": "b"}]}, Offered(("a", "b"))),
        ({"tools": [{"type": "function", "name": "a"}]}, Offered(("a",))),
        ({"tools": [{"type": "custom", "custom": {"name": "a"}}]}, Offered(("a",))),
        (
            {"tools": [{"type": "web_search_20250305", "name": "web"}]},
            Offered(("web", "web_search_20250305")),
        ),
        ({"tools": [{"type": "mcp", "server_label": "x"}]}, Offered(("mcp",))),
        ({"web_search_options": {}}, Offered(("web_search",))),
        ({"mcp_servers": []}, NOTHING),
        ({"mcp_servers": {"a": "b"}}, Offered(("mcp",))),
        ({"search_parameters": {"mode": "on"}}, Offered(("web_search",))),
        ({"enable_search": True}, Offered(("web_search",))),
        ({"enable_search": "true"}, Offered(("web_search",))),
        ({"enable_search": False, "search_parameters": None}, NOTHING),
        ({"data_sources": [{"type": "azure_search", "parameters": {}}]}, Offered(("azure_search",))),
        ({"data_sources": {"type": "azure_search"}}, UNKNOWN),
        ({"tools": [{"name": "a", "input_schema": {}}]}, Offered(("a",))),
        ({"tools": [{"type": "function", "function": {}}]}, Offered((), True)),
        ({"tools": [FUNCTION, 5]}, Offered(("a",), True)),
        ({"tools": "a"}, Offered((), True)),
        ({"prompt": {"id": "p"}}, Offered((), True)),
        ({"prompt": "text"}, NOTHING),
        ({"input": "text", "tools": [{"type": "function", "name": "a"}]}, Offered(("a",))),
    ],
)
def test_every_tool_is_found_by_its_names(document: dict[str, Any], found: Offered) -> None:
    assert offered(document) == found


def test_too_many_and_too_deep_is_unknown() -> None:
    assert offered({"tools": [{"type": "function", "name": f"t{n}"} for n in range(5000)]}).unknown
    assert offered({"tools": [FUNCTION] * 5000}).unknown
    nested: dict[str, Any] = {"type": "namespace", "tools": []}
    for _ in range(20):
        nested = {"type": "namespace", "tools": [nested]}
    assert offered({"tools": [nested]}).unknown


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ({}, NOTHING),
        ({"tool_choice": "required"}, Offered(("required",))),
        ({"tool_choice": {"type": "any"}}, Offered(("any",))),
        ({"tool_choice": FUNCTION}, Offered(("a",))),
        ({"tool_choice": {"type": "tool", "name": "a"}}, Offered(("a",))),
        ({"tool_choice": {"type": "web_search", "name": "a"}}, Offered(("a", "web_search"))),
        ({"function_call": {"name": "a"}}, Offered(("a",))),
        (
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "auto", "tools": [FUNCTION]},
                }
            },
            Offered(("auto", "a")),
        ),
        ({"tool_choice": 5}, Offered((), True)),
        ({"tool_choice": {}}, Offered((), True)),
    ],
)
def test_a_choice_is_a_word_or_names(document: dict[str, Any], found: Offered) -> None:
    assert chosen(document) == found


anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.sampled_from(["a", "function", "mcp", ""])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["type", "name", "Name", "function", "custom", "tools", "id"]), inner
        ),
    ),
    max_leaves=10,
)


@given(
    st.dictionaries(
        st.sampled_from(["tools", "functions", "input", "prompt", "plugins", "mcp_servers"]), anything
    )
)
def test_no_document_is_too_odd(document: dict[str, Any]) -> None:
    found = offered(document)
    assert all(type(name) is str and name for name in found.names)
    assert all(set(names_of(tool).names) <= set(found.names) or found.unknown for _, tool in each(document))


@given(anything)
def test_a_tool_of_any_shape_has_a_name_or_is_unknown(tool: Any) -> None:
    found = offered({"tools": [tool]})
    assert found.names or found.unknown
