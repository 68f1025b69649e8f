"""Tokens by disjoint kind, and where the figures come from."""

from __future__ import annotations

from typing import Any, Final

# Disjoint: a token is counted in exactly one kind, so that a sum is always the true total.
KINDS: Final = ("input", "cached_input", "cache_write", "audio_input", "output", "reasoning", "audio_output")

# provider: the provider said so · counted: here, all texts with the model's own tokenizer · estimated: here,
# with less than that · unknown: nobody knows · none: nobody was asked. A worker says estimated of both.
PROVIDER: Final = "provider"
COUNTED: Final = "counted"
ESTIMATED: Final = "estimated"
UNKNOWN: Final = "unknown"
NONE: Final = "none"


class Usage:
    """Token counts of one call. `source`: where they come from, see above."""

    __slots__ = (*KINDS, "source")

    def __init__(
        self,
        input: int = 0,
        cached_input: int = 0,
        cache_write: int = 0,
        audio_input: int = 0,
        output: int = 0,
        reasoning: int = 0,
        audio_output: int = 0,
        source: str = UNKNOWN,
    ) -> None:
        self.input = input
        self.cached_input = cached_input
        self.cache_write = cache_write
        self.audio_input = audio_input
        self.output = output
        self.reasoning = reasoning
        self.audio_output = audio_output
        self.source = source

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Usage):
            return NotImplemented
        return self.counts() == other.counts() and self.source == other.source

    __hash__ = None  # type: ignore[assignment]  # its counts may change

    def __repr__(self) -> str:
        counts = [f"{kind}={count}" for kind, count in zip(KINDS, self.counts(), strict=True) if count]
        return f"Usage({', '.join([*counts, f'source={self.source!r}'])})"

    @property
    def input_total(self) -> int:
        """All tokens of the prompt, cached or not."""
        return self.input + self.cached_input + self.cache_write + self.audio_input

    @property
    def output_total(self) -> int:
        """All generated tokens, reasoning included."""
        return self.output + self.reasoning + self.audio_output

    @property
    def total(self) -> int:
        """Every token of the call."""
        prompt = self.input + self.cached_input + self.cache_write + self.audio_input
        return prompt + self.output + self.reasoning + self.audio_output  # in one: asked for with each call

    def counts(self) -> tuple[int, ...]:
        """The counts in the order of `KINDS`."""
        return (
            self.input,
            self.cached_input,
            self.cache_write,
            self.audio_input,
            self.output,
            self.reasoning,
            self.audio_output,
        )


_MOST: Final = 1 << 40  # more is no count; the ledger takes no more either


def _count(value: Any) -> int:
    return value if type(value) is int and 0 <= value < _MOST else 0


def from_openai(raw: Any) -> Usage | None:
    """Usage from OpenAI's `usage` object, of either API; None where it is not one, or not with real counts.

    Chat: prompt_tokens includes cached_tokens, cache_write_tokens and audio_tokens, completion_tokens
    includes reasoning_tokens and audio_tokens. Responses: input_tokens and output_tokens likewise.
    Source: OpenAI API reference, objects CompletionUsage and ResponseUsage. Many a compatible server has
    Anthropic's form too (/v1/messages), which is told by what it says of its cache.
    """
    if type(raw) is not dict:
        return None
    prompt = raw.get("prompt_tokens")
    if prompt is None:
        prompt = raw.get("input_tokens")
        apart = "cache_read_input_tokens" in raw or "cache_creation_input_tokens" in raw
        if apart and type(prompt) is int and not raw.get("input_tokens_details"):
            return _from_anthropic(raw)
    completion = raw.get("completion_tokens")
    if completion is None:
        completion = raw.get("output_tokens", 0)
    if completion is None:
        completion = 0
    if type(prompt) is not int or type(completion) is not int:
        return None
    if not (0 <= prompt < _MOST and 0 <= completion < _MOST):
        return None
    inside = raw.get("prompt_tokens_details") or raw.get("input_tokens_details")
    inside = inside or raw.get("input_token_details")  # so spelt for transcriptions
    outside = raw.get("completion_tokens_details") or raw.get("output_tokens_details")
    if not inside and not outside:
        return Usage(prompt, 0, 0, 0, completion, 0, 0, PROVIDER)
    cached = written = heard = thought = spoken = 0
    if inside and isinstance(inside, dict):
        if told := inside.get("cached_tokens"):
            cached = min(_count(told), prompt)
        if told := inside.get("cache_write_tokens"):
            written = min(_count(told), prompt - cached)
        if told := inside.get("audio_tokens"):
            heard = min(_count(told), prompt - cached - written)
    if outside and isinstance(outside, dict):
        if told := outside.get("reasoning_tokens"):
            thought = min(_count(told), completion)
        if told := outside.get("audio_tokens"):
            spoken = min(_count(told), completion - thought)
    input, output = prompt - cached - written - heard, completion - thought - spoken
    return Usage(input, cached, written, heard, output, thought, spoken, PROVIDER)


def _from_anthropic(raw: dict[str, Any]) -> Usage:
    """Anthropic's `usage` object: what was read from the cache and written to it is not in input_tokens.

    Thinking is in output_tokens, and nowhere told apart. Source: Anthropic API reference, Messages, Usage.
    """
    prompt, completion = _count(raw.get("input_tokens")), _count(raw.get("output_tokens"))
    cached, written = (
        _count(raw.get("cache_read_input_tokens")),
        _count(raw.get("cache_creation_input_tokens")),
    )
    return Usage(prompt, cached, written, 0, completion, 0, 0, PROVIDER)
