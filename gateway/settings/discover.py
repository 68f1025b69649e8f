"""Without [backends]: provider keys in the environment become backends, and every model name works."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.core.route import ModelRule, Target
from gateway.settings.faults import Fault
from gateway.settings.kinds import Reading, Wrong
from gateway.settings.schema import BackendSettings
from gateway.settings.secret import Secret
from gateway.settings.upstream import check_url


@dataclass(slots=True, frozen=True)
class Provider:
    """A provider with an OpenAI-compatible API. `globs` are names that are certainly its own."""

    name: str
    key: str
    base_url: str
    globs: tuple[str, ...] = ()
    url_from: str = ""  # a variable that moves base_url
    stream_usage: bool = True


# In the order in which one becomes the target of "*". Those that resell others' models come last.
PROVIDERS = (
    Provider("openai", "OPENAI_API_KEY", "https://api.openai.com/v1", url_from="OPENAI_BASE_URL"),
    Provider("azure", "AZURE_OPENAI_API_KEY", "", url_from="AZURE_OPENAI_ENDPOINT"),
    Provider("anthropic", "ANTHROPIC_API_KEY", "https://api.anthropic.com/v1", ("claude-*",)),
    Provider(
        "gemini",
        "GEMINI_API_KEY",
        "https://generativelanguage.googleapis.com/v1beta/openai",
        ("gemini-*", "models/gemini-*"),
    ),
    Provider(
        "mistral",
        "MISTRAL_API_KEY",
        "https://api.mistral.ai/v1",
        (
            "mistral-*",
            "codestral*",
            "ministral-*",
            "magistral-*",
            "devstral-*",
            "pixtral-*",
            "open-mi*tral-*",
        ),
        stream_usage=False,  # it sends usage unasked and refuses unknown fields
    ),
    Provider("groq", "GROQ_API_KEY", "https://api.groq.com/openai/v1", ("llama-*",)),
    Provider("deepseek", "DEEPSEEK_API_KEY", "https://api.deepseek.com/v1", ("deepseek-*",)),
    Provider("xai", "XAI_API_KEY", "https://api.x.ai/v1", ("grok-*",)),
    Provider("together", "TOGETHER_API_KEY", "https://api.together.xyz/v1", ("*/*",)),
    Provider("openrouter", "OPENROUTER_API_KEY", "https://openrouter.ai/api/v1", ("*/*",)),
)

ECHO = BackendSettings(name="echo", kind="echo")


def backends(reading: Reading) -> dict[str, BackendSettings]:
    """A backend for each provider whose key is set; `echo` where there is none."""
    found = {}
    for provider in PROVIDERS:
        backend = _backend(provider, reading)
        if backend is not None:
            found[backend.name] = backend
    return found or {ECHO.name: ECHO}


def models(found: Mapping[str, BackendSettings]) -> tuple[ModelRule, ...]:
    """`*` for the first backend, and the names that are certainly another's."""
    first = next(iter(found))
    rules = {"*": ModelRule("*", (Target(first),))}
    for provider in PROVIDERS:
        if provider.name in found and provider.name != first:
            for glob in provider.globs:
                rules.setdefault(glob, ModelRule(glob, (Target(provider.name),)))
    return tuple(rules.values())


def _backend(provider: Provider, reading: Reading) -> BackendSettings | None:
    environ = reading.environ
    key = environ.get(provider.key, "")
    base_url = (environ.get(provider.url_from) if provider.url_from else "") or provider.base_url
    if not key or not base_url:
        return None
    try:
        check_url(base_url)
    except Wrong as wrong:
        reading.faults.append(Fault("environment", 0, 0, provider.url_from, str(wrong)))
    if not key.isascii() or not key.isprintable() or key != key.strip():
        told = "the secret must be printable ASCII on one line, without blanks at its ends"
        reading.faults.append(Fault("environment", 0, 0, provider.key, told))
    reading.named.append(provider.key)
    return BackendSettings(
        name=provider.name,
        kind="azure" if provider.name == "azure" else "openai",
        base_url=base_url.rstrip("/"),
        api_keys=(Secret(key, f"env:{provider.key}"),),
        stream_usage=provider.stream_usage,
        api_version=environ.get("OPENAI_API_VERSION", "") if provider.name == "azure" else "",
    )
