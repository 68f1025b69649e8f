"""A request's body: decoded if it came encoded, parsed once, its model and stream flag found.

Limits are in bytes. Everything wrong with a body is a `CallerError`: 400, 413 or 415.
"""

from __future__ import annotations

import json
import secrets
import zlib
from itertools import product
from typing import Any, Final

from gateway.core.call import Call
from gateway.core.codec import JSONError, loads, loads_far
from gateway.core.errors import CallerError
from gateway.core.multipart import is_form, model_of

# Endpoints whose body must be a JSON object; on other paths the body is passed on as it is.
JSON_ENDPOINTS: Final = frozenset(
    (
        "chat/completions",
        "completions",
        "embeddings",
        "responses",
        "moderations",
        "images/generations",
        "audio/speech",
        "rerank",
        "messages",
        "batches",
    )
)
# Those that can't be routed without a model.
MODEL_ENDPOINTS: Final = frozenset(("chat/completions", "completions", "embeddings"))

# A body of this many bytes is parsed in two: `_split`.
_LARGE: Final = 16 * 1024
_EARLY: Final = 1024  # bytes in which the bulky member must begin
_BULKY: Final = (b'"messages"', b'"input"')
# "Model", "MODEL" …: every other way to write it.
_OTHER_CASE: Final = frozenset(
    "".join(letters) for letters in product(*[(letter, letter.upper()) for letter in "model"])
) - {"model"}
_STAND_IN: Final = 1 << 61 | secrets.randbits(61)  # nobody can put it there on purpose


def too_large(limit: int) -> CallerError:
    """The refusal of a body beyond the limit."""
    return CallerError(
        f"The body is larger than {limit} bytes (server.bounds.body).",
        status=413,
        code="caller_body_too_large",
    )


def read(call: Call, limit: int) -> None:
    """Decode and parse the call's body, and set `document`, `model` and `stream`."""
    encoding = (call.header(b"content-encoding") or b"").lower()
    if encoding and encoding != b"identity":
        call.body = decode(call.body, encoding, limit)
    if call.method != "POST" or not call.body:
        if call.method == "POST" and call.endpoint in MODEL_ENDPOINTS:
            raise CallerError("The body must be a JSON object; it is empty.")
        return
    if call.endpoint in JSON_ENDPOINTS and call.path == "/" + call.endpoint:
        read_json(call)
        return
    kind = call.header(b"content-type") or b""
    if is_form(kind):
        call.model = model_of(call.body, kind)
    elif kind.lower().startswith(b"application/json"):
        _glance(call)


def read_json(call: Call) -> None:
    """The body of a JSON endpoint, not encoded: `document`, `model` and `stream`."""
    if not call.body:
        raise CallerError("The body must be a JSON object; it is empty.")
    document = call.document = parse(call.body)
    model = document.get("model")
    if type(model) is str and len(model) <= 512:
        call.model = model
    else:
        _no_model(call, model)
    if document.get("stream") is True:
        call.stream = True


def _glance(call: Call) -> None:
    """On a path the gateway does not know, a JSON body's model routes it, if there is one."""
    try:
        document = parse(call.body)
    except CallerError as error:
        if error.param == "model":
            raise  # one too many: which of them would be asked?
        return
    call.document = document
    if isinstance(document.get("model"), str):
        call.model = document["model"]
    call.stream = document.get("stream") is True


def _no_model(call: Call, model: Any) -> None:
    if type(model) is str:
        raise CallerError("'model' is longer than 512 characters.", param="model")
    if model is not None or call.endpoint in MODEL_ENDPOINTS:
        raise CallerError("'model' must be given, as a string.", param="model")


