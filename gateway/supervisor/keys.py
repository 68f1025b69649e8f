"""The very first key, and how to use it."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.ports import Ledger
from gateway.core.principal import mint
from gateway.core.records import Actor
from gateway.settings.schema import Settings


def first(ledger: Ledger, settings: Settings) -> str:
    """Make a key where nobody could call without one, and there has never been one: its secret, or ""."""
    if settings.auth.mode != "keys" or settings.auth.jwt or settings.keys or ledger.keys():
        return ""
    secret, entry = mint("first")
    ledger.add_key(entry, Actor("config", name="first start"))
    return secret


def model_to_try(settings: Settings) -> str:
    """A model name that will work, for the examples."""
    exact = [rule.name for rule in settings.models if not rule.glob]
    return exact[0] if exact else "gpt-4o-mini"


def welcome(secret: str, url: str, settings: Settings) -> str:
    """What is printed once, with the first key: how to use it right now."""
    model = model_to_try(settings)
    unix = url.startswith("unix:")
    base = "http://localhost" if unix else url
    socket = f"--unix-socket {url.removeprefix('unix:')} " if unix else ""
    client = f'OpenAI(base_url="{base}/v1", api_key="{secret}"'
    if unix:
        path = url.removeprefix("unix:")
        client += f', http_client=httpx.Client(transport=httpx.HTTPTransport(uds="{path}"))'
    imports: Sequence[str] = ["import httpx"] * unix + ["from openai import OpenAI"]
    return "\n".join(
        [
            "",
            f"A first key was made; it is shown only now:  {secret}",
            "",
            f"  curl {socket}{base}/v1/chat/completions -H 'Authorization: Bearer {secret}' \\",
            "    -H 'Content-Type: application/json' \\",
            f'    -d \'{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello"}}]}}\'',
            "",
            *(f"  {line}" for line in imports),
            f"  client = {client})",
            '  messages = [{"role": "user", "content": "Hello"}]',
            f'  answer = client.chat.completions.create(model="{model}", messages=messages)',
            "  print(answer.choices[0].message.content)",
            "",
        ]
    )
