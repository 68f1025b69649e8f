"""A call, and a copy of it."""

from __future__ import annotations

from copy import copy

from gateway.core.call import _MEMBERS, Call


def test_a_copy_says_the_same_of_itself_and_goes_its_own_way() -> None:
    call = Call("POST", "/chat/completions", "chat/completions", [(b"accept", b"*/*")], b"{}")
    call.model, call.tags, call.status, call.received = "m", ("a",), 200, 1.5
    twin = copy(call)
    assert [getattr(twin, name) for name in _MEMBERS] == [getattr(call, name) for name in _MEMBERS]
    twin.model = "other"
    assert call.model == "m"
