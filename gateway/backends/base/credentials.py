"""What the gateway itself says to a provider, from a backend's settings: one header block for each key."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote, urlsplit

from gateway.backends.base.keyring import Keyring
from gateway.settings.schema import BackendSettings
from gateway.settings.secret import Secret

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_SHORT: Final = 8  # characters: a shorter secret may be a word that an answer holds by chance


def keyring(settings: BackendSettings, carrier: Callable[[str], tuple[str, str]]) -> Keyring:
    """The credentials in turn; `carrier` gives the header that carries a key. Raises `ValueError`."""
    blocks = _blocks(settings, carrier)
    sources = [key.source for key in settings.api_keys] or ["none"]
    names = [
        f"key {number} of {len(blocks)} of backend {settings.name} ({source})"
        for number, source in enumerate(sources, 1)
    ]
    return Keyring(blocks, names=names)


def _blocks(settings: BackendSettings, carrier: Callable[[str], tuple[str, str]]) -> list[bytes]:
    host = urlsplit(settings.base_url).netloc.rpartition("@")[2]
    given = [(name.lower(), value) for name, value in settings.headers]
    given += [(name.lower(), secret.reveal()) for name, secret in settings.secret_headers]
    names = {name for name, _ in given}
    blocks = []
    for key in settings.api_keys or (None,):
        lines = [("host", host), *given]
        if key is not None:
            carried = carrier(key.reveal())
            lines += [carried] if carried[0] not in names else []
        if "accept-encoding" not in names:
            # What comes in plain can be read as it passes; the gateway is next to its caller.
            lines.append(("accept-encoding", "identity"))
        blocks.append(b"".join(_line(settings.name, *line) for line in lines))
    return blocks


def _line(backend: str, name: str, value: str) -> bytes:
    if _CONTROL.search(value):
        raise ValueError(f"backends.{backend}: the header {name} holds a control character")
    return f"{name}: {value}\r\n".encode("latin-1")


def scrubber(*settings: BackendSettings) -> Callable[[bytes], bytes]:
    """Takes credentials out of a body, should a provider say one back. A closure: nothing shows them."""
    known = [text.encode() for each in settings for text in map(Secret.reveal, _secrets(each))]
    known += [secret for each in settings if each.proxy for secret in _of_proxy(each.proxy.reveal())]
    known = [secret for secret in dict.fromkeys(known) if len(secret) >= _SHORT]

    def scrub(body: bytes) -> bytes:
        for secret in known:
            if body.find(secret) >= 0:  # `in` would try first whether it is a number
                body = body.replace(secret, b"***")
        return body

    return scrub


def _secrets(settings: BackendSettings) -> list[Secret]:
    return [*settings.api_keys, *(secret for _, secret in settings.secret_headers)]


def _of_proxy(url: str) -> list[bytes]:
    """The credential of a forward proxy: as the header proxy-authorization has it, and the password."""
    parts = urlsplit(url)
    user, password = (unquote(text or "").encode() for text in (parts.username, parts.password))
    return [b64encode(user + b":" + password), password]