def parse(body: bytes) -> dict[str, Any]:
    """A JSON object, strictly: no NaN, no lone surrogates, no second `model`."""
    outline = body
    try:
        split = _split(body) if len(body) >= _LARGE else None
        document, outline = split or (_whole(body), body)
    except JSONError as error:
        raise CallerError(f"The body is not valid JSON: {_safe(error)}") from None
    if type(document) is not dict:
        raise CallerError(f"The body must be a JSON object, not {_kind(document)}.")
    # The model that is authorised must be the one that is forwarded: with two of them a server
    # may take the first and another the last. Escapes (\u006d…) could hide the second.
    # And some servers do not mind the case of names: they would read "Model" as well.
    # (`find`, not `in`, which tries first whether it is given a number; one byte is found faster than five.)
    escaped = outline.find(b"\\") >= 0 and outline.find(b"\\u006") >= 0
    if (escaped or outline.count(b'"model"') > 1) and _twice(outline, "model"):
        raise CallerError("'model' is given twice.", param="model")
    if not document.keys().isdisjoint(_OTHER_CASE):
        raise CallerError("'model' must be written in small letters.", param="model")
    return document


def _whole(body: bytes) -> Any:
    try:
        return loads(body)
    except JSONError as error:
        if "infinity" in error.msg:
            return loads_far(body)
        raise


def _split(body: bytes) -> tuple[dict[str, Any], bytes] | None:
    """A large object, parsed in two: its messages, and the rest, in which a number stands for them.

    Gives the document and that rest. Where both are valid JSON, so is the whole, with the same members;
    what is asked of the outermost members can then be asked of the rest, which is short: to search 100 KB
    for a name takes longer than to parse them. None: parse it as one.
    """
    name = next((each for each in _BULKY if body.find(each, 0, _EARLY) >= 0), b"")
    at = body.find(name, 0, _EARLY) + len(name)
    start = body.find(b"[", at, at + 8)
    if not name or start < 0 or body[at:start].strip() != b":":
        return None
    end = body.rfind(b"]") + 1
    messages, end = _array(memoryview(body), start, end)
    outline = b"%b%d%b" % (body[:start], _STAND_IN, body[end:])
    if messages is None:
        return None
    try:
        document = loads(outline)
    except JSONError:
        return None  # whoever parses the whole can say where it is wrong
    member = name[1:-1].decode()
    if type(document) is not dict or document.get(member) != _STAND_IN:
        return None  # it was another object's member, or there are two
    document[member] = messages
    return document, outline


def _array(body: memoryview, start: int, end: int) -> tuple[Any, int]:
    """The array that begins at `start` and where it ends: at `end`, or where another member follows."""
    for _ in range(2):
        try:
            return loads(body[start:end]), end
        except JSONError as error:
            end = start + error.pos
    return None, end


def _safe(error: Exception) -> str:
    return str(error).encode("ascii", "replace").decode()[:200]


def _kind(value: object) -> str:
    names = {list: "an array", str: "a string", int: "a number", float: "a number", bool: "a boolean"}
    return names.get(type(value), "null")


def _twice(body: bytes, name: str) -> bool:
    """Whether the top-level object has a member twice. Only the outermost pairs are looked at last."""
    last: list[tuple[str, Any]] = []

    def keep(pairs: list[tuple[str, Any]]) -> None:
        nonlocal last
        last = pairs

    try:
        json.loads(body, object_pairs_hook=keep)
    except (ValueError, RecursionError):
        raise CallerError("The body is nested too deeply or holds a number that is too long.") from None
    return sum(key == name for key, _ in last) > 1


def decode(body: bytes, encoding: bytes, limit: int) -> bytes:
    """A gzip or deflate request body, never more than `limit` bytes of it."""
    if encoding in (b"gzip", b"x-gzip"):
        inflater = zlib.decompressobj(wbits=31)
    elif encoding == b"deflate":
        inflater = zlib.decompressobj()
    else:
        raise CallerError(
            "content-encoding must be gzip, deflate or absent.",
            status=415,
            code="caller_encoding_not_supported",
        )
    try:
        data = inflater.decompress(body, limit + 1)
    except zlib.error:
        raise CallerError(f"The body is not valid {encoding.decode()}.") from None
    if len(data) > limit:
        raise too_large(limit)
    if not inflater.eof or inflater.unused_data:
        raise CallerError(f"The body is not one complete {encoding.decode()} stream.")
    return data
