"""How many tokens a request's prompt may have, before anybody has counted them: for reservations.

Byte-pair encodings make of English prose and of code a token of 4 bytes, of text in other scripts one of 2.5
to 10, and of what is densest in practice (columns of figures, base64, random identifiers) one of 1.4.
Measured with o200k and cl100k; tests/core/test_prompt.py holds the figures. Only made-up text is denser.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from gateway.core.tokens import estimate

DENSEST: Final = 23 / 32  # tokens a byte
LEAST: Final = 0.25  # that is guessed of a text
_SPARSEST: Final = 16  # bytes a token: no text has more on the whole
_FRAME: Final = 16  # tokens that are in no text: roles, and what begins an answer
_PER_MESSAGE: Final = 4
_SAMPLE: Final = 4096  # bytes at the beginning, in the middle and at the end of a long body

# Of a small body its envelope is the most: with these members alone, only the text of its messages counts.
_SMALL: Final = 2048
_PLAIN: Final = frozenset(
    (
        "model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "temperature",
        "top_p", "n", "seed", "stop", "user", "presence_penalty", "frequency_penalty", "logprobs",
        "top_logprobs", "parallel_tool_calls", "service_tier", "store",
    )
)  # fmt: skip

_LETTERS: Final = bytes(range(65, 91)) + bytes(range(97, 123))
_DIGITS: Final = b"0123456789"
_HIGH: Final = bytes(range(128, 256))
_OTHERS: Final = b"!#$%&'()*+,-./:;<=>?@[\\]^_`{|}~\"\n\r\t"

# What attachments come to. An image is at most 2,500 tokens by the providers' rules for their large models;
# gpt-4o-mini counts 33 times as many for one.
_IMAGE: Final = 4000
_IMAGES: Final = {"gpt-4o-mini": 48_500}
_FILE: Final = 4000  # at least, and a token for each 24 characters of base64
_ENCODED: Final = (
    re.compile(rb"base64,[A-Za-z0-9+/]{512,}+"),
    re.compile(rb'"(?:data|file_data)":[ ]?"[A-Za-z0-9+/]{512,}+'),
)
_PICTURES: Final = frozenset(("image_url", "input_image", "image"))
_FILES: Final = frozenset(("file", "input_file", "document", "input_audio", "audio", "video", "video_url"))


class Prompt(NamedTuple):
    """Bytes of text, messages, and the tokens that attachments may come to."""

    size: int
    messages: int = 0
    attached: int = 0

    @property
    def most(self) -> int:
        """Tokens, at the density of the densest text there is in practice."""
        return (self.size * 23 >> 5) + _PER_MESSAGE * self.messages + _FRAME + self.attached

    def at(self, density: float) -> int:
        """Tokens at so many of them per byte."""
        return int(self.size * density) + _PER_MESSAGE * self.messages + _FRAME + self.attached


def measure(data: bytes, document: dict[str, Any], model: str = "") -> Prompt:
    """A JSON body, whose parsed form is `document`."""
    messages = document.get("messages")
    if messages is None:
        messages = document.get("input")
        if type(messages) is not list:
            return Prompt(len(data))
    if type(messages) is not list:
        return Prompt(len(data))
    if len(messages) <= 512:
        for each in messages:
            if type(each) is not dict or type(each.get("content")) is not str:
                break
        else:
            size = len(data)
            if size < _SMALL and _PLAIN.issuperset(document):
                texts = [_bytes(each, size) for each in messages]
                size = min(size, sum(texts))
            return Prompt(size, len(messages))
    return _attached(data, messages, model)


def _bytes(message: dict[str, Any], most: int) -> int:
    """The text of a message whose content is text; what else it has counts too. `most` if that is nested."""
    text: str = message["content"]
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    if len(message) == 2:
        return size
    for name, value in message.items():
        if type(value) is str or value is None:
            size += len(name) + 6
            if value is not None and name != "content":
                size += len(value.encode("utf-8", "surrogatepass"))
        else:
            return most
    return size


def _attached(data: bytes, messages: list[Any], model: str) -> Prompt:
    encoded = 0
    if len(data) >= 512:
        encoded = sum([len(found) for pattern in _ENCODED for found in pattern.findall(data)])
    pictures = files = 0
    for part in _parts(messages):
        kind = part.get("type")
        if type(kind) is str:
            pictures += kind in _PICTURES
            files += kind in _FILES
    tokens = pictures * _IMAGES.get(model, _IMAGE) + files * _FILE
    if encoded:
        tokens = max(tokens, _FILE, encoded // 24 if files or not pictures else 0)
    return Prompt(len(data) - encoded, len(messages), tokens)


def _parts(messages: list[Any]) -> Iterator[dict[str, Any]]:
    """Everything that has a type: messages, their parts, and the parts of what a tool gave back."""
    for message in messages:
        if type(message) is dict:
            yield message
            for part in _content(message):
                yield part
                yield from _content(part)


def _content(value: dict[str, Any]) -> list[dict[str, Any]]:
    content = value.get("content")
    return [each for each in content if type(each) is dict] if type(content) is list else []


def guessed(data: bytes, document: dict[str, Any] | None, model: str) -> int:
    """Tokens of a prompt that was used and nobody has counted: by the kinds of its characters.

    A quarter of the bytes would be far too little for figures and other scripts.
    """
    if document is not None:
        prompt = measure(data, document, model)
        if not prompt.attached:
            return prompt.at(max(density(data), LEAST))
    return estimate(data)


def guessed_text(text: bytes) -> int:
    """The same of an answer's text."""
    return int(len(text) * max(density(text), LEAST))


def believable(output: int, size: int) -> bool:
    """Whether an answer with so many bytes of text can have had so few tokens when a stream stated them.

    Many providers state zeros, or what there was at first, until the end.
    """
    return output * _SPARSEST >= size


def density(data: bytes) -> float:
    """Tokens per byte of a text, by the kinds of characters it is made of: rather too many than too few.

    Long texts are sampled.
    """
    if len(data) > 3 * _SAMPLE:
        middle = len(data) // 2
        data = data[:_SAMPLE] + data[middle : middle + _SAMPLE] + data[-_SAMPLE:]
    size = len(data)
    if not size:
        return 0.0
    letters = size - len(data.translate(None, _LETTERS))
    digits = size - len(data.translate(None, _DIGITS))
    high = size - len(data.translate(None, _HIGH))
    others = size - len(data.translate(None, _OTHERS))
    escapes = data.count(b"\\u")
    if escapes * 12 > size:  # other scripts, six bytes a character
        return min(0.27, DENSEST)
    spaces = data.count(b" ") + data.count(b"\\n")
    words = letters * 0.2 if spaces * 16 >= letters else letters * 0.7  # no words: identifiers, base64
    tokens = words + digits * 0.8 + others * 0.75 + spaces * 0.05
    tokens += high * 0.45 + data.count(b"\xf0")  # the latter begins what is four bytes long: emoji
    return min(tokens / size, DENSEST)
