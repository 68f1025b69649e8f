"""Decisions by Open Policy Agent, through its REST API: `[[plugins]] use = "plugins.opa:Opa"`.

Options: `url` (of what decides, such as "http://127.0.0.1:8181/v1/data/penstock/allow"), `timeout` ("50ms"),
`fail` ("closed" or "open": what holds while no decision can be had), `cache` ("1s": how long one is
remembered, "0s" not at all), `body` (true: the request's document goes along), `token` ("env:NAME", sent as a
bearer token), `connections` (64), `ca` (a PEM file) and `name` ("opa", in refusals and metrics). What is
asked, and which answers are understood, stands in docs/policies.md.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from gateway.core.amend import Draft, unambiguous
from gateway.core.call import Call
from gateway.core.codec import JSONError, dumps, loads
from gateway.core.errors import FaultError, PolicyError, UpstreamError
from gateway.core.parts import Parts
from gateway.core.policy import Setting
from gateway.core.ports import Stage
from gateway.core.reply import Reply
from gateway.core.tokens import estimate
from gateway.core.tools import MEMBERS, offered
from gateway.net.egress import transport
from gateway.net.outbound import Outbound
from gateway.net.port import Transport
from gateway.settings.schema import BackendSettings, Deadlines
from gateway.settings.secret import Secret
from gateway.stages.policy.demands import Unmet
from gateway.stages.policy.edits import edit_of
from gateway.stages.policy.seen import Seen

log = logging.getLogger("penstock.opa")

_OPTIONS = ("url", "timeout", "fail", "cache", "body", "token", "connections", "ca", "name", "use")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0}
_MOST_REMEMBERED = 4096  # decisions
_LONGEST_QUESTION = 16 * 1024  # bytes; a longer one is asked each time
_LARGEST_ANSWER = 64 * 1024
_LONGEST_REASON = 300
_FAILURES = 5  # in a row, until nobody is asked for a while
_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds; doubled each time the first question after it fails too
# What an answer may set. Limits have been held by then, so the length of the answer is not among them.
_SETTABLE = {
    "temperature": (int, float), "top_p": (int, float), "seed": (int,), "user": (str,), "store": (bool,),
    "safety_identifier": (str,), "service_tier": (str,), "parallel_tool_calls": (bool,),
}  # fmt: skip

# What the question is made of: none may be there twice, another server might read the other one.
_LOOKED_AT = ("model", "stream", "prompt", "input", *MEMBERS)


class Decision(NamedTuple):
    """What was decided, until when it holds (monotonic seconds), and what is to be set."""

    allow: bool
    reason: str
    settings: Mapping[str, Any]
    until: float = 0.0


class Opa(Stage):
    """Asks about every call, after limits and before it is forwarded.

    Equal questions at the same time are asked once. 403 `policy_denied` where the answer is no, also where
    the document is undefined; without an answer in time the call passes or ends in 503, as `fail` says.
    """

    def __init__(self, options: Any, parts: Parts) -> None:
        unknown = [name for name in options if name not in _OPTIONS]
        if unknown:
            raise ValueError(
                f"plugins.opa knows no option {unknown[0]!r}; there are {', '.join(_OPTIONS[:-1])}"
            )
        self._timeout = _seconds(options, "timeout", "50ms", 60.0)
        self._keep = _seconds(options, "cache", "1s", 3600.0)
        if options.get("fail", "closed") not in ("closed", "open"):
            raise ValueError('plugins.opa: fail must be "closed" or "open"')
        self._open = options.get("fail") == "open"
        self._body = options.get("body", False) is True
        self._name = str(options.get("name", "opa"))
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", self._name):
            raise ValueError("plugins.opa: name must be letters, digits, _ . -")
        self._counts = parts.counts
        self._connections = options.get("connections", 64)
        if type(self._connections) is not int or not 1 <= self._connections <= 1024:
            raise ValueError("plugins.opa: connections must be an integer from 1 to 1024")
        self._ca = str(options.get("ca", ""))
        self._base, self._target, self._fixed = _address(options)
        self._way: Transport | None = None
        self._known: dict[bytes, Decision] = {}
        self._asking: dict[bytes, asyncio.Task[Decision | None]] = {}
        self._failed = 0
        self._closed_until = 0.0
        self._pause = _PAUSE

    async def open(self) -> None:
        """Connections are made when they are needed."""
        times = Deadlines(*[self._timeout] * 4)
        settings = BackendSettings(self._name, "openai", self._base, timeout=times, ca=self._ca)
        self._way = transport(replace(settings, connections=self._connections))

    async def close(self) -> None:
        """Close idle connections."""
        if self._way is not None:
            await self._way.close()

    def admit(self, call: Call) -> Reply | Awaitable[None] | None:  # type: ignore[override]
        """Act on a decision that is remembered, else ask."""
        question = dumps({"input": self._input(call)})
        known = self._known.get(question)
        if known is not None and known.until > time.monotonic():
            self._act(call, known)
            return None
        return self._ask(call, question)

    def _input(self, call: Call) -> dict[str, Any]:
        """What a policy can decide by; no secret is in it."""
        assert call.principal is not None, "auth comes first"
        unambiguous(call, _LOOKED_AT, ("tools", "functions"))
        key, document = call.principal.key, call.document or {}
        tools = offered(document)
        told: dict[str, Any] = {
            "principal": {
                "key": key.name, "id": key.id, "tenant": key.tenant, "team": key.team, "user": key.user,
                "roles": key.roles,
            },
            "method": call.method,
            "endpoint": call.endpoint,
            "path": call.path,
            "model": call.model,
            "backends": [target.backend for target in call.plan.targets] if call.plan is not None else [],
            "tags": call.tags,
            "session": call.session,
            "client": call.client,
            "stream": call.stream,
            "tools": tools.names,
            "tools_known": not tools.unknown and (call.document is not None or not call.body),
            # To the next power of two: exact figures would make every question a new one.
            "tokens": 1 << max(0, estimate(call.body, call.document) - 1).bit_length() if call.body else 0,
        }  # fmt: skip
        if self._body:
            told["body"] = call.document
        return told

    async def _ask(self, call: Call, question: bytes) -> None:
        task = self._asking.get(question)
        if task is None:
            task = asyncio.create_task(self._decide(question))
            self._asking[question] = task
            task.add_done_callback(lambda done: self._asking.pop(question, None))
        # A caller that leaves must not take the answer away from others with the same question.
        decision = await asyncio.shield(task)
        if decision is not None:
            self._act(call, decision)
            return
        self._count("unavailable")
        call.reasons["undecided" if self._open else "policy"] = self._name
        if not self._open:
            message = "The service that decides about calls does not answer; try again."
            raise FaultError(message, code="gateway_policy_unavailable", retry_after=1)

    async def _decide(self, question: bytes) -> Decision | None:
        """A decision, or None where none can be had."""
        now = time.monotonic()
        if now < self._closed_until:
            return None
        probing = self._failed >= _FAILURES
        if probing:  # this one finds out; the others do not wait for it
            self._closed_until = now + self._timeout
        try:
            async with asyncio.timeout(self._timeout):
                decision = await self._exchange(question)
        except (UpstreamError, TimeoutError, ValueError) as error:
            self._failure(error, probing)
            return None
        self._failed, self._closed_until, self._pause = 0, 0.0, _PAUSE
        if self._keep and len(question) <= _LONGEST_QUESTION:
            if len(self._known) >= _MOST_REMEMBERED:
                self._known.clear()
            decision = decision._replace(until=now + self._keep)
            self._known[question] = decision
        return decision

    def _failure(self, error: Exception, probing: bool) -> None:
        self._failed += 1
        if self._failed != _FAILURES and not probing:
            return  # not enough yet, or one of those that were under way when it was
        self._pause = min(self._pause * 2, _LONGEST_PAUSE) if probing else _PAUSE
        self._closed_until = time.monotonic() + self._pause
        why = str(error) or type(error).__name__
        log.warning("%s gives no decision (%s); not asked for %g s", self._name, why, self._pause)

    async def _exchange(self, question: bytes) -> Decision:
        assert self._way is not None, "the stage is open"
        exchange = await self._way.send(Outbound(b"POST", self._target, self._fixed, body=question))
        try:
            body = await exchange.collect(_LARGEST_ANSWER)
        finally:
            exchange.close()
        if exchange.status != 200:
            raise ValueError(f"it answered with status {exchange.status}")
        if body is None:
            raise ValueError("its answer is too long")
        try:
            answer = loads(body)
        except JSONError:
            raise ValueError("its answer is not JSON") from None
        return decision_of(answer)

    def _act(self, call: Call, decision: Decision) -> None:
        if not decision.allow:
            self._count("deny")
            call.reasons["policy"] = self._name
            told = f": {decision.reason}" if decision.reason else "."
            raise PolicyError(f"The policy `{self._name}` refuses this call{told}", code="policy_denied")
        if decision.settings:
            self._set(call, decision.settings)

    def _set(self, call: Call, settings: Mapping[str, Any]) -> None:
        """As a policy does: nothing where it means nothing, a refusal where it can't be made."""
        unambiguous(call, settings)
        seen, draft = Seen(call, None), None
        for name, value in settings.items():
            edit = edit_of(Setting(name, value), seen)
            if isinstance(edit, Unmet):
                call.reasons["policy"] = self._name
                told = f"The policy `{self._name}` requires {edit.what}."
                raise PolicyError(told, code="policy_requirement", status=400, param=edit.param)
            if edit is not None:
                draft = draft or Draft(call)
                edit(draft)
        if draft is not None:
            self._count("set")
            call.reasons["policy"] = ",".join(filter(None, (call.reasons.get("policy"), self._name)))

    def _count(self, decision: str) -> None:
        counted = ("policies", self._name, decision)
        self._counts[counted] = self._counts.get(counted, 0) + 1


