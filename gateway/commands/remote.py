"""The admin API over HTTP: of the gateway that runs on this host."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from gateway.commands.client import Document, Told
from gateway.commands.output import Refused
from gateway.settings import address
from gateway.settings.kinds import Wrong
from gateway.settings.schema import Settings
from gateway.supervisor.operators import ADDRESS, FILE, VARIABLE

_PREFIX = "/admin/v1"
_LOOK = 3.0  # seconds to find out whether anybody is there
_PATIENCE = 40.0  # seconds for an answer; the gateway takes 30 at most
_LARGEST = 64 << 20  # bytes of an answer


class _OverSocket(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Remote:
    """Asks the gateway that has this data_dir, where it noted its admin port, with this host's admin token.

    Where it noted none, the address is the configuration's.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._data = Path(settings.server.data_dir)
        self.where = self._noted() or settings.server.admin

    def _noted(self) -> str:
        """The options of `serve` win over the file, and at the file's address somebody else may listen."""
        try:
            text = (self._data / ADDRESS).read_text("utf-8").strip()
            address.parse(text)
            return text
        except (OSError, ValueError, Wrong):
            return ""

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        found = address.parse(self.where)
        if found.path:
            return _OverSocket(found.path, timeout)
        loopback = "::1" if ":" in found.host else "127.0.0.1"
        return http.client.HTTPConnection(
            loopback if found.everywhere else found.host, found.port, timeout=timeout
        )

    def there(self) -> bool:
        """Whether a gateway answers. No token is shown to it yet."""
        connection = self._connection(_LOOK)
        try:
            connection.request("GET", "/healthz")
            answer = connection.getresponse()
            return answer.status == 200 and b'"ok"' in answer.read(1024)
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def ask(
        self,
        method: str,
        *path: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        version: int | str | None = None,
    ) -> Document:
        """One operation. Raises `Told` where it is refused, `Refused` where there is no answer."""
        target = "/".join([_PREFIX, *(quote(piece, safe="") for piece in path)])
        if query:
            target += "?" + urlencode(query)
        headers = {"authorization": f"Bearer {self._token()}"}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["content-type"] = "application/json"
        if version is not None:
            headers["if-match"] = f'"v{version}"' if isinstance(version, int) else f'"{version}"'
        if method == "POST":
            headers["idempotency-key"] = secrets.token_hex(16)  # asked twice, done once
        return self._answer(*self._twice(method, target, data, headers))

    def _token(self) -> str:
        given = os.environ.get(VARIABLE, "").strip()
        token = given or self._kept()
        if not token.isascii() or not token.isprintable():
            source = VARIABLE if given else self._data / FILE
            raise Refused(f"{source} must hold printable ASCII characters")
        return token

    def _kept(self) -> str:
        """What the gateway has put down for commands on this host."""
        file = self._data / FILE
        try:
            return file.read_text("utf-8", "replace").strip()
        except OSError as error:
            raise Refused(
                f"the gateway runs, and its admin token is not known here: set {VARIABLE} to the one it was "
                f"started with, or run this as who can read {file} ({(error.strerror or '').lower()})"
            ) from None

    def _twice(
        self, method: str, target: str, data: bytes | None, headers: dict[str, str]
    ) -> tuple[int, bytes]:
        """Once more where the connection broke: for a moment nobody listens where a gateway is restarted."""
        try:
            return self._once(method, target, data, headers)
        except (ConnectionError, http.client.RemoteDisconnected):
            pass
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from None
        try:
            return self._once(method, target, data, headers)
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from None

    def _once(
        self, method: str, target: str, data: bytes | None, headers: dict[str, str]
    ) -> tuple[int, bytes]:
        connection = self._connection(_PATIENCE)
        try:
            connection.request(method, target, data, headers)
            answer = connection.getresponse()
            return answer.status, answer.read(_LARGEST)
        finally:
            connection.close()

    def _lost(self, error: Exception) -> Refused:
        why = f"no answer in {_PATIENCE:g} s" if isinstance(error, TimeoutError) else str(error)
        return Refused(
            f"the gateway at {self.where} did not answer ({why}); "
            "look whether it has been done before you ask again"
        )

    def _answer(self, status: int, data: bytes) -> Document:
        try:
            document = json.loads(data)
            if status < 400 and isinstance(document, dict):
                return document
            error = document["error"]
            told = Told(str(error["message"]), str(error["code"]), str(error.get("param") or ""))
        except (ValueError, TypeError, KeyError):
            raise Refused(
                f"what answers at {self.where} is not the admin API of this version (HTTP {status})"
            ) from None
        if status == 401:
            source = VARIABLE if os.environ.get(VARIABLE, "").strip() else str(self._data / FILE)
            raise Told(
                f"the gateway at {self.where} does not know the admin token from {source}; "
                f"set {VARIABLE} to the one that it was started with",
                told.code,
            )
        raise told
