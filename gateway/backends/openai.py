"""OpenAI, and every server that speaks its language: this one with another `base_url`."""

from __future__ import annotations

from gateway.backends.base.http import HttpBackend


class OpenAIBackend(HttpBackend):
    """The client's path below `base_url`, the key as a bearer token, the body as it came."""

    kind = "openai"
