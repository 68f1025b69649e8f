"""What comes back from a provider: which headers go on, and what a whole body says about usage."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from gateway.backends.base.taps import body_tap
from gateway.core.call import Call, Headers
from gateway.core.capture import generated
from gateway.core.codec import JSONError, loads, loads_loose
from gateway.core.endpoints import GENERATING
from gateway.core.errors import UpstreamError
from gateway.core.prompt import guessed, guessed_text
from gateway.core.search import Search, last_usage
from gateway.core.usage import ESTIMATED, UNKNOWN, Usage, from_openai
from gateway.net.decode import Decoder, decodable
from gateway.net.lines import Lines

_PARSED: Final = 32 * 1024  # bytes: a longer body is first looked at from its end
_END: Final = 4 * 1024  # bytes of a body's end in which its usage mostly stands
_MOST: Final = 4 << 20  # bytes a coded body may have when it is decoded to be looked at as a whole
_FARTHEST: Final = 16 << 20  # and of a longer one so many are looked through
_UNMADE: Final = ("queued", "in_progress")  # a response in the background: whoever asks again finds it

# Not for the caller: what is between provider and operator, what binds a browser to the provider's
# host, what would contradict the gateway's own headers, and anything a credential could stand in.
_DROPPED: Final = frozenset(
    (
        b"set-cookie", b"alt-svc", b"strict-transport-security", b"public-key-pins", b"nel", b"report-to",
        b"clear-site-data", b"server", b"openai-organization", b"openai-project", b"authorization",
        b"www-authenticate", b"api-key", b"x-api-key", b"x-goog-api-key", b"proxy-authorization",
        b"proxy-authenticate", b"proxy-connection",
    )
)  # fmt: skip
_DROPPED_PREFIXES: Final = (b"x-ratelimit-", b"x-penstock-")
_RENAMED: Final = {b"x-request-id": b"x-upstream-request-id"}


@lru_cache(maxsize=512)
def fate(name: bytes) -> bytes:
    """The name under which a header of an answer goes on to the caller, b"" for one that does not."""
    dropped = name in _DROPPED or name.startswith(_DROPPED_PREFIXES)
    return b"" if dropped else _RENAMED.get(name, name)


LINES: Final = Lines(fate)


def passed_on(headers: Headers) -> Headers:
    """The end-to-end headers of an answer that the caller gets."""
    return [(onward, value) for name, value in headers if (onward := fate(name))]


def measure(call: Call, body: bytes, encoding: bytes) -> None:
    """Find the usage in a whole JSON answer, or estimate it where the provider states none.

    In the memo, `text` is what was generated; where not all of it was seen, `size` is about how many bytes.
    """
    if encoding:
        plain = _plain(body, encoding)
        if plain is None:
            _glimpse(call, body, encoding)
            return
        body = plain
    usage = _from_the_end(body) or (_searched(body) if len(body) > _PARSED else None)
    document: Any = None
    if usage is None:
        try:
            document = loads(body)
        except JSONError:
            document = _loose(body)
            if document is None:
                usage = last_usage(body)
        if isinstance(document, dict):
            usage = from_openai(document.get("usage"))
        elif usage is None:
            call.memo["size"] = len(body)
            return
    if usage is not None:
        call.usage = usage
        if usage.output_total:
            return
    if call.endpoint in GENERATING and call.method == "POST":
        _estimate(call, usage, document or _loose(body))


def _estimate(call: Call, told: Usage | None, document: Any) -> None:
    """What texts come to where the provider states no usage, or no tokens of an answer that has a text."""
    if told is None and isinstance(document, dict) and document.get("status") in _UNMADE:
        call.usage, call.memo["size"] = Usage(source=UNKNOWN), -1
        return
    text = "".join(generated(document)).encode("utf-8", "replace") if isinstance(document, dict) else b""
    if told is not None and not text:
        return
    if told is not None and told.input_total:
        told.output, told.source = guessed_text(text), ESTIMATED
        call.memo["prompt_told"] = True
    else:
        prompt = guessed(call.body, call.document, call.model)
        call.usage = Usage(input=prompt, output=guessed_text(text), source=ESTIMATED)
    call.memo["text"] = text
    if not text:
        call.memo["size"] = 0  # generated may be what is not known here


def _from_the_end(body: bytes) -> Usage | None:
    """The usage of an object by its last members alone, as most providers write it after the content.

    To parse 600 bytes whole costs four times as much. In valid JSON `"usage"` is no part of a text, where its
    quotes would be escaped; and with a brace before it, the rest is a whole object only where it is that of
    the outermost one, of which a later member goes before an earlier one.
    """
    at = body.rfind(b'"usage"', max(len(body) - _END, 0))
    if at < 0:
        return None
    try:
        rest = loads(b"{" + body[at:])
    except JSONError:
        return None
    return from_openai(rest.get("usage")) if type(rest) is dict else None


def _loose(body: bytes) -> Any:
    """A document that is not strictly JSON (log probabilities of -Infinity …): its usage is true for that."""
    try:
        return loads_loose(body)
    except ValueError:
        return None


def _searched(body: bytes) -> Usage | None:
    search = Search()
    search.feed(body)
    return search.end()


def _plain(body: bytes, encoding: bytes) -> bytes | None:
    """A coded body decoded to be looked at, None where that can't be done."""
    name = encoding.decode("latin-1")
    try:
        return Decoder(name, _MOST).feed(body) if decodable(name) else None
    except UpstreamError:
        return None


def _glimpse(call: Call, body: bytes, encoding: bytes) -> None:
    """What can be told of a body that is too long in plain, or that breaks off, or that nobody here reads."""
    tap = body_tap(encoding, _FARTHEST)
    tap.feed(body)
    usage = tap.usage
    if usage is not None:
        call.usage = usage
    else:
        call.memo["size"] = tap.size
