"""When a policy holds: each attribute, what is absent, and what can't be told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given as cases
from hypothesis import strategies as st

from gateway.core.policy import Globs, Levels, Range, When
from gateway.core.principal import KeyEntry
from gateway.stages.policy.predicates import Fixed, bind, dynamic, level_of
from gateway.stages.policy.seen import GENERATING, Seen
from tests.stages import given
from tests.stages.policed import NOON, Policed, function, when

CHAT = {"messages": [{"role": "user", "content": "Hello"}]}
DENIED = "policy_denied"


@pytest.mark.parametrize(
    ("condition", "how", "held"),
    [
        ('tenant = "ac*"', {"tenant": "acme"}, True),
        ('tenant = "ac*"', {"tenant": "other"}, False),
        ('tenant = ["x", "acme"]', {"tenant": "acme"}, True),
        ('tenant = "*"', {}, False),
        ('tenant = "!acme"', {}, True),
        ('tenant = "!acme"', {"tenant": "acme"}, False),
        ('tenant = ["a*", "!acme"]', {"tenant": "apex"}, True),
        ('tenant = ["a*", "!acme"]', {"tenant": "acme"}, False),
        ('team = "search", user = "bot"', {"team": "search", "user": "bot"}, True),
        ('team = "search", user = "bot"', {"team": "search", "user": "ann"}, False),
        ('key = "test"', {}, True),
        ('key = "key_1"', {}, True),
        ('key = "!test"', {}, False),
        ('key = "!key_1"', {}, False),
        ('roles = "auto*"', {"roles": ("caller", "automation")}, True),
        ('roles = ["*", "!caller"]', {"roles": ("caller",)}, False),
        ('endpoint = "chat/*"', {}, True),
        ('endpoint = "!chat/*"', {}, False),
        ('endpoint = "embeddings"', {}, False),
        ('model = "m"', {}, True),
        ('model = "!gpt-*"', {}, True),
        ('backend = "up"', {}, True),
        ('backend = "far"', {}, False),
        ('session = "night-*"', {"headers": [(b"x-penstock-session", b"night-1")]}, True),
        ('session = "!night-*"', {}, True),
        ('tags = "batch"', {"tags": "other,batch"}, True),
        ('tags = "batch"', {}, False),
        ('not = { tags = "approved" }', {}, True),
        ('not = { tags = "approved" }', {"tags": "approved"}, False),
        ('tags = "of-the-key"', {"key_tags": ("of-the-key",)}, True),
        ('client = "192.0.2.0/24"', {}, True),
        ('client = "192.0.2.0/24"', {"client": "::ffff:192.0.2.9"}, True),
        ('client = ["10.0.0.0/8", "2001:db8::/32"]', {"client": "2001:db8::1"}, True),
        ('client = "!10.0.0.0/8"', {"client": "10.1.2.3"}, False),
        ('client = "!10.0.0.0/8"', {"client": ""}, True),
        ('client = "10.0.0.0/8"', {"client": ""}, False),
        ('header = { x-environment = "prod*" }', {"headers": [(b"x-environment", b"production")]}, True),
        ('header = { x-environment = "prod*" }', {}, False),
        ('header = { x-environment = "!prod*" }', {}, True),
        ('any = [ { tenant = "a" }, { team = "b" } ]', {"team": "b"}, True),
        ('any = [ { tenant = "a" }, { team = "b" } ]', {"team": "c"}, False),
        ('not = [ { tenant = "a" }, { team = "b" } ]', {"team": "b"}, False),
    ],
)  # fmt: skip
def test_an_attribute_of_the_caller_or_the_call_is_compared(
    condition: str, how: dict[str, Any], held: bool
) -> None:
    key_tags = how.pop("key_tags", None)
    call = when(condition).call(CHAT, **how)
    if key_tags:
        call.tags = key_tags
    assert when(condition).judge(call) == (DENIED if held else "")


@pytest.mark.parametrize(
    ("condition", "document", "held"),
    [
        ("stream = true", {"stream": True}, True),
        ("stream = true", {}, False),
        ("stream = false", {}, True),
        ("stream = true", {"stream": "true"}, True),  # some servers take it for true
        ("images = true", {"messages": [{"content": [{"type": "image_url", "image_url": {}}]}]}, True),
        ("images = true", {"messages": [{"content": [{"type": "text", "text": "x"}]}]}, False),
        ("images = true", {"messages": [{"content": [{"type": "document", "source": {"type": "content",
                           "content": [{"type": "image"}]}}]}]}, True),
        ("images = true", {"prompt": {"id": "p", "variables": {"x": {"type": "input_image"}}}}, True),
        ("images = true", {"messages": [{"content": [{"type": ["image"]}, {"type": {}}]}]}, False),
        ("images = true", {"prompt": {"id": "p"}}, True),  # it may have some of its own
        ("images = true", {"prompt": "text"}, False),
        ("temperature = { above = 0.5 }", {"temperature": 0.6}, True),
        ("temperature = { above = 0.5 }", {"temperature": 0.5}, False),
        ("temperature = { above = 0.5 }", {}, True),  # then the provider's own default holds
        ("temperature = { above = 0.5 }", {"temperature": "0.1"}, True),
        ("temperature = { below = 0.5 }", {"temperature": 0.1}, True),
        ("max_tokens = { above = 100 }", {"max_tokens": 101}, True),
        ("max_tokens = { above = 100 }", {"max_tokens": 5, "max_completion_tokens": 101}, True),
        ("max_tokens = { above = 100 }", {"max_completion_tokens": 100}, False),
        ("max_tokens = { above = 100 }", {}, True),
        ("max_tokens = { above = 100 }", {"max_tokens": -1}, True),  # to some servers: no bound
        ("max_tokens = { above = 100 }", {"max_output_tokens": 5}, True),  # means nothing to this endpoint
        ("tokens = { above = 1000 }", {"messages": [{"role": "user", "content": "x" * 8000}]}, True),
        ("tokens = { above = 1000 }", {}, False),
        ("cost = { above = 0.5 }", {"model": "priced", "max_tokens": 6000}, True),
        ("cost = { above = 0.5 }", {"model": "priced", "max_tokens": 4000}, False),
        ("cost = { above = 0.5 }", {"model": "priced", "max_tokens": 3000, "n": 2}, True),
        ("cost = { above = 0.5 }", {"model": "priced", "max_tokens": 100, "n": 400}, True),
        ("cost = { above = 0.5 }", {"model": "priced", "max_tokens": 3000, "n": 2.0}, True),
        ("cost = { above = 0.5 }", {"model": "priced", "max_tokens": 3000, "n": "2"}, True),
        ("cost = { above = 0.5 }", {"model": "priced", "max_tokens": 3000, "best_of": 2}, True),
        ("cost = { above = 0.5 }", {"model": "nobody-priced-this"}, True),  # unknown is not free
        ('tool_choice = "required"', {"tools": [function("a")], "tool_choice": "required"}, True),
        ('tool_choice = "a"', {"tool_choice": {"type": "function", "function": {"name": "a"}}}, True),
        ('tool_choice = "a"', {"function_call": {"name": "a"}}, True),
        ('tool_choice = "a"', {"tool_choice": "auto"}, False),
    ],
)  # fmt: skip
def test_an_attribute_of_the_body_is_compared(condition: str, document: dict[str, Any], held: bool) -> None:
    assert when(condition).verdict({**CHAT, **document}) == (DENIED if held else "")


@pytest.mark.parametrize(
    "offer",
    [
        {"tools": [function("search"), function("shell_run")]},
        {"functions": [{"name": "shell_run"}]},
        {"tools": [{"type": "custom", "custom": {"name": "shell_run"}}]},
        {"tools": [{"type": "function", "name": "shell_run"}]},  # the Responses form
        {"tools": [{"type": "shell_20260101"}]},  # runs at the provider
        {"tools": [{"type": "function", "name": "search", "function": {"name": "shell_run"}}]},
        {"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "shell_run"}]}]},
        {"tools": [{"type": "function", "function": {"Name": "shell_run"}}]},  # some servers fold the case
        {"tools": [{"type": "function", "function": {"name": "search", "Name": "shell_run"}}]},
        {"tools": {"type": "function", "function": {"name": "shell_run"}}},
        {"tools": ["shell_run"]},
        {"tools": [{"type": "function"}]},
        {"tools": [{"type": "function", "function": {"name": ""}}]},
        {"prompt": {"id": "pmpt_1"}},  # kept at the provider, with tools of its own
        {"input": [{"type": "additional", "tools": [{"type": "function", "name": "shell_run"}]}]},
    ],
)
def test_a_tool_can_not_hide_from_a_denial(offer: dict[str, Any]) -> None:
    policed = when('tools = "shell*"')
    assert policed.verdict({**CHAT, **offer}) == DENIED
    assert policed.verdict(offer, "/responses") == DENIED


@pytest.mark.parametrize(
    ("offer", "name"),
    [({"web_search_options": {}}, "web_search"), ({"mcp_servers": [{"url": "x"}]}, "mcp"),
     ({"plugins": [{"id": "web"}]}, "web"), ({"tools": [{"type": "code_interpreter"}]}, "code_interpreter")],
)  # fmt: skip
def test_what_runs_at_the_provider_is_a_tool_by_its_type(offer: dict[str, Any], name: str) -> None:
    assert when(f'tools = "{name}"').verdict({**CHAT, **offer}) == DENIED
    assert when('tools = "another"').verdict({**CHAT, **offer}) == ""


def test_a_call_without_tools_passes_a_rule_about_tools() -> None:
    policed = when('tools = "*"')
    for offer in ({}, {"tools": []}, {"tools": None}, {"functions": []}):
        assert policed.verdict({**CHAT, **offer}) == ""


@pytest.mark.parametrize(
    "condition",
    ['tools = "*"', 'tool_choice = "required"', "stream = true", "images = true", 'model = "gpt-5"',
     "temperature = { above = 1 }", "max_tokens = { above = 1 }", "cost = { above = 1 }"],
)  # fmt: skip
def test_a_body_that_nobody_here_can_read_meets_every_denial(condition: str) -> None:
    policed = when(condition)
    assert (
        policed.verdict({"input_file_id": "f", "endpoint": "/v1/chat/completions", "model": ""}, "/batches")
        == DENIED
    )
    assert policed.verdict(None, "/threads/1/runs", body=b"\x00\x01", endpoint="other") == DENIED
    assert policed.verdict(None, "/threads/1/runs", endpoint="other", method="GET") == ""


def test_an_allowance_needs_certainty() -> None:
    policy = '[[policies]]\nname = "cheap"\nwhen = { max_tokens = { below = 100 } }\nallow = true\n'
    policed = Policed('[access]\ndefault = "deny"\n' + policy)
    assert policed.verdict({**CHAT, "max_tokens": 50}) == ""
    assert policed.verdict({**CHAT, "max_tokens": 500}) == DENIED
    assert policed.verdict(CHAT) == DENIED
    assert policed.verdict({"input_file_id": "f"}, "/batches") == DENIED


@pytest.mark.parametrize(
    ("time", "held"),
    [
        ('{ days = "mon" }', True),
        ('{ days = ["tue-sun"] }', False),
        ('{ days = "fri-mon" }', True),
        ('{ hours = "12:00-12:01" }', True),
        ('{ hours = "11:00-12:00" }', False),
        ('{ hours = "13:00-14:00", zone = "Europe/Berlin" }', True),
        ('{ hours = ["00:00-01:00", "12:00-24:00"] }', True),
        ('{ hours = "22:00-13:00", days = "sun" }', True),  # began on Sunday
        ('{ hours = "22:00-13:00", days = "mon" }', False),
    ],
)
def test_time_is_told_by_the_clock_of_a_zone(time: str, held: bool) -> None:
    policed = when(f"time = {time}")
    assert policed.verdict(CHAT) == (DENIED if held else "")
    assert policed.verdict(CHAT, at=NOON + 86_400 * 7) == (DENIED if held else "")


def test_data_is_as_sensitive_as_its_highest_tag_and_an_unknown_level_is_the_highest() -> None:
    policed = when('classification = { above = "internal" }')
    assert policed.verdict(CHAT) == ""
    assert policed.verdict(CHAT, tags="class:internal") == ""
    assert policed.verdict(CHAT, tags="class:confidential,class:public") == DENIED
    assert policed.verdict(CHAT, tags="class:secret") == DENIED
    assert when('classification = "public"').verdict(CHAT) == DENIED
    assert when('classification = { below = "internal" }').verdict(CHAT, tags="class:internal") == ""


def test_levels_are_those_the_operator_names() -> None:
    head = '[access]\nclassifications = ["low", "high"]\n'
    policed = Policed(head + '[[policies]]\nname = "one"\nwhen = { classification = "high" }\ndeny = "no"\n')
    assert policed.verdict(CHAT, tags="class:high") == DENIED
    assert policed.verdict(CHAT, tags="class:low") == ""


def test_a_caller_that_changes_its_tags_is_judged_anew() -> None:
    policed = when('tags = "batch"')
    principal = policed.call(CHAT).principal
    for tags, held in (("", ""), ("batch", DENIED), ("", ""), ("batch", DENIED)):
        call = policed.call(CHAT, tags=tags)
        call.principal = principal
        assert policed.judge(call) == held


def test_what_is_remembered_is_bounded() -> None:
    policed = when('tags = "batch"')
    for number in range(5000):
        policed.judge(policed.call({**CHAT, "model": f"m{number}"}))
    assert 0 < len(policed.stage._known) <= 4096


def test_callers_who_are_alike_in_what_policies_look_at_share_what_is_remembered() -> None:
    policed = when('tenant = "acme"')
    for number in range(9):
        how = {"id": f"key_{number}", "name": f"n{number}", "user": f"u{number}", "tags": f"t{number}"}
        assert policed.verdict(CHAT, tenant="acme" if number % 2 else "other", **how) == (
            DENIED if number % 2 else ""
        )
    assert len(policed.stage._known) == 2
    policed = when('key = "n1"')
    assert [policed.verdict(CHAT, name=f"n{number}") for number in range(3)] == ["", DENIED, ""]


@pytest.mark.parametrize(
    "path",
    ["/chat/completions/", "/chat/%63ompletions", "/Chat/Completions", "/chat%2Fcompletions",
     "/deployments/d/chat/completions", "/openai/deployments/d/chat/completions",
     "/v1/chat/completions", "/openai/v1/chat/completions"],
)  # fmt: skip
def test_an_endpoint_written_otherwise_may_be_that_endpoint(path: str) -> None:
    body = {"tools": [function("a")]}
    assert when('endpoint = "chat/*"').verdict(body, path, endpoint="other") == DENIED
    assert when('endpoint = "!chat/completions"').verdict(body, path, endpoint="other") == DENIED
    assert when('endpoint = "embeddings"').verdict(body, path, endpoint="other") == ""
    allowing = Policed(
        '[access]\ndefault = "deny"\n[[policies]]\nname = "a"\nwhen = { endpoint = "chat/completions" }\n'
        "allow = true\n"
    )
    assert allowing.verdict(body, path, endpoint="other") == DENIED
    assert allowing.verdict(body) == ""


@pytest.mark.parametrize("model", ["Dear-1", "DEAR-1", " dear-1"])
def test_a_model_written_otherwise_may_be_that_model(model: str) -> None:
    assert when('model = "dear*"').verdict({**CHAT, "model": model}) == DENIED
    assert when('model = "!dear*"').verdict({**CHAT, "model": model}) == DENIED
    assert when('model = "other"').verdict({**CHAT, "model": model}) == ""
    allowing = (
        '[access]\ndefault = "deny"\n[[policies]]\nname = "a"\nwhen = { model = "dear*" }\nallow = true\n'
    )
    assert Policed(allowing).verdict({**CHAT, "model": model}) == DENIED
    written = model.strip()
    assert Policed(allowing.replace("dear*", written)).verdict({**CHAT, "model": written}) == ""


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "image/png"])
def test_a_body_that_is_neither_document_nor_form_may_ask_for_any_model(kind: str) -> None:
    policed, headers = when('model = "dear"'), [(b"content-type", kind.encode())]
    assert policed.verdict(None, "/audio/transcriptions", body=b"model=dear", headers=headers) == DENIED
    assert policed.verdict(None, "/files", body=b"model=dear", headers=headers) == ""


def test_a_call_of_a_path_with_an_id_is_compared_by_path_and_endpoint() -> None:
    policed = when('endpoint = "threads/*/runs"')
    assert policed.verdict({"x": 1}, "/threads/t_1/runs", endpoint="other") == DENIED
    assert policed.verdict({"x": 1}, "/threads/t_1", endpoint="other") == ""
    assert when('endpoint = "other"').verdict({"x": 1}, "/threads/t_1", endpoint="other") == DENIED


# -- binding decides early what it can, and never differently

tests_of_steady = st.sampled_from(
    [("tenant", Globs(("acme",))), ("tenant", Globs((), ("acme",))), ("model", Globs(("gpt-*",))),
     ("tags", Globs(("t1",))), ("classification", Levels((), "public")), ("roles", Globs(("caller",)))]
)  # fmt: skip
tests_of_calls = st.sampled_from(
    [("stream", True), ("stream", False), ("tools", Globs(("a*",))), ("temperature", Range(0.5, None)),
     ("max_tokens", Range(None, 100))]
)  # fmt: skip
conditions = st.recursive(
    st.builds(When, st.lists(st.one_of(tests_of_steady, tests_of_calls), max_size=3).map(tuple)),
    lambda inner: st.builds(
        When,
        st.lists(st.one_of(tests_of_steady, tests_of_calls), max_size=2).map(tuple),
        st.lists(inner, max_size=2).map(tuple),
        st.lists(inner, max_size=2).map(tuple),
    ),
    max_leaves=6,
)
documents = st.fixed_dictionaries(
    {"model": st.sampled_from(["gpt-4o", "m"])},
    optional={
        "stream": st.sampled_from([True, False, "yes"]),
        "temperature": st.sampled_from([0.1, 0.9, "1"]),
        "max_tokens": st.sampled_from([50, 500]),
        "tools": st.sampled_from([[], [function("ab")], {}]),
    },
)


def naive(condition: When, fixed: Fixed, seen: Seen) -> bool | None:
    """The meaning of a condition, without any preparation."""
    steady = {"tenant", "model", "tags", "classification", "roles"}
    found = [
        fixed.holds(name, test) if name in steady else dynamic(name, test)(seen)
        for name, test in condition.tests
    ]
    if condition.either:
        inner = [naive(each, fixed, seen) for each in condition.either]
        found.append(True if True in inner else None if None in inner else False)
    for each in condition.never:
        inner_found = naive(each, fixed, seen)
        found.append(None if inner_found is None else not inner_found)
    return False if False in found else None if None in found else True


@cases(
    conditions, documents, st.sampled_from(["acme", ""]), st.lists(st.sampled_from(["t1", "class:internal"]))
)
def test_binding_early_means_the_same_as_asking_late(
    condition: When, document: dict[str, Any], tenant: str, tags: list[str]
) -> None:
    call = given.call(document=document)
    key = KeyEntry("k", "k", b"", tenant=tenant)
    levels = ["public", "internal"]
    fixed = Fixed(key, call.model, ("chat/completions",), tuple(tags), GENERATING, levels)
    seen = Seen(call, None)
    bound = bind(condition, fixed)
    assert (bound(seen) if callable(bound) else bound) is naive(condition, fixed, seen)


@cases(st.lists(st.sampled_from(["class:a", "class:b", "class:x", "a", "class:"])))
def test_one_more_tag_never_lowers_the_level(tags: list[str]) -> None:
    levels = ["a", "b", "c"]
    for at in range(len(tags)):
        assert level_of(tags[:at], levels) <= level_of(tags[: at + 1], levels)


def test_a_condition_on_a_member_refuses_to_read_it_in_two_ways() -> None:
    policed = when('tools = "shell*"')
    for body in (
        b'{"model":"m","tools":[],"tools":[{"type":"function","function":{"name":"shell"}}]}',
        b'{"model":"m","tools":[{"type":"function","function":{"name":"shell"}}],"tools":[]}',
        b'{"model":"m","tools":[{"type":"function","function":{"name":"shell"}}],"t\\u006fols":[]}',
        b'{"model":"m","Tools":[{"type":"function","function":{"name":"shell"}}]}',
        '{"model":"m","tool\u017f":[{"type":"function","function":{"name":"shell"}}]}'.encode(),
        b'{"model":"m","tools":[{"type":"function","function":{"name":"shell","name":"ok"}}]}',
    ):
        call = policed.call(json.loads(body))
        call.body = body
        assert policed.judge(call) in ("caller_bad_request", DENIED)
    call = policed.call(json.loads(b'{"model":"m","top_p":1,"top_p":1}'))
    call.body = b'{"model":"m","top_p":1,"top_p":1,"x":"\\u0061","messages":[{"tools":1,"Tools":2}]}'
    assert policed.judge(call) == ""
