"""The parts of a multipart/form-data body (RFC 7578), as much as SDKs send."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class Part:
    """One field: its name, its file name if it is a file, its bytes."""

    name: str
    filename: str
    data: bytes


def parts(content_type: str, body: bytes) -> list[Part]:
    """All fields in order; [] where the body is no multipart."""
    found = re.search(r'boundary="?([^";]+)', content_type)
    if not found:
        return []
    fields = []
    for piece in (b"\r\n" + body).split(b"\r\n--" + found[1].encode())[1:-1]:
        head, _, data = piece.partition(b"\r\n\r\n")
        name = re.search(rb'[; ]name="([^"]*)"', head)
        filename = re.search(rb'filename="([^"]*)"', head)
        fields.append(
            Part(
                name[1].decode() if name else "",
                filename[1].decode() if filename else "",
                data,
            )
        )
    return fields


def value(fields: list[Part], name: str) -> str:
    """A plain field's text, "" where there is none."""
    return next((part.data.decode(errors="replace") for part in fields if part.name == name), "")
