"""What policies do: deny, allow, set, require, in shadow, and towards some backends only."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given as cases
from hypothesis import strategies as st

from gateway.core.codec import loads
from gateway.settings.faults import ConfigError
from tests.stages.policed import Policed, function, strict

CHAT = {"messages": [{"role": "user", "content": "Hello"}]}
DENIED, REQUIRED = "policy_denied", "policy_requirement"
EVERYTHING = '[access]\ndefault = "deny"\n'


def doing(effect: str, condition: str = "") -> Policed:
    when = f"when = {{ {condition} }}\n" if condition else ""
    return Policed(f'[[policies]]\nname = "one"\n{when}{effect}\n')


SHELL, OK = function("shell"), function("ok")


def forwarded(policed: Policed, document: dict[str, Any], path: str = "/chat/completions", **how: Any) -> Any:
    """The body after the policies; the document must have been kept in step."""
    call = policed.call({**({} if path == "/responses" else CHAT), **document}, path, **how)
    assert policed.judge(call) == ""
    assert loads(call.body) == call.document
    return call.document


# -- deny and allow


def test_a_denial_names_its_policy_and_leaves_its_reason() -> None:
    policed = doing('deny = "Not today."')
    call = policed.call(CHAT)
    assert policed.judge(call) == DENIED
    assert call.reasons["policy"] == "one" and policed.counted("one", "deny") == 1
    message = policed.message(CHAT)
    assert "`one`" in message and "Not today." in message


@pytest.mark.parametrize("order", ["allow first", "deny first"])
@pytest.mark.parametrize("default", ["allow", "deny"])
def test_a_denial_wins_over_an_allowance_in_any_order(order: str, default: str) -> None:
    both = ['[[policies]]\nname = "yes"\nallow = true\n', '[[policies]]\nname = "no"\ndeny = "no"\n']
    if order == "deny first":
        both.reverse()
    assert Policed(f'[access]\ndefault = "{default}"\n' + "".join(both)).verdict(CHAT) == DENIED


def test_where_the_default_is_deny_a_call_needs_an_allowance() -> None:
    policed = Policed(EVERYTHING + '[[policies]]\nname = "a"\nwhen = { tenant = "acme" }\nallow = true\n')
    assert policed.verdict(CHAT, tenant="acme") == ""
    call = policed.call(CHAT, tenant="other")
    assert policed.judge(call) == DENIED and call.reasons["policy"] == "default"
    assert policed.counted("default", "deny") == 1


def test_an_allowance_in_shadow_lets_nothing_pass() -> None:
    policed = Policed(EVERYTHING + '[[policies]]\nname = "a"\nallow = true\nmode = "shadow"\n')
    assert policed.verdict(CHAT) == DENIED


def test_models_can_be_allowed_per_tenant_by_one_denial() -> None:
    policed = doing('deny = "no"', 'tenant = "acme", model = ["!gpt-4o*", "!o3"]')
    assert policed.verdict({**CHAT, "model": "gpt-4o-mini"}, tenant="acme") == ""
    assert policed.verdict({**CHAT, "model": "o3"}, tenant="acme") == ""
    assert policed.verdict({**CHAT, "model": "gpt-5"}, tenant="acme") == DENIED
    assert policed.verdict({**CHAT, "model": "gpt-5"}, tenant="other") == ""
    assert policed.verdict({"prompt": "x", "model": ""}, "/images/generations", tenant="acme") == DENIED
    assert policed.verdict(None, "/responses/r_1", endpoint="responses", method="GET", tenant="acme") == ""
    assert policed.verdict(None, "/files", body=b"--x", tenant="acme") == ""


def test_a_stage_without_policies_is_not_needed() -> None:
    assert not Policed("").stage.needed
    assert Policed(EVERYTHING).stage.needed and doing("allow = true").stage.needed


# -- towards backends


def test_a_denied_backend_is_left_out_of_the_plan_and_the_others_stay() -> None:
    policed = doing('deny = "no"', 'backend = "far", classification = { above = "internal" }')
    call = policed.call({**CHAT, "model": "both"}, tags="class:restricted")
    assert policed.judge(call) == ""
    assert call.plan is not None and [target.backend for target in call.plan.targets] == ["up"]
    assert call.plan.reason == "policy" and policed.counted("one", "reroute") == 1
    call = policed.call({**CHAT, "model": "both"})
    assert policed.judge(call) == ""
    assert call.plan is not None and [target.backend for target in call.plan.targets] == ["far", "up"]


def test_a_denied_fallback_is_never_tried() -> None:
    policed = doing('deny = "no"', 'backend = "up"')
    call = policed.call({**CHAT, "model": "both"})
    assert policed.judge(call) == ""
    assert call.plan is not None and [target.backend for target in call.plan.targets] == ["far"]


def test_a_call_that_has_no_backend_left_is_refused() -> None:
    assert doing('deny = "no"', 'backend = "*"').verdict({**CHAT, "model": "both"}) == DENIED


def test_another_target_of_the_model_takes_the_place_of_a_denied_one() -> None:
    policed = doing('deny = "no"', 'backend = "far"')
    call = policed.call({**CHAT, "model": "drawn"})
    assert policed.judge(call) == ""
    assert call.plan is not None and [target.backend for target in call.plan.targets] == ["up"]


def test_an_allowance_may_be_for_one_backend() -> None:
    policed = Policed(EVERYTHING + '[[policies]]\nname = "a"\nwhen = { backend = "up" }\nallow = true\n')
    call = policed.call({**CHAT, "model": "both"})
    assert policed.judge(call) == ""
    assert call.plan is not None and [target.backend for target in call.plan.targets] == ["up"]


def test_a_setting_for_a_fallback_holds_for_the_call() -> None:
    policed = doing("set = { seed = 7 }", 'backend = "up"')
    assert forwarded(policed, {"model": "both"})["seed"] == 7


# -- set


def test_a_ceiling_lowers_what_is_above_and_leaves_what_is_below() -> None:
    policed = doing("set = { temperature = { at_most = 0.2 } }")
    for given, expected in (
        (1.5, 0.2),
        (0.1, 0.1),
        (0, 0),
        ("0.9", 0.2),
        (None, 0.2),
        (True, 0.2),
        (-1, 0.2),
    ):
        assert forwarded(policed, {"temperature": given})["temperature"] == expected
    assert forwarded(policed, {})["temperature"] == 0.2


def test_an_exact_value_stands_whatever_the_caller_says() -> None:
    policed = doing('set = { seed = 7, temperature = 0, store = false, user = "svc", service_tier = "flex" }')
    found = forwarded(policed, {"seed": 1, "temperature": 2, "user": "me"})
    assert (found["seed"], found["temperature"], found["store"]) == (7, 0, False)
    assert (found["user"], found["service_tier"]) == ("svc", "flex")


@pytest.mark.parametrize(
    ("path", "model", "given", "expected"),
    [
        ("/chat/completions", "gpt-4o", {}, {"max_tokens": 100}),
        ("/chat/completions", "o3-mini", {}, {"max_completion_tokens": 100}),
        ("/chat/completions", "azure/gpt-5", {}, {"max_completion_tokens": 100}),
        ("/chat/completions", "gpt-4o", {"max_completion_tokens": 500}, {"max_completion_tokens": 100}),
        ("/chat/completions", "m", {"max_tokens": 50}, {"max_tokens": 50}),
        ("/chat/completions", "m", {"max_tokens": None}, {"max_tokens": 100}),
        ("/chat/completions", "m", {"max_tokens": -1}, {"max_tokens": 100}),
        (
            "/chat/completions",
            "m",
            {"max_tokens": None, "max_completion_tokens": 500},
            {"max_tokens": None, "max_completion_tokens": 100},
        ),
        (
            "/chat/completions",
            "m",
            {"max_tokens": 500, "max_completion_tokens": 9},
            {"max_tokens": 100, "max_completion_tokens": 9},
        ),
        ("/chat/completions", "m", {"max_output_tokens": 9}, {"max_output_tokens": 9, "max_tokens": 100}),
        ("/responses", "gpt-5", {}, {"max_output_tokens": 100}),
        ("/completions", "m", {}, {"max_tokens": 100}),
        ("/messages", "m", {"max_tokens": 4096}, {"max_tokens": 100}),
        ("/embeddings", "m", {}, {}),
    ],
)
def test_the_bound_of_an_answer_is_set_by_the_name_the_endpoint_knows(
    path: str, model: str, given: dict[str, Any], expected: dict[str, Any]
) -> None:
    policed = doing("set = { max_tokens = { at_most = 100 } }")
    found = forwarded(policed, {"model": model, **given}, path)
    assert {name: value for name, value in found.items() if "token" in name} == expected


def test_ceilings_come_after_exact_values_whatever_their_order() -> None:
    low = '[[policies]]\nname = "low"\nset = { temperature = { at_most = 0.2 } }\n'
    exact = '[[policies]]\nname = "exact"\nset = { temperature = 0.7 }\n'
    for text in (low + exact, exact + low):
        assert forwarded(Policed(text), {"temperature": 1})["temperature"] == 0.2
    for text in (low, low.replace("0.2", "0.5").replace('"low"', '"other"') + low):
        assert forwarded(Policed(text), {"temperature": 1})["temperature"] == 0.2


def test_every_other_byte_of_the_body_stays() -> None:
    policed = doing('set = { temperature = { at_most = 0.2 }, tools = { remove = "shell*" } }')
    body = (
        b'{ "model":"m",\n "big" : 123456789012345678901234567890, "f": 0.10, "temperature":1.50,'
        b' "tools":[ {"type":"function","function":{"name":"shell","x":1}} , {"type":"function",'
        b'"function":{"name":"ok","x":0.10}}], "z":"\\u00e9"}'
    )
    call = policed.call(json.loads(body))
    call.body = body
    assert policed.judge(call) == ""
    assert call.body == (
        b'{ "model":"m",\n "big" : 123456789012345678901234567890, "f": 0.10, "temperature":0.2,'
        b' "tools":[{"type":"function","function":{"name":"ok","x":0.10}}], "z":"\\u00e9"}'
    )


def test_a_call_that_is_as_it_is_to_be_keeps_its_bytes_and_has_no_reason() -> None:
    policed = doing("set = { temperature = { at_most = 0.2 }, seed = 7 }")
    call = policed.call({**CHAT, "temperature": 0.2, "seed": 7})
    body = call.body
    assert policed.judge(call) == "" and call.body is body and "policy" not in call.reasons
    call = policed.call({**CHAT, "temperature": 0.3, "seed": 7})
    assert (
        policed.judge(call) == "" and call.reasons["policy"] == "one" and policed.counted("one", "set") == 1
    )


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ({"tools": [SHELL, OK], "tool_choice": "auto"}, {"tools": [OK], "tool_choice": "auto"}),
        ({"tools": [SHELL], "tool_choice": "auto", "parallel_tool_calls": True}, {}),
        ({"tools": [SHELL, OK], "tool_choice": function("shell")}, {"tools": [OK]}),
        ({"functions": [{"name": "shell"}, {"name": "ok"}]}, {"functions": [{"name": "ok"}]}),
        ({"functions": [{"name": "ok"}], "function_call": {"name": "ok"}}, None),
        ({"functions": [{"name": "shell"}], "function_call": "auto"}, {}),
        ({"tools": [{"type": "shell"}, OK]}, {"tools": [OK]}),
        ({"tools": [{"type": "function"}, OK]}, {"tools": [OK]}),
        ({"web_search_options": {}, "tools": [OK]}, {"tools": [OK]}),
        ({"mcp_servers": [{"url": "x"}]}, {}),
        ({"search_parameters": {}, "enable_search": True}, {}),
        ({"data_sources": [{"type": "web_search"}, {"type": "x"}]}, {"data_sources": [{"type": "x"}]}),
    ],
)  # fmt: skip
def test_tools_are_taken_out_with_the_choices_that_named_them(
    given: dict[str, Any], left: dict[str, Any]
) -> None:
    policed = doing('set = { tools = { remove = ["shell*", "web_search", "mcp"] } }')
    found = forwarded(policed, given)
    assert {name: value for name, value in found.items() if name not in ("model", "messages")} == (
        given if left is None else left
    )


@pytest.mark.parametrize(
    "given", [{"tools": {}}, {"prompt": {"id": "p"}}, {"input": [{"tools": [function("shell")]}]}]
)
def test_tools_that_can_not_be_taken_out_are_refused(given: dict[str, Any]) -> None:
    assert doing('set = { tools = { remove = "shell*" } }').verdict({**CHAT, **given}) == REQUIRED


def test_settings_that_only_matter_with_tools_are_added_only_with_tools() -> None:
    policed = doing("set = { parallel_tool_calls = false }")
    assert "parallel_tool_calls" not in forwarded(policed, {})
    assert forwarded(policed, {"tools": [function("a")]})["parallel_tool_calls"] is False


def test_what_can_not_be_set_is_refused_rather_than_sent() -> None:
    policed = doing("set = { temperature = { at_most = 0.2 } }")
    assert policed.verdict({"input_file_id": "f"}, "/batches") == REQUIRED
    assert policed.verdict({"x": 1}, "/threads/1/runs", endpoint="other") == REQUIRED
    form = b'--b\r\nContent-Disposition: form-data; name="temperature"\r\n\r\n0.9\r\n--b--\r\n'
    kind = [(b"content-type", b"multipart/form-data; boundary=b")]
    assert policed.verdict(None, "/audio/transcriptions", body=form, headers=kind) == REQUIRED
    other = form.replace(b"temperature", b"language")
    assert policed.verdict(None, "/audio/transcriptions", body=other, headers=kind) == ""
    assert policed.verdict(None, "/audio/transcriptions", body=b"temperature=2") == REQUIRED
    assert policed.verdict(None, "/files", body=form.replace(b"temperature", b"purpose")) == ""
    assert policed.verdict(None, "/responses/r_1", endpoint="responses", method="GET") == ""


numbers = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.floats(-1, 3), st.sampled_from(["1", [], {}])
)


@cases(st.dictionaries(st.sampled_from(["temperature", "top_p", "max_tokens", "n", "seed", "user"]), numbers),
       st.permutations([0, 1, 2]))  # fmt: skip
def test_whatever_is_sent_the_ceilings_hold(given: dict[str, Any], order: list[int]) -> None:
    texts = ["set = { temperature = { at_most = 0.2 }, n = { at_most = 2 } }",
             "set = { max_tokens = { at_most = 64 }, top_p = 0.5 }",
             "set = { temperature = 0.9, seed = 1 }"]  # fmt: skip
    policed = Policed("".join(f'[[policies]]\nname = "p{at}"\n{texts[at]}\n' for at in order))
    found = forwarded(policed, given)
    assert found["temperature"] <= 0.2 and found["max_tokens"] <= 64
    assert found["top_p"] == 0.5 and found["seed"] == 1 and (found.get("n") or 1) <= 2
    assert all(type(found[name]) in (int, float) for name in ("temperature", "max_tokens", "top_p"))


# -- require

SCHEMA = {"type": "object", "properties": {}, "additionalProperties": False}
FORMAT = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}


@pytest.mark.parametrize(
    ("path", "document", "met"),
    [
        ("/chat/completions", {"response_format": FORMAT}, True),
        ("/chat/completions", {"response_format": {"type": "json_schema"}}, False),
        ("/chat/completions", {"response_format": {**FORMAT, "json_schema": {"schema": {}}}}, False),
        ("/chat/completions", {"response_format": {"type": "json_object"}}, False),
        ("/chat/completions", {"response_format": "json_schema"}, False),
        ("/chat/completions", {}, False),
        ("/responses", {"text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}}}, True),
        ("/responses", {"response_format": FORMAT}, False),
        ("/messages", {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}, True),
        ("/messages", {"output_format": {"type": "json_schema", "schema": SCHEMA}}, True),
        ("/completions", {"response_format": {"type": "json_schema"}}, False),
        ("/embeddings", {}, True),
        ("/batches", {}, False),
    ],
)  # fmt: skip
def test_structured_output_can_be_required(path: str, document: dict[str, Any], met: bool) -> None:
    policed = doing('require = { response_format = "json_schema" }')
    assert policed.verdict(document, path) == ("" if met else REQUIRED)


OPEN = {"type": "object", "properties": {"q": {"type": "string"}}}
NESTED = {
    "type": "object",
    "properties": {"a": {"type": "array", "items": OPEN}},
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("document", "met"),
    [
        ({}, True),
        ({"tools": [strict("a")]}, True),
        ({"tools": [strict("a"), strict("b")], "tool_choice": "auto"}, True),
        ({"tools": [strict("a")], "tool_choice": "required"}, True),
        ({"tools": [strict("a"), strict("b")], "tool_choice": "required"}, False),
        (
            {
                "tools": [strict("a"), strict("b")],
                "tool_choice": {"type": "function", "function": {"name": "a"}},
            },
            True,
        ),
        ({"tools": [function("a", parameters=SCHEMA)]}, False),
        ({"tools": [function("a", strict=True)]}, False),
        ({"tools": [strict("a", OPEN)]}, False),
        ({"tools": [strict("a", NESTED)]}, False),
        ({"tools": [strict("a", {"type": "string"})]}, False),
        ({"tools": [strict("a"), {"type": "web_search"}]}, False),
        ({"tools": [{"type": "mcp", "server_url": "x"}]}, False),
        ({"tools": [{"type": "custom", "custom": {"name": "a"}}]}, False),
        ({"functions": [{"name": "a", "parameters": SCHEMA}]}, False),
        ({"web_search_options": {}}, False),
        ({"tools": [strict("")]}, False),
        ({"tools": {}}, False),
    ],
)
def test_no_unconstrained_tool_execution_is_one_line(document: dict[str, Any], met: bool) -> None:
    policed = doing('require = { tools = "constrained" }')
    assert policed.verdict({**CHAT, **document}) == ("" if met else REQUIRED)


ANY: dict[str, Any] = {"type": "object", "properties": {}}
CLOSED: dict[str, Any] = {**ANY, "additionalProperties": False}


@pytest.mark.parametrize(
    ("inside", "met"),
    [
        ({"type": "string"}, True),
        ({"type": ["string", "null"]}, True),
        ({"enum": ["a", 1]}, True),
        ({"$ref": "#/$defs/one"}, True),
        ({"$ref": "#"}, True),
        ({"anyOf": [{"type": "null"}, CLOSED]}, True),
        ({"type": "array", "items": {"type": "string"}}, True),
        ({"type": "array", "prefixItems": [{"type": "string"}], "items": False}, True),
        ({}, False),
        (True, False),
        ({"description": "anything"}, False),
        (ANY, False),
        ({**CLOSED, "patternProperties": {".*": {}}}, False),
        ({"type": "array"}, False),
        ({"type": "array", "items": {}}, False),
        ({"type": "array", "items": [{"type": "string"}]}, False),
        ({"type": "array", "items": [{"type": "string"}], "additionalItems": False}, True),
        ({"type": "array", "items": [ANY], "additionalItems": False}, False),
        ({"type": "array", "prefixItems": [ANY], "items": False}, False),
        ({"$ref": "https://schemas.example/any"}, False),
        ({"$ref": "#/x-elsewhere"}, False),
        ({"$dynamicRef": "#a"}, False),
        ({"anyOf": [{"type": "null"}, {}]}, False),
    ],
)
def test_a_constrained_schema_is_closed_at_every_depth(inside: Any, met: bool) -> None:
    schema = {**CLOSED, "properties": {"a": inside}, "$defs": {"one": CLOSED}, "x-elsewhere": {}}
    policed = doing('require = { tools = "constrained" }')
    assert policed.verdict({**CHAT, "tools": [strict("f", schema)]}) == ("" if met else REQUIRED)


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "function", "strict": True, "function": {"name": "f", "parameters": CLOSED}},
        {
            "type": "function",
            "strict": True,
            "function": {"name": "f", "strict": False, "parameters": CLOSED},
        },
        {"type": "function", "name": "f", "parameters": ANY, "function": strict("f")["function"]},
        {"type": "function", "parameters": ANY, "function": strict("f")["function"]},
        {"type": "function", "function": {**strict("f")["function"], "input_schema": ANY}},
        {"type": "function", "function": {"name": "f", "strict": True}},
    ],
)
def test_a_function_written_in_two_forms_is_not_constrained(tool: dict[str, Any]) -> None:
    policed = doing('require = { tools = "constrained" }')
    assert policed.verdict({**CHAT, "tools": [tool]}) == REQUIRED
    assert policed.verdict({"tools": [tool]}, "/responses") == REQUIRED


def test_the_same_holds_for_responses_with_their_flat_tools() -> None:
    policed = doing('require = { tools = "constrained" }')
    tool = {"type": "function", **strict("a")["function"]}
    assert policed.verdict({"tools": [tool]}, "/responses") == ""
    assert policed.verdict({"tools": [{**tool, "strict": False}]}, "/responses") == REQUIRED
    assert policed.verdict({"tools": [{"type": "code_interpreter"}]}, "/responses") == REQUIRED


@pytest.mark.parametrize(
    ("effect", "document", "met"),
    [
        ('tools = "none"', {}, True),
        ('tools = "none"', {"tools": [function("a")]}, False),
        ('tools = "none"', {"functions": [{"name": "a"}]}, False),
        ('tools = { only = ["search_*", "!search_web"] }', {"tools": [function("search_docs")]}, True),
        ('tools = { only = ["search_*", "!search_web"] }', {"tools": [function("search_web")]}, False),
        ('tools = { only = "search_*" }', {"tools": [function("search_docs"), function("shell")]}, False),
        ('tools = { only = "search_*" }', {"tools": [{"type": "python", "name": "search_x"}]}, False),
        ('tools = { only = "*", strict = true }', {"tools": [function("a", strict=True)]}, True),
        ('tools = { only = "*", strict = true }', {"tools": [function("a")]}, False),
        ('tools = { strict = true }', {"functions": [{"name": "a"}]}, False),
        ('tool_choice = ["auto", "none"]', {"tools": [function("a")]}, True),
        ('tool_choice = ["auto", "none"]', {"tools": [function("a")], "tool_choice": "required"}, False),
        ('tool_choice = "none"', {"tools": [function("a")]}, False),
        ('tool_choice = "none"', {}, True),
        ("max_tokens = true", {"max_tokens": 5}, True),
        ("max_tokens = true", {"max_completion_tokens": 5}, True),
        ("max_tokens = true", {}, False),
        ("max_tokens = { most = 100 }", {"max_tokens": 101}, False),
        ("max_tokens = { most = 100 }", {"max_tokens": 100}, True),
        ("max_tokens = { most = 100 }", {"max_tokens": -1}, False),
        ("max_tokens = { most = 100 }", {}, False),
        ("stream = false", {"stream": True}, False),
        ("stream = false", {}, True),
        ("stream = true", {}, False),
        ("user = true", {"user": "u"}, True),
        ("user = true", {}, False),
        ("metadata = true", {"metadata": None}, False),
        ("seed = true", {"seed": 0}, True),
    ],
)  # fmt: skip
def test_a_requirement_is_met_or_says_what_is_missing(
    effect: str, document: dict[str, Any], met: bool
) -> None:
    policed = doing(f"require = {{ {effect} }}")
    assert policed.verdict({**CHAT, **document}) == ("" if met else REQUIRED)
    if not met:
        assert "`one` requires" in policed.message({**CHAT, **document})
        assert policed.counted("one", "require") == 2


def test_a_tag_can_be_required_of_every_call() -> None:
    policed = doing('require = { tags = "project:*" }')
    assert policed.verdict(CHAT, tags="project:x") == ""
    assert policed.verdict(CHAT) == REQUIRED and "x-penstock-tags" in policed.message(CHAT)


def test_a_requirement_sees_what_would_be_forwarded() -> None:
    policed = doing('set = { tools = { remove = "shell" } }\nrequire = { tools = { only = "ok" } }')
    assert forwarded(policed, {"tools": [function("ok"), function("shell")]})["tools"] == [function("ok")]
    assert policed.verdict({**CHAT, "tools": [function("x")]}) == REQUIRED


# -- shadow


@pytest.mark.parametrize(
    ("effect", "decision"),
    [('deny = "no"', "shadow_deny"), ("require = { max_tokens = true }", "shadow_require"),
     ("set = { temperature = { at_most = 0.2 } }", "shadow_set")],
)  # fmt: skip
def test_in_shadow_a_policy_counts_and_changes_nothing(effect: str, decision: str) -> None:
    policed = doing(effect + '\nmode = "shadow"')
    call = policed.call(CHAT)
    body = call.body
    assert policed.judge(call) == "" and call.body is body
    assert call.reasons == {"policy_shadow": "one"} and policed.counted("one", decision) == 1


def test_in_shadow_a_policy_refuses_no_ambiguous_body_either() -> None:
    policed = doing('deny = "no"\nmode = "shadow"', 'tools = "*"')
    call = policed.call({**CHAT, "tools": []})
    call.body = b'{"model":"m","tools":[],"tools":[]}'
    assert policed.judge(call) == ""


def test_names_of_policies_are_bounded_in_the_reasons() -> None:
    text = "".join(
        f'[[policies]]\nname = "policy-with-a-long-name-{n}"\ndeny = "x"\nmode = "shadow"\n'
        for n in range(50)
    )
    policed = Policed(text)
    call = policed.call(CHAT)
    assert policed.judge(call) == "" and len(call.reasons["policy_shadow"]) <= 300


# -- faults of the configuration are told


@pytest.mark.parametrize(
    "text", ["allow = false", "", 'deny = "x"\nallow = true', "set = {}", "require = {}"]
)
def test_a_policy_that_says_nothing_clear_is_a_fault(text: str) -> None:
    with pytest.raises(ConfigError):
        doing(text)
