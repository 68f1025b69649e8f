"""What there is to call of each stage, and a guard around stages that are not of this package.

A plugin may raise or give anything. What would be taken for something else, or break only where the answer is
already on its way, is an error of that stage here.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from gateway.core.call import Call
from gateway.core.ports import Stage
from gateway.core.reply import Coming, Event, Reply

Verb = Callable[..., Any]

_OURS = "gateway"


def verbs(stages: Sequence[Stage], name: str) -> tuple[Verb, ...]:
    """`admit`, `emit` or `settle` of those stages that have one of their own."""
    inherited = getattr(Stage, name)
    having = [stage for stage in stages if getattr(type(stage), name, inherited) is not inherited]
    return tuple([_verb(stage, name) for stage in having])


def _verb(stage: Stage, name: str) -> Verb:
    verb: Verb = getattr(stage, name)
    return verb if type(stage).__module__.partition(".")[0] == _OURS else _guarded(verb, name)


def _guarded(verb: Verb, name: str) -> Verb:
    async def later(said: Awaitable[Any], call: Call) -> Any:
        return _sound(await said, name, call)

    async def waits(call: Call, *given: Any) -> Any:
        return await later(verb(call, *given), call)

    def plain(call: Call, *given: Any) -> Any:
        try:
            said = verb(call, *given)
        except StopIteration as error:  # would end whoever called, as if it had given its value
            raise RuntimeError(f"{name} raised StopIteration") from error
        if isinstance(said, Coming):
            return said
        return later(said, call) if inspect.isawaitable(said) else _sound(said, name, call)

    return waits if inspect.iscoroutinefunction(verb) else plain


def _sound(said: Any, name: str, call: Call) -> Any:
    """What it gave, if it can be used. Raises `TypeError` or `ValueError` otherwise."""
    if any([type(word) is not str or type(why) is not str for word, why in call.reasons.items()]):
        call.reasons = {str(word): str(why) for word, why in call.reasons.items()}
    if said is None or name == "settle":
        return said
    if name == "emit":
        if not isinstance(said, Event) or not isinstance(said.data, bytes):
            raise TypeError(f"emit gives an Event of bytes or None, not {said!r:.100}")
    elif not isinstance(said, Reply):
        raise TypeError(f"admit gives a Reply or None, not {said!r:.100}")
    else:
        _answerable(said)
    return said


def _answerable(reply: Reply) -> None:
    if not 200 <= reply.status < 600:
        raise ValueError(f"a Reply's status is 200 to 599, not {reply.status!r:.20}")
    if (reply.body is None) == (reply.source is None):
        raise ValueError("a Reply has either a body or a source")
    if reply.body is not None and type(reply.body) is not bytes:
        raise TypeError("a Reply's body is bytes")
    for pair in reply.headers:
        if len(pair) != 2 or type(pair[0]) is not bytes or type(pair[1]) is not bytes:
            raise TypeError(f"a Reply's headers are pairs of bytes, not {pair!r:.100}")
