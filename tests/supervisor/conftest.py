"""A provider behind the gateways of these tests; every gateway is a real `penstock serve`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.gateway import PROVIDER_KEY, Gateway
from tests.e2e.provider import Provider


@pytest.fixture(scope="session")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    """One provider for all tests."""
    with Provider(tmp_path_factory.mktemp("provider"), PROVIDER_KEY) as running:
        yield running


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the machine stands still for some seconds, no store, replica or worker counts as lost."""
    for name in ("client", "channel"):
        monkeypatch.setattr(f"gateway.stores.redis.{name}.CONNECT", 30.0)
    monkeypatch.setattr("gateway.link.leases.PATIENCE", 60.0)
    monkeypatch.setattr("gateway.stores.leases.desk.UNANSWERED", 30.0)
    for name in ("desk", "upstream"):
        monkeypatch.setattr(f"gateway.stores.leases.{name}.WAIT", 20.0)
    monkeypatch.setattr("gateway.supervisor.replicas._PATIENCE", 60.0)
    monkeypatch.setattr("gateway.supervisor.replicas._HOLD", 60_000)


@pytest.fixture
def config(provider: Provider) -> str:
    """Every model at the provider, one key."""
    return f"""
[[keys]]
name = "caller"
key = "env:CALLER_KEY"
[backends.main]
kind = "openai"
base_url = "{provider.url}/v1"
api_key = "env:PROVIDER_KEY"
[models."*"]
targets = [ {{ backend = "main" }} ]
"""


@pytest.fixture
def serve(tmp_path: Path, config: str) -> Iterator[Callable[..., Gateway]]:
    """Starts gateways in one directory, and stops them."""
    with ExitStack() as stack:

        def start(text: str = config, **options: Any) -> Gateway:
            return stack.enter_context(Gateway(tmp_path, text, **options))

        yield start
