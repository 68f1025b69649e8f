from __future__ import annotations

import hashlib
import os
import pickle
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.core.cost import Price
from gateway.core.limit import LimitRule
from gateway.core.route import ModelRule, Target
from gateway.settings.faults import ConfigError
from gateway.settings.load import load
from gateway.settings.schema import Auth, BackendSettings, Bounds, Deadlines, Observe, Server, Settings, State

ROOT = Path(__file__).parents[2]
EVERYTHING = ROOT / "tests" / "golden" / "config" / "valid-everything.toml"
ENVIRON = {"SECRET": "sk-one", "OTHER": "sk-two"}


def read(directory: Path, text: str, environ: Mapping[str, str] = ENVIRON) -> Settings:
    """Load a text as gateway.toml in a directory."""
    file = directory / "gateway.toml"
    file.write_text(text)
    return load(file, environ)


def test_every_section_arrives_as_it_was_written() -> None:
    settings = load(EVERYTHING, ENVIRON)
    here = EVERYTHING.parent
    assert settings.server == Server(
        listen="0.0.0.0:8080",
        admin="[::1]:9090",
        workers=2,
        data_dir=str(here / "var"),
        bounds=Bounds(1 << 20, 16 << 10, 0.5, 60.0, 1.5, 10, 0.0, 1 << 30),
    )
    assert settings.state == State() and settings.auth == Auth("open", True)
    assert settings.observe == Observe(str(here / "calls.log"), "debug")
    assert settings.path == str(EVERYTHING) and re.fullmatch("[0-9a-f]{12}", settings.revision)
    assert settings.warnings == ()


def test_keys_are_kept_as_digests_with_stable_ids() -> None:
    ci, hashed, part = load(EVERYTHING, ENVIRON).keys
    assert ci.digest == hashlib.sha256(b"sk-one").digest()
    assert (ci.tenant, ci.team, ci.user, ci.roles) == ("acme", "search", "bot", ("caller",))
    assert (ci.models, ci.endpoints, ci.tags) == (("gpt-*",), ("chat/*",), ("nightly",))
    assert ci.expires == datetime(2999, 1, 1, tzinfo=UTC).timestamp()
    assert hashed.digest.hex().startswith("9f86d081")
    assert hashed.expires == datetime(2999, 1, 1, 10, tzinfo=UTC).timestamp()
    assert part.name == "from a part" and part.origin == "file"
    rotated = load(EVERYTHING, ENVIRON | {"SECRET": "sk-three"}).keys[0]
    assert rotated.id == ci.id and rotated.digest != ci.digest


def test_a_hash_may_be_written_in_capitals_and_is_never_taken_for_a_secret(tmp_path: Path) -> None:
    now, before = hashlib.sha256(b"sk-now").hexdigest(), hashlib.sha256(b"sk-before").hexdigest()
    text = f"""
        [[keys]]
        name = "ci"
        hash = "sha256:{now.upper()}"
        previous = "sha256:{before.upper()}"
        previous_until = 2999-01-01
    """
    settings = read(tmp_path, text)
    assert [(key.digest.hex(), key.previous.hex()) for key in settings.keys] == [(now, before)]
    assert settings.warnings == ()
    with pytest.raises(ConfigError, match="64 hexadecimal digits") as refused:
        read(tmp_path, text.replace(before.upper(), before[1:]))
    assert [fault.path for fault in refused.value.faults] == ["keys[0].previous"]


def test_backends_carry_their_secrets_unprintably() -> None:
    settings = load(EVERYTHING, ENVIRON)
    openai, azure = settings.backends["openai"], settings.backends["azure-eu"]
    assert [key.reveal() for key in openai.api_keys] == ["sk-one", "sk-from-a-file"]
    assert openai.base_url == "https://api.openai.com/v1" and openai.timeout == Deadlines(5, 60, 30, 600)
    assert (openai.connections, openai.http2, openai.stream_usage) == (64, True, False)
    assert openai.proxy and openai.proxy.reveal() == "http://proxy:3128"
    assert openai.headers == (("OpenAI-Organization", "org-1"),)
    assert [(name, value.reveal()) for name, value in openai.secret_headers] == [("X-Token", "sk-one")]
    assert (azure.kind, azure.api_version, azure.credential) == ("azure", "2024-10-21", "bearer")
    assert "sk-" not in repr(settings)


def test_models_prices_limits_and_plugins_arrive_in_order() -> None:
    settings = load(EVERYTHING, ENVIRON)
    assert settings.models == (
        ModelRule(
            "gpt-4o-mini",
            (Target("openai", "gpt-4o-mini", 3.0), Target("azure-eu")),
            (Target("azure-eu", "mini"),),
        ),
        ModelRule("*", (Target("openai"),)),
    )
    assert settings.prices["gpt-4o-mini"].request == 1000
    assert [(r.scope, r.unit, r.amount, r.seconds, r.calendar) for r in settings.limits] == [
        (("tenant",), "requests", 600, 60.0, ""),
        (("tenant", "model"), "tokens", 1_000_000, 86400.0, ""),
        (("key",), "usd", 25_000_000, 0.0, "month"),
        (("global",), "concurrent", 100, 0.0, ""),
    ]
    first = settings.limits[0]
    assert (first.match, first.mode, first.on_store_loss) == ("acme", "shadow", "closed")
    assert settings.plugins == (
        ("plugins.example:Example", {"word": "anything", "deep": {"list": [1, 2.5, True]}}),
    )


