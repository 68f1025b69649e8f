"""Files and batches: what was uploaded comes back byte for byte."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from tests.upstream import answer, multipart
from tests.upstream.answer import Answer
from tests.upstream.request import Request


@dataclass(slots=True)
class Storage:
    """Uploaded files and made batches, in memory."""

    files: dict[str, tuple[dict[str, Any], bytes]] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)

    def answer(self, request: Request) -> Answer | None:
        """Serve /files and /batches; None for any other path."""
        parts = request.path.strip("/").split("/")
        if parts[0] == "files":
            return self._files(request, parts[1:])
        if parts[0] == "batches":
            return self._batches(request, parts[1:])
        return None

    def _files(self, request: Request, rest: list[str]) -> Answer:
        if not rest:
            return self._upload(request) if request.method == "POST" else self._list()
        if rest[0] not in self.files:
            return answer.error(404, f"No such File object: {rest[0]}")
        document, data = self.files[rest[0]]
        if rest[1:] == ["content"]:
            return answer.binary(data)
        if request.method == "DELETE":
            del self.files[rest[0]]
            return answer.as_json({"id": rest[0], "object": "file", "deleted": True})
        return answer.as_json(document)

    def _list(self) -> Answer:
        documents = [document for document, _ in self.files.values()]
        return answer.as_json({"object": "list", "data": documents, "has_more": False})

    def _upload(self, request: Request) -> Answer:
        fields = multipart.parts(request.header("content-type"), bytes(request.body))
        sent = next((part for part in fields if part.name == "file"), None)
        if sent is None:
            return answer.error(400, "'file' is a required property")
        document = {
            "id": f"file-mock{len(self.files) + 1}",
            "object": "file",
            "bytes": len(sent.data),
            "created_at": answer.CREATED,
            "filename": sent.filename,
            "purpose": multipart.value(fields, "purpose"),
            "status": "processed",
            "expires_at": None,
        }
        self.files[str(document["id"])] = (document, sent.data)
        return answer.as_json(document)

    def _batches(self, request: Request, rest: list[str]) -> Answer:
        if not rest and request.method == "POST":
            return self._make(json.loads(request.body))
        if not rest:
            listed = list(self.batches.values())
            return answer.as_json({"object": "list", "data": listed, "has_more": False})
        batch = self.batches.get(rest[0])
        if batch is None:
            return answer.error(404, f"No batch found with id '{rest[0]}'")
        if rest[1:] == ["cancel"]:
            batch["status"] = "cancelling"
        return answer.as_json(batch)

    def _make(self, document: dict[str, Any]) -> Answer:
        batch = {
            "id": f"batch_mock{len(self.batches) + 1}",
            "object": "batch",
            "endpoint": document["endpoint"],
            "input_file_id": document["input_file_id"],
            "completion_window": document["completion_window"],
            "status": "validating",
            "created_at": answer.CREATED,
            "metadata": document.get("metadata"),
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
        }
        self.batches[str(batch["id"])] = batch
        return answer.as_json(batch)
