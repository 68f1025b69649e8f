"""What a request costs here: counts that follow from the request and the answer alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


def count(text: str) -> int:
    """Tokens of a text: one for every four characters begun. Simple, so that a test can work it out."""
    return (len(text) + 3) // 4


def prompt_of(document: dict[str, Any]) -> int:
    """Tokens of a request: those of what it asks, as compact JSON, and three."""
    asked = {name: document[name] for name in ("messages", "input", "prompt", "tools") if name in document}
    return 3 + count(json.dumps(asked, separators=(",", ":")))


@dataclass(slots=True, frozen=True)
class Tokens:
    """Usage of one call: `cached` is part of `prompt`, `reasoning` is part of `completion`."""

    prompt: int
    completion: int
    cached: int = 0
    reasoning: int = 0

    @classmethod
    def of(cls, document: dict[str, Any], completion: int) -> Tokens:
        """A prompt over 100 tokens is half cached; models named o… think 16 tokens."""
        prompt = prompt_of(document)
        thought = 16 if str(document.get("model", "")).startswith("o") else 0
        return cls(prompt, completion + thought, prompt // 2 if prompt > 100 else 0, thought)

    def chat(self) -> dict[str, Any]:
        """As chat completions say it."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": self.reasoning,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }

    def responses(self) -> dict[str, Any]:
        """As responses say it."""
        return {
            "input_tokens": self.prompt,
            "input_tokens_details": {"cached_tokens": self.cached, "cache_write_tokens": 0},
            "output_tokens": self.completion,
            "output_tokens_details": {"reasoning_tokens": self.reasoning},
            "total_tokens": self.prompt + self.completion,
        }

    def messages(self) -> dict[str, Any]:
        """As messages say it: what is cached stands beside the input."""
        return {
            "input_tokens": self.prompt - self.cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": self.cached,
            "output_tokens": self.completion,
        }

    def kinds(self) -> dict[str, int]:
        """By disjoint kind, named as in the gateway's ledger."""
        return {
            "input": self.prompt - self.cached,
            "cached_input": self.cached,
            "output": self.completion - self.reasoning,
            "reasoning": self.reasoning,
        }