def decision_of(answer: Any) -> Decision:
    """The decision in an answer of OPA's data API. Raises `ValueError` where it is none.

    `result` is true or false, or an object with `allow`, or `deny` (a boolean, or messages), `reason` and
    `set`. Without a `result` the document is undefined: nothing allows the call.
    """
    if type(answer) is not dict:
        raise ValueError("its answer is no object")
    if "result" not in answer:
        return Decision(False, "no decision is defined", {})
    result = answer["result"]
    if type(result) is bool:
        return Decision(result, "", {})
    if type(result) is not dict or not {"allow", "deny"} & result.keys():
        raise ValueError("its result is neither true or false nor an object with allow or deny")
    denied, reason = result.get("deny", False), result.get("reason", "")
    messages = [denied] if type(denied) is str else denied if type(denied) is list else []
    allow = not denied and result.get("allow", True) is True
    settings = result.get("set") or {}
    if type(settings) is not dict or not all(
        type(settings[name]) in _SETTABLE.get(name, ()) for name in settings
    ):
        raise ValueError(f"it may set {', '.join(_SETTABLE)} to plain values, nothing else")
    return Decision(allow, _words([reason, *messages]), settings if allow else {})


def _words(texts: list[Any]) -> str:
    """Texts on one line, printable and bounded: callers read them."""
    told = "; ".join(dict.fromkeys(text for text in texts if type(text) is str and text))
    return "".join(c if c.isprintable() else " " for c in told[:_LONGEST_REASON])


