"""Changes to the body of a call before it is forwarded: its bytes and its document, kept in step."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from gateway.core.call import Call
from gateway.core.codec import dumps
from gateway.core.errors import CallerError
from gateway.core.splice import append, begins, elements, members, remove, replace, spans

# Names of members in the usual requests, all in small letters: a document with no others has none
# that only looks like one of them. For speed alone.
_USUAL = frozenset(
    (
        "model", "messages", "stream", "stream_options", "temperature", "top_p", "n", "max_tokens", "stop",
        "max_completion_tokens", "max_output_tokens", "tools", "tool_choice", "functions", "function_call",
        "parallel_tool_calls", "response_format", "text", "seed", "user", "metadata", "store", "logprobs",
        "top_logprobs", "logit_bias", "presence_penalty", "frequency_penalty", "service_tier", "reasoning",
        "reasoning_effort", "modalities", "audio", "prediction", "input", "instructions", "include", "prompt",
        "previous_response_id", "truncation", "system", "thinking", "top_k", "stop_sequences", "suffix",
        "echo", "best_of", "dimensions", "encoding_format", "web_search_options", "mcp_servers", "plugins",
        "safety_identifier", "verbosity", "output_format", "output_config", "background", "conversation",
    )
)  # fmt: skip
# A letter or a line of a member's name that is written as an escape.
_ESCAPED = re.compile(rb"\\u00[4-7]")


class Draft:
    """A call under change. Only members of its document's outermost object are changed."""

    def __init__(self, call: Call) -> None:
        assert call.document is not None, "only a JSON object can be changed"
        self._call = call
        self.document = call.document

    def put(self, name: str, value: Any) -> None:
        """Set a member, whether it is there or not."""
        call, data = self._call, dumps(value)
        change = replace if name in self.document else append
        call.body = change(call.body, name, data)
        self.document[name] = value

    def drop(self, name: str) -> None:
        """Take a member away."""
        self._call.body = remove(self._call.body, name)
        del self.document[name]

    def thin(self, name: str, keep: Callable[[Any], bool]) -> None:
        """Keep only those elements of a member that is an array; one that is left empty goes too."""
        values = self.document[name]
        left = [value for value in values if keep(value)]
        if not left:
            self.drop(name)
            return
        body = self._call.body
        start, end = spans(body, name)[-1]
        pieces = [body[at:to] for at, to in elements(body, start)]
        kept = [piece for piece, value in zip(pieces, values, strict=True) if keep(value)]
        self._call.body = body[:start] + b"[" + b",".join(kept) + b"]" + body[end:]
        self.document[name] = left


def unambiguous(call: Call, names: Iterable[str], deep: Iterable[str] = ()) -> None:
    """Raises `CallerError` (400) where one of these members could be read in two ways by two servers.

    Given twice, or also in other letters (some servers fold them). Of the members in `deep` the same holds
    for every object inside them. `names` are in small letters.
    """
    document, body = call.document, call.body
    if document is None:
        return
    watched = frozenset(names)
    if not document.keys() <= _USUAL:
        for name in document:
            if name not in watched and name.casefold() in watched:
                raise _twice(f"'{name.casefold()}' is also given as {name!r}.", name.casefold())
    there = [name for name in watched if name in document]
    if not there:
        return
    doubtful = any([body.count(b'"%b"' % name.encode()) > 1 for name in there])
    if doubtful or _ESCAPED.search(body) is not None:
        given = [_plain(key) for key, _, _ in members(body)]
        for name in there:
            if given.count(name) > 1:
                raise _twice(f"'{name}' is given twice.", name)
    for name in deep:
        if name in document and type(document[name]) in (list, dict):
            _once(body, name)


def _plain(key: bytes) -> str:
    return str(json.loads(key)) if b"\\" in key else key[1:-1].decode()


def _twice(message: str, name: str) -> CallerError:
    return CallerError(f"{message} A policy looks at it, so there must be one.", param=name)


def _once(body: bytes, name: str) -> None:
    """Every object inside a member has each name once. The standard parser tells, at C speed."""
    try:
        _STRICT.raw_decode(body[begins(body, name)[-1] :].decode())
    except KeyError as error:
        raise _twice(f"Inside '{name}', {error.args[0][:64]!r} is given twice.", name) from None
    except (ValueError, RecursionError):
        raise CallerError(f"'{name}' is nested too deeply or holds a number that is too long.") from None


def _distinct(pairs: list[tuple[str, Any]]) -> None:
    if len(dict(pairs)) < len(pairs):
        names = [key for key, _ in pairs]
        raise KeyError(next(name for name in names if names.count(name) > 1))


_STRICT = json.JSONDecoder(object_pairs_hook=_distinct)
