"""Which request gets which answer."""

from __future__ import annotations

import base64
import struct
from typing import Any

from tests.upstream import answer, chat, messages, multipart, responses, text
from tests.upstream.answer import Answer
from tests.upstream.faults import Fault
from tests.upstream.request import Request
from tests.upstream.storage import Storage
from tests.upstream.tokens import Tokens, prompt_of

MODELS = ("gpt-4o-mini", "gpt-4o", "o4-mini", "text-embedding-3-small", "whisper-1", "tts-1", "gpt-image-1")
SPEECH = bytes(range(256)) * 16
PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\nmock").decode()


def model_of(request: Request) -> str:
    """The model a request names, "" where it names none."""
    if "multipart/form-data" in request.header("content-type"):
        fields = multipart.parts(request.header("content-type"), bytes(request.body))
        return multipart.value(fields, "model")
    document = request.json()
    named = document.get("model") if isinstance(document, dict) else None
    return named if isinstance(named, str) else request.deployment


def reply(request: Request, fault: Fault, storage: Storage) -> Answer:
    """The answer before the fault spoils it."""
    if fault.status:
        return _failure(fault)
    kept = storage.answer(request)
    if kept is not None:
        return kept
    if request.method == "GET":
        return _get(request)
    if "multipart/form-data" in request.header("content-type"):
        return _form(request)
    document = request.json()
    if request.path in _JSON:
        if not isinstance(document, dict):
            return answer.error(400, "We could not parse the JSON body of your request.")
        document.setdefault("model", request.deployment)
        return _json(request.path, document, fault)
    return echo(request)


def _failure(fault: Fault) -> Answer:
    refused = answer.error(fault.status, f"mock failure {fault.status}", "mock_failure")
    if fault.retry_after:
        refused.headers.append(("Retry-After", fault.retry_after))
    return refused


def echo(request: Request) -> Answer:
    """For paths nobody knows: what arrived."""
    return answer.as_json(
        {
            "object": "echo",
            "method": request.method,
            "target": request.target,
            "size": request.size,
            "sha256": request.digest.hexdigest(),
        }
    )


def _get(request: Request) -> Answer:
    parts = request.path.strip("/").split("/")
    if parts == ["models"]:
        listed = [_model(name) for name in MODELS]
        return answer.as_json({"object": "list", "data": listed})
    if parts[0] == "models":
        known = "/".join(parts[1:]) in MODELS
        return answer.as_json(_model(parts[1])) if known else answer.error(404, "The model does not exist")
    if parts[0] == "responses" and len(parts) == 2:
        return answer.as_json(responses.stored(parts[1]))
    return echo(request)


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": answer.CREATED, "owned_by": "mock"}


_JSON = (
    "/chat/completions",
    "/completions",
    "/responses",
    "/messages",
    "/embeddings",
    "/moderations",
    "/images/generations",
    "/audio/speech",
)


def _json(path: str, document: dict[str, Any], fault: Fault) -> Answer:
    match path:
        case "/chat/completions":
            return chat.chat(document, fault.tokens)
        case "/completions":
            return chat.completion(document, fault.tokens)
        case "/responses":
            return responses.create(document, fault.tokens)
        case "/messages":
            return messages.create(document, fault.tokens)
        case "/embeddings":
            return _embeddings(document)
        case "/moderations":
            return _moderation(document)
        case "/images/generations":
            return _image(document)
    return answer.binary(SPEECH, "audio/mpeg")


def _embeddings(document: dict[str, Any]) -> Answer:
    given = document.get("input", "")
    several = isinstance(given, list) and given and not isinstance(given[0], int)
    vectors = []
    for index in range(len(given) if several else 1):
        values = [(index + step) / 16 for step in range(document.get("dimensions") or 8)]
        vector: Any = values
        if document.get("encoding_format") == "base64":
            vector = base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
        vectors.append({"object": "embedding", "index": index, "embedding": vector})
    prompt = prompt_of(document)
    usage = {"prompt_tokens": prompt, "total_tokens": prompt}
    body = {"object": "list", "data": vectors, "model": document["model"], "usage": usage}
    return answer.as_json(body, model=document["model"], tokens=Tokens(prompt, 0))


def _moderation(document: dict[str, Any]) -> Answer:
    names = ["harassment", "hate", "self-harm", "sexual", "violence", "illicit"]
    result = {
        "flagged": False,
        "categories": dict.fromkeys(names, False),
        "category_scores": dict.fromkeys(names, 0.0),
        "category_applied_input_types": {name: ["text"] for name in names},
    }
    body = {"id": "modr-mock", "model": document.get("model") or "omni-moderation-latest"}
    return answer.as_json({**body, "results": [result]})


def _image(document: dict[str, Any]) -> Answer:
    tokens = Tokens(prompt_of(document), 64)
    usage = {
        "input_tokens": tokens.prompt,
        "input_tokens_details": {"text_tokens": tokens.prompt, "image_tokens": 0},
        "output_tokens": tokens.completion,
        "total_tokens": tokens.prompt + tokens.completion,
    }
    data = [{"b64_json": PIXEL} for _ in range(document.get("n") or 1)]
    body = {"created": answer.CREATED, "data": data, "usage": usage}
    return answer.as_json(body, model=str(document.get("model", "")), tokens=tokens)


def _form(request: Request) -> Answer:
    fields = multipart.parts(request.header("content-type"), bytes(request.body))
    model = multipart.value(fields, "model")
    if request.path == "/images/edits":
        return _image({"model": model, "prompt": multipart.value(fields, "prompt")})
    if request.path not in ("/audio/transcriptions", "/audio/translations"):
        return echo(request)
    said = "".join(text.words(8))
    wish = multipart.value(fields, "response_format")
    if wish in ("text", "srt", "vtt"):
        return answer.Answer(200, [("Content-Type", "text/plain; charset=utf-8")], [said.encode() + b"\n"])
    size = sum(len(part.data) for part in fields if part.name == "file")
    tokens = Tokens(size // 100 + 1, 8)
    usage = {
        "type": "tokens",
        "input_tokens": tokens.prompt,
        "input_token_details": {"text_tokens": 0, "audio_tokens": tokens.prompt},
        "output_tokens": tokens.completion,
        "total_tokens": tokens.prompt + tokens.completion,
    }
    return answer.as_json({"text": said, "usage": usage}, model=model, tokens=tokens)
