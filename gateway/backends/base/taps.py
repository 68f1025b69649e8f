"""Which tap looks at an answer as it passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gateway.backends.base.inflate import MOST, InflatingTap, UnpackingTap
from gateway.core.call import Call
from gateway.core.stream import StreamTap
from gateway.core.tap import BodyTap, tap_of

_PLAIN: Final = (b"", b"identity")
_PACKED: Final = (b"gzip", b"x-gzip", b"deflate")


def stream_tap(
    call: Call, coding: bytes, hide: bool, scrub: Callable[[bytes], bytes]
) -> StreamTap | InflatingTap | BodyTap:
    """For an event stream. `hide`: see `core.tap.ChatTap`."""
    coding = coding.strip().lower()
    if coding not in _PLAIN and coding not in _PACKED:
        return BodyTap(readable=False)  # nobody here can read it
    tap = tap_of(call.endpoint, hide, scrub)
    return InflatingTap(tap, coding.decode()) if coding in _PACKED else tap


def body_tap(coding: bytes, most: int = MOST) -> BodyTap:
    """For any other body that is too long to be held. `most`: bytes in plain, if it is packed."""
    coding = coding.strip().lower()
    if coding in _PACKED:
        return UnpackingTap(coding.decode(), most)
    return BodyTap(readable=coding in _PLAIN)
