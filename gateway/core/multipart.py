"""The `model` field of a multipart/form-data body (RFC 7578), found without copying the files in it.

The model that is authorised must be the one the server finds. So a form is read as clients in use write
them, and one that two servers could take apart differently is refused: lines without CR, folded headers, text
around the form, a boundary that stands anywhere else or is given twice, fields that hide their name.
"""

from __future__ import annotations

import re

from gateway.core.errors import CallerError

_TOKEN = rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_PARAMETER = re.compile(rb';[ \t]*(%b)="((?:[^"\\\r\n]|\\.)*)"|;[ \t]*(%b)=([^\s;,"]+)' % (_TOKEN, _TOKEN))
_PARAMETERS = re.compile(rb"(?:(?:%b)[ \t]*)*;?[ \t]*\Z" % _PARAMETER.pattern)
_LINE = re.compile(rb"(%b):[ \t]*([^\r\n]*)" % _TOKEN)
_FORM = re.compile(rb"multipart/form-data[ \t]*(?=;|\Z)", re.IGNORECASE)
_FIELD = re.compile(rb"form-data[ \t]*(?=;|\Z)", re.IGNORECASE)
_PLAIN = (b"", b"7bit", b"8bit", b"binary")  # content-transfer-encodings that change nothing
_MAX_BOUNDARY = 70
_MAX_PARTS = 256
_MAX_PART_HEAD = 4096
_MAX_MODEL = 512


def is_form(content_type: bytes) -> bool:
    """Whether a content-type says multipart/form-data; media types have no case (RFC 9110, 8.3.1)."""
    return _FORM.match(content_type) is not None


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
    """Where the value of the field `model` stands in the body, or None. Raises `CallerError` (400)."""
    mark = b"--" + _boundary(content_type)
    found: tuple[int, int] | None = None
    at = 2 if body.startswith(b"\r\n" + mark) else 0
    if not body.startswith(mark, at):
        raise _malformed("does not begin with its boundary")
    if b"\r" + mark in body:
        raise _malformed("has a line that ends with CR alone before a boundary")
    for _ in range(_MAX_PARTS):
        start = at + len(mark)
        if body.startswith(b"--", start):
            if body[start + 2 :].strip(b"\r\n"):
                raise _malformed("goes on after its end")
            return found
        if not body.startswith(b"\r\n", start):
            raise _malformed("has its boundary inside a line")
        # From before the line's end on: a part without any headers begins with an empty line.
        head = body.find(b"\r\n\r\n", start, start + _MAX_PART_HEAD)
        following = _next(body, mark, start)
        if head < 0 or following < head + 6:
            raise _malformed("has a part that does not end, or whose headers do not")
        if _is_model(body[start + 2 : head]):
            if found is not None:
                raise CallerError("The form field 'model' is given twice.", param="model")
            found = (head + 4, following - 2)
            if found[1] - found[0] > _MAX_MODEL:
                raise CallerError(f"'model' is longer than {_MAX_MODEL} characters.", param="model")
        at = following
    raise CallerError(f"The form has more than {_MAX_PARTS} parts.")


def _next(body: bytes, mark: bytes, start: int) -> int:
    """Where the boundary stands next at the beginning of a line, -1 where it does not."""
    at = body.find(b"\n" + mark, start)
    if at >= 0 and body[at - 1] != 0x0D:
        raise _malformed("has a line that does not end with CRLF before a boundary")
    return at + 1 if at >= 0 else -1


def _malformed(how: str) -> CallerError:
    return CallerError(f"The multipart/form-data body {how}.")


def _boundary(content_type: bytes) -> bytes:
    media = _FORM.match(content_type)
    found = _parameters(content_type[media.end() :]) if media is not None else None
    values = [value for name, value in found or () if name == b"boundary"]
    if len(values) != 1 or not 0 < len(values[0]) <= _MAX_BOUNDARY or b"\\" in values[0]:
        raise CallerError("A multipart/form-data body needs one boundary in its content-type.")
    return values[0]


def _parameters(text: bytes) -> list[tuple[bytes, bytes]] | None:
    """Pairs of small-letter name and value, quotes removed; None where it is no list of parameters."""
    if _PARAMETERS.match(text) is None:
        return None
    return [((one or two).lower(), quoted or plain) for one, quoted, two, plain in _PARAMETER.findall(text)]


def _is_model(head: bytes) -> bool:
    """Whether a part with these headers is the field `model`."""
    fields = []
    for line in head.split(b"\r\n") if head else ():
        match = _LINE.fullmatch(line)
        if match is None:
            raise _malformed("has a part with a header that is none")
        fields.append((match.group(1).lower(), match.group(2)))
    given = [value for name, value in fields if name == b"content-disposition"]
    disposition = _FIELD.match(given[0]) if len(given) == 1 else None
    found = _parameters(given[0][disposition.end() :]) if disposition is not None else None
    names = [value for name, value in found or () if name.startswith(b"name")]
    if len(names) != 1 or b"name" not in dict(found or ()):
        raise _malformed("has a part without one 'content-disposition: form-data' that names it once")
    if names[0].replace(b"\\", b"").strip().lower() != b"model":
        return False
    codings = [value.strip().lower() for name, value in fields if name == b"content-transfer-encoding"]
    if names[0] != b"model" or not set(codings) <= set(_PLAIN):
        raise CallerError("The form field 'model' must be written so, as plain text.", param="model")
    return True
