"""The recording provider as a process of its own, and its journal."""

from __future__ import annotations

import base64
import json
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.e2e.running import Running, until


class Arrived:
    """One request as the provider recorded it; times are seconds of the monotonic clock."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.method: str = document["method"]
        self.target: str = document["target"]
        self.headers: list[tuple[str, str]] = [(name.lower(), value) for name, value in document["headers"]]
        self.body: bytes = base64.b64decode(document["body"] or "")
        self.size: int = document["size"]
        self.sha256: str = document["sha256"]
        self.finished: bool = document["finished_at"] > 0
        self.aborted_at: float = document["aborted_at"]
        self.status: int = document["status"]
        self.usage: dict[str, int] = document["usage"]
        self.model: str = document["model"]

    def header(self, name: str) -> str | None:
        """A header's only value; None where it is absent. Twice is a fault."""
        found = [value for key, value in self.headers if key == name]
        assert len(found) < 2, f"{name} arrived {len(found)} times"
        return found[0] if found else None

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Provider(Running):
    """`python -m tests.upstream` on a free port."""

    def __init__(self, directory: Path, key: str, name: str = "provider", *more: str) -> None:
        self.key = key
        command = [sys.executable, "-m", "tests.upstream", "--key", key, *more]
        super().__init__(command, directory / f"{name}.log")
        until(f"{name} listens", lambda: "listening on" in self.output() or not self.alive)
        self.address = self.output().split("listening on ")[1].strip()
        self.url = f"http://{self.address}"

    def control(self, method: str, path: str, document: Any = None) -> Any:
        """One control request."""
        body = None if document is None else json.dumps(document).encode()
        request = urllib.request.Request(self.url + path, body, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def journal(self) -> list[Arrived]:
        """Every request since the last reset."""
        return [Arrived(entry) for entry in self.control("GET", "/__journal")["entries"]]

    def malformed(self) -> list[dict[str, Any]]:
        """What arrived and was no HTTP request."""
        found: list[dict[str, Any]] = self.control("GET", "/__journal")["malformed"]
        return found

    def marked(self, mark: str) -> list[Arrived]:
        """The requests whose target, headers or body contain a mark."""
        found = self.control("GET", "/__journal?" + urlencode({"mark": mark}))
        return [Arrived(entry) for entry in found["entries"]]

    def only(self, mark: str) -> Arrived:
        """The one request with a mark."""
        found = self.marked(mark)
        assert len(found) == 1, f"{len(found)} requests with {mark!r}"
        return found[0]

    def wait_for(self, mark: str, true: Callable[[Arrived], object], limit: float = 60.0) -> Arrived:
        """The one request with a mark, once something holds of it."""
        until(f"{mark} as expected", lambda: any(true(one) for one in self.marked(mark)), limit)
        return self.only(mark)

    def reset(self) -> None:
        """Forget what came, and the faults."""
        self.control("POST", "/__reset")

    def spoil(self, fault: str, times: int = -1, **match: str) -> None:
        """Spoil the answers to requests that match."""
        self.control("PUT", "/__fault", {"match": match, "fault": fault, "times": times})