def test_settings_can_be_handed_to_another_process() -> None:
    settings = load(EVERYTHING, ENVIRON)
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_an_empty_file_is_the_zero_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings, zero = read(tmp_path, ""), load(None, {})
    assert zero.path == "" and zero.sources == () and zero.server.data_dir == str(tmp_path / "data")
    assert replace(settings, path="", sources=()) == zero
    assert settings.sources == (str(tmp_path / "gateway.toml"),)


def uncommented(text: str) -> str:
    """The default file with its commented keys in effect, but for those that need other files."""
    lines = re.sub(r"^# (?=\[|[a-z_]+ *=)", "", text, flags=re.MULTILINE).splitlines()
    return "\n".join(line for line in lines if not line.startswith(("include", "tls")))


def test_the_commented_process_sections_are_the_defaults(tmp_path: Path) -> None:
    head, found, _ = (ROOT / "gateway.toml").read_text().partition("# Backends. ")
    assert found and "drain" in head
    assert read(tmp_path, uncommented(head)) == read(tmp_path, "")


def test_the_commented_examples_are_valid(tmp_path: Path) -> None:
    environ = {"CI_KEY": "sk-1", "OPENAI_API_KEY": "sk-2", "AZURE_OPENAI_API_KEY": "sk-3"}
    settings = read(tmp_path, uncommented((ROOT / "gateway.toml").read_text()), environ)
    openai = settings.backends["openai"]
    assert list(settings.backends) == ["openai", "azure-eu"] and len(settings.limits) == 2
    assert openai == BackendSettings("openai", "openai", openai.base_url, openai.api_keys)


def test_the_default_file_as_it_is_discovers_backends() -> None:
    assert list(load(ROOT / "gateway.toml", {}).backends) == ["echo"]
    assert list(load(ROOT / "gateway.toml", {"GROQ_API_KEY": "gsk-1"}).backends) == ["groq"]


def test_a_socket_path_is_absolute(tmp_path: Path) -> None:
    settings = read(tmp_path, '[server]\nlisten = "unix:p.sock"')
    assert settings.server.listen == f"unix:{tmp_path}/p.sock"


def test_auto_is_one_worker_per_core(tmp_path: Path) -> None:
    assert read(tmp_path, '[server]\nworkers = "auto"').server.workers == len(os.sched_getaffinity(0))


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    forced = {"PENSTOCK_LISTEN": "127.0.0.1:0", "PENSTOCK_ADMIN": "127.0.0.1:1", "PENSTOCK_WORKERS": "3"}
    server = read(tmp_path, "[server]\nworkers = 2", forced).server
    assert (server.listen, server.admin, server.workers) == ("127.0.0.1:0", "127.0.0.1:1", 3)
    assert load(None, forced).server.workers == 3


def test_a_fault_in_the_environment_names_the_variable(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, "", {"PENSTOCK_WORKERS": "many", "PENSTOCK_LISTEN": "8080"})
    assert "environment  PENSTOCK_LISTEN" in str(refused.value)
    assert "environment  PENSTOCK_WORKERS" in str(refused.value)


def test_a_missing_file_is_one_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path / "gateway.toml", {})
    assert "no such file" in str(refused.value) and len(refused.value.faults) == 1


def test_the_report_says_what_follows() -> None:
    with pytest.raises(ConfigError) as refused:
        load(EVERYTHING.parent / "auth-mode.toml", {})
    told = refused.value.report("the running configuration is unchanged")
    assert told.endswith("\n1 fault; the running configuration is unchanged.")


def test_one_backend_without_models_answers_for_all(tmp_path: Path) -> None:
    settings = read(tmp_path, '[backends.own]\nkind = "openai"\nbase_url = "http://own.example/v1"\n')
    assert settings.models == (ModelRule("*", (Target("own"),)),) and settings.warnings == ()


def test_a_stated_price_replaces_the_bundled_one(tmp_path: Path) -> None:
    settings = read(tmp_path, '[prices."gpt-4o"]\noutput = 1.0\n')
    assert settings.prices["gpt-4o"] == Price.of({"output": 1.0})
    assert settings.prices["gpt-4o-mini"] == load(None, {}).prices["gpt-4o-mini"]


def test_changing_only_the_amount_of_a_limit_keeps_its_id(tmp_path: Path) -> None:
    def rule(amount: int, per: str) -> LimitRule:
        return read(tmp_path, f'[[limits]]\nscope = "key"\nrequests = {amount}\nper = "{per}"').limits[0]

    assert rule(1, "1m").id == rule(2, "60s").id != rule(1, "2m").id
    assert "|" not in rule(1, "1m").id


def test_plugin_options_can_be_secrets(tmp_path: Path) -> None:
    ((_, options),) = read(tmp_path, '[[plugins]]\nuse = "a.b:C"\ntoken = "env:SECRET"').plugins
    assert options["token"].reveal() == "sk-one" and "sk-one" not in repr(options)  # type: ignore[attr-defined]


def test_a_file_may_hold_tls_material(tmp_path: Path) -> None:
    trustme = pytest.importorskip("trustme")
    pair = trustme.CA().issue_cert("localhost")
    pair.cert_chain_pems[0].write_to_path(tmp_path / "tls.crt")
    pair.private_key_pem.write_to_path(tmp_path / "tls.key")
    text = '[server]\ntls = { cert = "file:tls.crt", key = "file:tls.key" }'
    settings = read(tmp_path, text)
    assert settings.server.tls and settings.server.tls.cert == str(tmp_path / "tls.crt")
    assert str(tmp_path / "tls.key") in settings.sources
    trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(tmp_path / "tls.key")
    with pytest.raises(ConfigError, match="MISMATCH"):
        read(tmp_path, text)
