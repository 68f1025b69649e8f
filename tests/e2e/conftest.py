"""One gateway and two providers for all tests that need nothing special."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.gateway import BACKUP_KEY, PROVIDER_KEY, Gateway, standard
from tests.e2e.provider import Provider


@pytest.fixture(scope="session")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    """The recording provider behind nearly everything."""
    with Provider(tmp_path_factory.mktemp("provider"), PROVIDER_KEY) as running:
        yield running


@pytest.fixture(scope="session")
def backup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    """The recording provider that fallbacks go to."""
    with Provider(tmp_path_factory.mktemp("backup"), BACKUP_KEY, "backup") as running:
        yield running


@pytest.fixture(scope="session")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, provider: Provider, backup: Provider
) -> Iterator[Gateway]:
    """The shared gateway: two workers in front of both providers. Never stopped or reconfigured by a test."""
    directory = tmp_path_factory.mktemp("gateway")
    with Gateway(directory, standard(provider.url, backup.url), workers=2) as running:
        yield running
