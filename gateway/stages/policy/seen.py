"""What is known of one call when policies look at it, and what can't be known."""

from __future__ import annotations

import re
from typing import Any

from gateway.core import endpoints
from gateway.core.call import Call
from gateway.core.cost import SCALE
from gateway.core.multipart import is_form
from gateway.core.tokens import estimate
from gateway.core.tools import NOTHING as NO_TOOLS
from gateway.core.tools import UNKNOWN as SOME_TOOLS
from gateway.core.tools import Offered, chosen, offered

# Kinds of calls by what their body may hold: nothing is there; nothing that generates text or offers tools;
# a document in which everything stands; something that may mean anything (a batch, a path not known here).
EMPTY, PLAIN, GENERATING, OPAQUE = range(4)

UNKNOWN = object()  # a number that nobody here can tell

USUAL_OUTPUT = 1024  # tokens of an answer that the caller does not bound, for the estimate of its cost

_PLAIN = endpoints.MAKING - endpoints.GENERATING | {"files"}
_PICTURED = ("images/edits", "images/variations")
BOUNDS = endpoints.BOUNDS
ALL_BOUNDS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_IMAGES = frozenset(("image_url", "input_image", "image"))
_MOST_PARTS = 100_000  # parts of a prompt that are looked at for images

Price = tuple[int, int, int]  # dearest input, dearest output, a request: see `Price.rates`


def kind_of(call: Call) -> int:
    """Which of the kinds a call is."""
    if not call.body:
        return EMPTY
    endpoint = call.endpoint
    if endpoint in endpoints.GENERATING:
        whole = call.document is not None and len(call.path) == len(endpoint) + 1
        return GENERATING if whole else OPAQUE
    if endpoint not in _PLAIN:
        return OPAQUE
    # Neither a document nor a form: another server may read in it what nobody here does.
    read = call.document is not None or endpoint == "files" or is_form(call.header(b"content-type") or b"")
    return PLAIN if read else OPAQUE


class Seen:
    """One call as policies see it. What costs something is found out when it is first asked for."""

    __slots__ = ("_cost", "_tools", "call", "document", "kind", "price")

    def __init__(self, call: Call, price: Price | None) -> None:
        self.call = call
        self.price = price
        self.kind = kind_of(call)
        self.document: dict[str, Any] = call.document if call.document is not None else {}
        self._tools: Offered | None = None
        self._cost: Any = None

    def changed(self) -> None:
        """The document is another one now: forget what was found out."""
        self._tools = self._cost = None

    def tools(self) -> Offered:
        """The tools that are offered to the model."""
        if self._tools is None:
            found = offered(self.document) if self.document else NO_TOOLS
            self._tools = Offered(found.names, True) if self.kind == OPAQUE else found
        return self._tools

    def choice(self) -> Offered:
        """What `tool_choice` says."""
        found = chosen(self.document) if self.document else NO_TOOLS
        return SOME_TOOLS if self.kind == OPAQUE and not found.names else found

    def stream(self) -> bool | None:
        """Whether the answer is to be streamed; None where that can't be told."""
        given = self.document.get("stream")
        if given is None:
            return None if self.kind == OPAQUE else False
        return given if type(given) is bool else None

    def temperature(self) -> Any:
        """As the caller states it; `UNKNOWN` where the provider's default holds, None where there is none."""
        return self._number(self.document.get("temperature"), "temperature")

    def max_tokens(self) -> Any:
        """The longest answer the caller allows; `UNKNOWN` where it is not bounded."""
        document, most = self.document, None
        for name in BOUNDS.get(self.call.endpoint, ALL_BOUNDS):
            given = document.get(name)
            if given is None:
                continue
            if type(given) is not int or given < 0:
                return UNKNOWN  # to some servers -1 is no bound at all
            most = given if most is None else max(most, given)
        return self._number(most, "max_tokens")

    def tokens(self) -> int:
        """The prompt's tokens, estimated."""
        return estimate(self.call.body, self.call.document)

    def cost(self) -> Any:
        """The most it is estimated to cost, in micro-dollars."""
        if self._cost is None:
            self._cost = self._priced()
        return self._cost

    def _priced(self) -> Any:
        if self.kind == EMPTY or self.call.endpoint == "files":
            return 0
        if self.price is None or self.kind == OPAQUE:
            return UNKNOWN
        output = 0
        if self.kind == GENERATING:
            most, answers = self.max_tokens(), self._answers()
            if answers is None:
                return UNKNOWN
            output = (most if type(most) is int and most > 0 else USUAL_OUTPUT) * answers
        dearest_in, dearest_out, request = self.price
        return request - (-(self.tokens() * dearest_in + output * dearest_out) // SCALE)

    def _answers(self) -> int | None:
        """How many answers are generated; None where that can't be told (some servers take "5" for 5)."""
        most = 1
        for name in ("n", "best_of"):
            given = self.document.get(name)
            if given is not None and type(given) is not int:
                return None
            most = max(most, given or 1)
        return most

    def images(self) -> bool | None:
        """Whether the prompt holds images; None where that can't be told."""
        if self.call.endpoint in _PICTURED and self.call.body:
            return True
        prompt = self.document.get("prompt")
        found = _pictured([self.document.get("messages"), self.document.get("input"), prompt])
        # A prompt kept at the provider may have images of its own.
        unseen = self.kind == OPAQUE or type(prompt) is dict
        return None if unseen and found is False else found

    def form_has(self, name: str) -> bool:
        """Whether a body that is no document may have a field of this name."""
        if self.call.document is not None:
            return False
        return re.search(rb'(?i)name="?%b"?\s*[;\r\n]' % name.encode(), self.call.body) is not None

    def _number(self, given: Any, name: str) -> Any:
        if type(given) is int or type(given) is float:
            return given
        if given is not None:
            return UNKNOWN  # some servers take "0.9" for 0.9
        if self.kind == EMPTY or (self.kind == PLAIN and not self.form_has(name)):
            return None
        return UNKNOWN


def _pictured(waiting: list[Any]) -> bool | None:
    """Whether there is an image among messages and their parts, without recursion."""
    for _ in range(_MOST_PARTS):
        if not waiting:
            return False
        value = waiting.pop()
        if type(value) is list:
            waiting += value
        elif type(value) is dict:
            kind = value.get("type")
            if (type(kind) is str and kind in _IMAGES) or "image_url" in value:
                return True
            waiting += [value[name] for name in ("content", "output", "source") if name in value]
            if type(value.get("variables")) is dict:  # of a prompt that is kept at the provider
                waiting += value["variables"].values()
    return None
