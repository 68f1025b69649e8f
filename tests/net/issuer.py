"""An identity provider for tests: keys, tokens good and bad, and a key set served on a loopback port."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Mapping
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

ISSUER, AUDIENCE = "https://idp.example", "penstock"


def key(name: str, kind: str = "RS256") -> Any:
    """A private key, the same for the same name and kind."""
    return _made(name, kind)


@cache
def _made(name: str, kind: str) -> Any:
    match kind[:2]:
        case "RS" | "PS":
            return rsa.generate_private_key(65537, 2048)
        case "ES":
            curves = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}
            return ec.generate_private_key(curves[kind]())
        case _:
            return ed25519.Ed25519PrivateKey.generate()


def public_pem(private: Any) -> str:
    """The public half as PEM."""
    return private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def private_pem(private: Any) -> str:
    """The private half as PEM."""
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def public_jwk(name: str, kind: str = "RS256", **more: Any) -> dict[str, Any]:
    """The public half as a key of a key set."""
    algorithm = jwt.get_algorithm_by_name(kind)
    found: dict[str, Any] = json.loads(algorithm.to_jwk(key(name, kind).public_key()))  # type: ignore[attr-defined]
    return {**found, "kid": name, "use": "sig", "alg": kind, **more}


def claims(**changed: Any) -> dict[str, Any]:
    """Claims of a good token; a claim given as None is left out."""
    now = int(time.time())
    usual = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "iat": now, "exp": now + 600}
    return {name: value for name, value in {**usual, **changed}.items() if value is not None}


def token(
    name: str = "one", kind: str = "RS256", headers: Mapping[str, Any] | None = None, **changed: Any
) -> bytes:
    """A token signed with the key of that name, which its header names too."""
    header = {"kid": name, **(headers or {})}
    header = {name: value for name, value in header.items() if value is not None}
    return jwt.encode(claims(**changed), key(name, kind), algorithm=kind, headers=header).encode()


def encoded(value: Any) -> bytes:
    """One part of a token."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def forged(header: Any, payload: Any, signature: bytes = b"forged") -> bytes:
    """A token as somebody might put it together by hand."""
    return b".".join((encoded(header), encoded(payload), encoded(signature)))


class KeySetServer:
    """Serves a key set, and counts how often it was asked for."""

    def __init__(self, *names: str) -> None:
        self.keys: list[dict[str, Any]] = [public_jwk(name) for name in names]
        self.asked = 0
        self.status = 200
        self.body: bytes | None = None
        self.location = ""
        self.gate = threading.Event()
        self.gate.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/jwks"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """One request."""
        self.asked += 1
        self.gate.wait(20)
        body = self.body if self.body is not None else json.dumps({"keys": self.keys}).encode()
        try:
            handler.send_response(self.status)
            if self.location:
                handler.send_header("location", self.location)
            handler.send_header("content-length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)
        except OSError:
            pass  # whoever asked has gone

    def close(self) -> None:
        """Stop serving."""
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
