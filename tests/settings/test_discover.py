from __future__ import annotations

import fnmatch

import pytest

from gateway.settings.faults import ConfigError
from gateway.settings.load import load
from gateway.settings.schema import Settings


def backend_for(settings: Settings, model: str) -> str:
    """The backend that answers for a name: exact, then the longest glob."""
    rules = sorted(settings.models, key=lambda rule: -len(rule.name))
    return next(rule.targets[0].backend for rule in rules if fnmatch.fnmatchcase(model, rule.name))


def test_without_provider_keys_the_echo_backend_answers() -> None:
    settings = load(None, {})
    assert settings.backends["echo"].kind == "echo" and backend_for(settings, "anything/at:all") == "echo"
    assert settings.auth.mode == "keys"


@pytest.mark.parametrize(
    ("variable", "name", "host"),
    [
        ("OPENAI_API_KEY", "openai", "api.openai.com"),
        ("ANTHROPIC_API_KEY", "anthropic", "api.anthropic.com"),
        ("GEMINI_API_KEY", "gemini", "generativelanguage.googleapis.com"),
        ("GROQ_API_KEY", "groq", "api.groq.com"),
        ("MISTRAL_API_KEY", "mistral", "api.mistral.ai"),
        ("DEEPSEEK_API_KEY", "deepseek", "api.deepseek.com"),
        ("OPENROUTER_API_KEY", "openrouter", "openrouter.ai"),
        ("TOGETHER_API_KEY", "together", "api.together.xyz"),
        ("XAI_API_KEY", "xai", "api.x.ai"),
    ],
)
def test_the_only_provider_serves_every_model(variable: str, name: str, host: str) -> None:
    settings = load(None, {variable: "sk-canary"})
    backend = settings.backends[name]
    assert list(settings.backends) == [name] and backend.kind == "openai"
    assert backend.base_url.startswith(f"https://{host}/") and backend.api_keys[0].reveal() == "sk-canary"
    assert backend_for(settings, "any-model") == name and "canary" not in repr(settings)


def test_each_name_goes_to_the_provider_whose_it_is() -> None:
    names = ("OPENAI", "ANTHROPIC", "GEMINI", "MISTRAL", "GROQ", "DEEPSEEK", "XAI", "OPENROUTER")
    settings = load(None, {f"{name}_API_KEY": "sk-1" for name in names})
    wanted = {
        "gpt-4o": "openai",
        "claude-sonnet-4-5": "anthropic",
        "gemini-2.5-pro": "gemini",
        "mistral-large-latest": "mistral",
        "codestral-latest": "mistral",
        "llama-3.3-70b-versatile": "groq",
        "deepseek-chat": "deepseek",
        "grok-4": "xai",
        "meta-llama/llama-4-scout": "openrouter",
        "something-new": "openai",
    }
    assert {model: backend_for(settings, model) for model in wanted} == wanted


def test_base_urls_can_be_moved() -> None:
    settings = load(None, {"OPENAI_API_KEY": "sk", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1/"})
    assert settings.backends["openai"].base_url == "http://127.0.0.1:9/v1"


def test_azure_needs_its_endpoint() -> None:
    assert list(load(None, {"AZURE_OPENAI_API_KEY": "k"}).backends) == ["echo"]
    environ = {"AZURE_OPENAI_API_KEY": "k", "AZURE_OPENAI_ENDPOINT": "https://n.openai.azure.com/"}
    azure = load(None, environ | {"OPENAI_API_VERSION": "2024-10-21"}).backends["azure"]
    assert (azure.kind, azure.base_url, azure.api_version) == (
        "azure",
        "https://n.openai.azure.com",
        "2024-10-21",
    )


def test_a_bad_variable_is_a_fault_that_shows_no_secret() -> None:
    with pytest.raises(ConfigError) as refused:
        load(None, {"OPENAI_API_KEY": "sk canary\n", "OPENAI_BASE_URL": "canary"})
    assert [fault.path for fault in refused.value.faults] == ["OPENAI_BASE_URL", "OPENAI_API_KEY"]
    assert "canary" not in str(refused.value)


def test_the_gateway_does_not_ask_itself() -> None:
    """Clients set OPENAI_BASE_URL to the gateway; a gateway started in the same shell would see it."""
    with pytest.raises(ConfigError, match="circle"):
        load(None, {"OPENAI_API_KEY": "sk", "OPENAI_BASE_URL": "http://localhost:8080/v1"})


def test_an_empty_variable_is_none() -> None:
    assert list(load(None, {"OPENAI_API_KEY": ""}).backends) == ["echo"]