def _address(options: Mapping[str, Any]) -> tuple[str, bytes, bytes]:
    """Base URL, request target and header block."""
    url = re.fullmatch(r"(https?://([!-~]+?))(/[!-~]*)?", str(options.get("url", "")))
    if url is None or set("@?#") & set(url[2]):
        raise ValueError('plugins.opa: url must be such as "http://127.0.0.1:8181/v1/data/penstock/allow"')
    token = options.get("token", "")
    secret = token.reveal() if isinstance(token, Secret) else str(token)
    lines = [f"host: {url[2]}", "content-type: application/json", "accept-encoding: identity"]
    if secret:
        if not secret.isascii() or not secret.isprintable():
            raise ValueError("plugins.opa: token must be printable ASCII")
        lines.append(f"authorization: Bearer {secret}")
    return url[1], (url[3] or "/").encode(), "".join(f"{line}\r\n" for line in lines).encode()


def _seconds(options: Mapping[str, Any], name: str, default: str, most: float) -> float:
    match = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)(ms|s|m)", str(options.get(name, default)))
    seconds = float(match[1]) * _UNITS[match[2]] if match else -1.0
    if not 0 <= seconds <= most or (name == "timeout" and not seconds):
        raise ValueError(f'plugins.opa: {name} must be a duration such as "{default}", at most {most:g}s')
    return seconds
