"""What is said to those whose credential is none: always the same words, whatever was sent."""

from __future__ import annotations

from gateway.core.errors import CallerError

NAMES = (b"authorization", b"x-api-key", b"api-key")  # headers a credential may come in

_HELP = "Send a key of this gateway as 'Authorization: Bearer KEY' or 'x-api-key: KEY'."
_BAD_TOKEN = ((b"www-authenticate", b'Bearer error="invalid_token"'),)


def begins(line: bytes) -> bool:
    """Whether this header line is a credential's."""
    name, colon, _ = line.partition(b":")
    return bool(colon) and name.lower() in NAMES


def none_sent() -> CallerError:
    """There is no credential at all."""
    return _refused("no_key", f"No key was sent. {_HELP}")


def unknown() -> CallerError:
    """The credential is no key of this gateway."""
    return _refused("unknown_key", f"This key is not known here. {_HELP}")


def expired() -> CallerError:
    """The key was good once."""
    return _refused("expired_key", "This key has expired; ask for a new one.")


def revoked() -> CallerError:
    """The key was taken back."""
    return _refused("revoked_key", "This key has been revoked; ask for a new one.")


def bad_token() -> CallerError:
    """A token that is not good, for any reason: which one, nobody is told."""
    error = _refused("invalid_token", "This token is not valid here; get a new one from your provider.")
    error.headers = _BAD_TOKEN
    return error


def _refused(code: str, message: str) -> CallerError:
    return CallerError(message, status=401, code=f"caller_{code}")
