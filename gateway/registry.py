"""Names to classes: built-in stages and backends, and plugins. Nothing is imported before it is asked for.

The order of `STAGES` is the walk of a call. `catalog` answers the list of models as the caller may
see it, so it stands after `access`; `policy` and `limits` stand after `route`, so that a rule over models
or backends knows which one it is, and `limits` after `policy`, which may change what is to be reserved;
plugins stand before `forward`, when all is known and nothing is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from gateway.core.notice import Listener
from gateway.core.parts import Parts
from gateway.core.ports import Backend, Stage
from gateway.core.store import LedgerStore
from gateway.settings.schema import BackendSettings, Settings

STAGES = (
    ("auth", "gateway.stages.auth:Auth"),
    ("access", "gateway.stages.access:Access"),
    ("catalog", "gateway.stages.catalog:Catalog"),
    ("route", "gateway.stages.route:Route"),
    ("policy", "gateway.stages.policy.stage:Policies"),
    ("limits", "gateway.stages.limits:Limits"),
    ("forward", "gateway.stages.forward:Forward"),
    ("meter", "gateway.stages.meter:Meter"),
)

BACKENDS = {
    "openai": "gateway.backends.openai:OpenAIBackend",
    "azure": "gateway.backends.azure:AzureBackend",
    "echo": "gateway.backends.echo.backend:EchoBackend",
}


LEDGERS = {
    "sqlite": "gateway.stores.sqlite:SqliteLedger",
    "postgresql": "gateway.stores.postgres:PostgresLedger",
}


class NotLoadable(Exception):
    """A "module:Class" that can't be had; the message says which of its parts is wrong."""


def load(name: str) -> type[Any]:
    """The class behind "module:Class". Raises `NotLoadable`."""
    module_name, _, class_name = name.partition(":")
    if not module_name or not class_name:
        raise NotLoadable(f'{name!r} must be "module:Class", such as "plugins.example:Example"')
    try:
        module = import_module(module_name)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise NotLoadable(f"{name!r}: the module {module_name!r} can't be imported ({reason})") from error
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        what = "has no class" if found is None else "has something that is no class called"
        raise NotLoadable(f"{name!r}: the module {module_name!r} {what} {class_name!r}")
    return found


def backend(settings: BackendSettings) -> Backend:
    """The backend of one `[backends.NAME]`. Raises `NotLoadable` or `ValueError`."""
    place = BACKENDS.get(settings.kind)
    if place is None:
        raise NotLoadable(
            f"backends.{settings.name}: no kind {settings.kind!r}; there are {', '.join(BACKENDS)}"
        )
    return cast(Backend, load(place)(settings))


def stages(settings: Settings, parts: Parts) -> list[Stage]:
    """All stages of a revision in order. Raises `NotLoadable`."""
    built: list[Stage] = []
    for name, place in STAGES:
        if name == "forward":
            plugins = [_plugin(use, options, parts) for use, options in settings.plugins]
            built += [plugin for plugin in plugins if plugin is not None]
        built.append(load(place)({}, parts))
    return [stage for stage in built if stage.needed]


def _plugin(use: str, options: Mapping[str, object], parts: Parts) -> Stage | None:
    """None for a listener: those live in the supervisor."""
    found = _ours(use)
    return None if issubclass(found, Listener) else found(options, parts)


def _ours(use: str) -> type[Any]:
    found = load(use)
    if not issubclass(found, Stage | Listener):
        raise NotLoadable(
            f"{use!r} is neither a Stage nor a Listener: derive it from gateway.core.ports.Stage"
            " or gateway.core.notice.Listener"
        )
    return found


def ledger(settings: Settings, data: Path, replica: str) -> LedgerStore:
    """The ledger that the settings name, not open yet: in the directory `data`, or a database."""
    url = settings.state.ledger
    if url is None:
        store = load(LEDGERS["sqlite"])(data / "ledger.sqlite", replica)
    else:
        store = load(LEDGERS["postgresql"])(url.reveal(), replica)
    store.chain = replica
    return cast(LedgerStore, store)


def amiss(use: str) -> str:
    """What is wrong with the class of a plugin, "" where nothing is."""
    try:
        _ours(use)
    except NotLoadable as error:
        return str(error)
    return ""


def listeners(settings: Settings) -> list[tuple[str, Listener, Mapping[str, object]]]:
    """The supervisor's plugins with their options. Raises `NotLoadable`.

    A plugin that can't be loaded at all is left out: the workers say why.
    """
    built: list[tuple[str, Listener, Mapping[str, object]]] = []
    for use, options in settings.plugins:
        try:
            found = load(use)
        except NotLoadable:
            continue
        if issubclass(found, Listener):
            try:
                built.append((use, found(options), options))
            except Exception as error:  # a plugin may fail in any way
                raise NotLoadable(f"{use!r} can't be made: {error}") from error
    return built
