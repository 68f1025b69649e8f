"""How many tokens a prompt may have: never fewer than it has, for whatever people really send."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.prompt import density, measure
from gateway.core.tokens import count

ROOT = Path(__file__).parents[2]
DRAW = random.Random(7)

TEXTS = {
    "english": (ROOT / "README.md").read_text(),
    "python": (ROOT / "gateway" / "link" / "stock.py").read_text(),
    "chinese": "人工智能正在改变世界。我们需要更好的工具来管理大型语言模型的成本。今天的天气很好。" * 10,
    "japanese": "大規模言語モデルの利用コストを管理するためには、適切なゲートウェイが必要です。" * 10,
    "korean": "대규모 언어 모델의 비용을 관리하려면 적절한 게이트웨이가 필요합니다. " * 10,
    "russian": "Сегодня хорошая погода, и мы идём гулять. " * 20,
    "arabic": "اليوم الطقس جميل ونحن ذاهبون للتنزه. تتطلب النماذج اللغوية الكبيرة مراقبة. " * 10,
    "hindi": "आज मौसम अच्छा है और हम टहलने जा रहे हैं। " * 20,
    "figures": "\n".join(",".join(f"{DRAW.random():.4f}" for _ in range(8)) for _ in range(60)),
    "base64": base64.b64encode(DRAW.randbytes(1500)).decode(),
    "hex": DRAW.randbytes(1500).hex(),
    "log": "\n".join(
        f"2026-11-21T05:0{n % 10}:12Z INFO worker[{n}] GET /x?id={DRAW.getrandbits(64):x} 200"
        for n in range(40)
    ),
    "emoji": "😀🎉🚀👍🏽 " * 40,
}


def chat(text: str, escaped: bool = False) -> tuple[bytes, dict[str, Any]]:
    document = {"model": "gpt-4o", "messages": [{"role": "user", "content": text}]}
    return json.dumps(document, ensure_ascii=escaped).encode(), document


@pytest.mark.parametrize("escaped", [False, True])
@pytest.mark.parametrize("kind", TEXTS)
def test_the_most_is_no_less_than_what_a_tokenizer_counts(kind: str, escaped: bool) -> None:
    body, document = chat(TEXTS[kind], escaped)
    truth = max(count("gpt-4o", TEXTS[kind]), count("gpt-4", TEXTS[kind]))
    assert measure(body, document).most >= truth


@pytest.mark.parametrize("kind", TEXTS)
def test_the_likely_count_is_close_and_seldom_too_small(kind: str) -> None:
    body, document = chat(TEXTS[kind])
    truth = max(count("gpt-4o", TEXTS[kind]), count("gpt-4", TEXTS[kind]))
    assert 0.9 * truth <= measure(body, document).at(density(body)) <= 2.5 * truth


@given(st.binary(max_size=20_000))
def test_any_bytes_have_a_density_within_bounds(data: bytes) -> None:
    assert 0.0 <= density(data) <= 23 / 32


def part(**rest: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, rest]}]}


def test_an_image_counts_as_one_wherever_its_bytes_are() -> None:
    data = "data:image/png;base64," + "A" * 100_000
    linked = part(type="image_url", image_url={"url": "https://host/cat.png"})
    inline = part(type="image_url", image_url={"url": data})
    for document in (linked, inline):
        body = json.dumps(document).encode()
        assert 4000 <= measure(body, document).most < 4500
    assert measure(body, document, "gpt-4o-mini").most > 48_000


def test_a_file_counts_by_its_length() -> None:
    document = part(type="file", file={"file_data": "data:application/pdf;base64," + "A" * 480_000})
    assert measure(json.dumps(document).encode(), document).most >= 20_000


@pytest.mark.parametrize(
    "document",
    [{}, {"messages": 3}, {"messages": [1, "x", {"content": 4}]}, {"input": "text"}, {"input": [{"a": 1}]},
     {"messages": [{"content": [1, {"type": []}, {"content": [{"type": "image"}]}]}]}],
    ids=["empty", "number", "mixed", "text", "parts", "nested"],
)  # fmt: skip
def test_odd_documents_are_measured_all_the_same(document: dict[str, Any]) -> None:
    assert measure(json.dumps(document).encode(), document).most > 0


def test_of_a_small_body_only_the_text_counts_and_with_tools_all_of_it() -> None:
    plain = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi ü"}], "max_tokens": 12}
    tools = {**plain, "tools": [{"type": "function", "function": {"name": "look"}}]}
    named = {**plain, "messages": [{"role": "user", "content": "hi", "name": "x" * 90}]}
    assert measure(json.dumps(plain, ensure_ascii=False).encode(), plain).size == 5
    assert measure(json.dumps(tools).encode(), tools).size == len(json.dumps(tools))
    assert measure(json.dumps(named).encode(), named).size > 90


@pytest.mark.parametrize("depth", [500, 900, 1010])
def test_a_message_with_something_deep_in_it_is_measured(depth: int) -> None:
    nested: Any = []
    for _ in range(depth):
        nested = [nested]
    message = {"role": "user", "content": "hi", "name": "x", "more": nested}
    data = b" " * 2 * depth
    assert measure(data, {"model": "m", "messages": [message]}).size == min(2 * depth, len(data))


def test_what_else_a_message_says_counts_too() -> None:
    plain, named = (
        {"role": "user", "content": "hello"},
        {"role": "user", "content": "hello", "name": "é" * 50},
    )
    data = b" " * 1000
    assert measure(data, {"model": "m", "messages": [plain]}).size == 5
    assert measure(data, {"model": "m", "messages": [named]}).size > 105
