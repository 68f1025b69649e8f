"""The `model` field of a multipart/form-data body (RFC 7578), found without copying the files in it."""

from __future__ import annotations

import re

from gateway.core.errors import CallerError

_BOUNDARY = re.compile(rb'boundary=(?:"([^"\r\n]{1,70})"|([^\s;,"]{1,70}))', re.IGNORECASE)
_NAME = re.compile(rb'content-disposition:[^\r\n]*;[ \t]*name="?model"?[ \t]*(?:;|\r\n)', re.IGNORECASE)
_MAX_PARTS = 256
_MAX_PART_HEAD = 4096


def model_of(body: bytes, content_type: bytes) -> str:
    """The value of the field `model`, "" when there is none. Raises `CallerError` (400)."""
    span = model_span(body, content_type)
    if span is None:
        return ""
    try:
        return body[span[0] : span[1]].decode()
    except UnicodeDecodeError:
        raise CallerError("The form field 'model' must be UTF-8 text.", param="model") from None


def model_span(body: bytes, content_type: bytes) -> tuple[int, int] | None:
    """Where the value of the field `model` stands in the body, or None."""
    match = _BOUNDARY.search(content_type)
    if match is None:
        raise CallerError("A multipart/form-data body needs a boundary in its content-type.")
    mark = b"--" + (match.group(1) or match.group(2))
    found: tuple[int, int] | None = None
    at = body.find(mark)
    for _ in range(_MAX_PARTS):
        if at < 0 or body.startswith(b"--", at + len(mark)):
            return found
        following = body.find(b"\r\n" + mark, at + len(mark))
        end = body.find(b"\r\n\r\n", at, at + _MAX_PART_HEAD)
        if following < 0 or end < 0:
            return found
        if _NAME.search(body, at, end + 2) is not None and end + 4 <= following:
            if found is not None:
                raise CallerError("The form field 'model' is given twice.", param="model")
            if following - end > 516:
                raise CallerError("'model' is longer than 512 characters.", param="model")
            found = (end + 4, following)
        at = following + 2
    raise CallerError(f"The form has more than {_MAX_PARTS} parts.")
