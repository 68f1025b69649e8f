"""From files and environment to settings: everything validated, every fault reported at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway.core.route import ModelRule, Target
from gateway.settings import discover
from gateway.settings.checks import check
from gateway.settings.exec import Execs
from gateway.settings.faults import ConfigError, Fault
from gateway.settings.include import Reader
from gateway.settings.kinds import Reading
from gateway.settings.prices import bundled
from gateway.settings.revision import revision
from gateway.settings.root import ROOT
from gateway.settings.schema import Settings
from gateway.settings.sealed import lend
from gateway.settings.secret import Secret
from gateway.settings.tree import Node, Source

# Variables that win over the file, for containers and the command line.
OVERRIDES = {"PENSTOCK_LISTEN": "listen", "PENSTOCK_ADMIN": "admin", "PENSTOCK_WORKERS": "workers"}


def load(
    path: Path | None,
    environ: Mapping[str, str],
    resolve: bool = True,
    execs: Execs | None = None,
    draft: str | None = None,
    texts: dict[str, str] | None = None,
    amiss: Callable[[str], str] = lambda use: "",
) -> Settings:
    """The settings in a file, or of the zero-configuration mode. Raises `ConfigError` with all faults.

    Without `resolve`, secrets that can't be had are warnings, and no command is run for them: for commands
    of ours that need none. `execs` keeps what commands gave from one reading to the next. A `draft` is read
    in place of what stands in the file. `texts` gets the files as they were read, by path. `amiss` says of
    each plugin's class what is wrong with it.
    """
    reader = Reader(draft)
    if path is None:
        tree = Node({}, Source("environment", Path.cwd(), in_file=False))
    else:
        tree = reader.read(path, str(path))
    if texts is not None:
        texts.update(reader.texts)
    reading = Reading(environ, resolve, amiss, execs=execs or Execs())
    if not reader.incomplete:
        settings = _read(tree, reading)
    faults = [*reader.faults, *reading.faults]
    if faults:
        raise ConfigError(_sorted(faults, reader.shown))
    reading.execs.keep(reading.commands)
    settings = replace(
        settings,
        hidden=tuple(dict.fromkeys(reading.named)),
        literals=tuple(map(Secret, dict.fromkeys(filter(None, reading.literals)))),
        path=str(path.absolute()) if path else "",
        sources=tuple(dict.fromkeys([*reader.watched, *reading.watched])),
        warnings=tuple(reading.warnings),
    )
    return replace(settings, revision=revision(settings))


def _read(tree: Node, reading: Reading) -> Settings:
    _override(tree, reading)
    lend(tree, reading)
    values = ROOT.read(tree, reading)
    if "backends" not in tree.value:
        values["backends"] = discover.backends(reading)
    if "models" in values:
        values["models"] = tuple(values["models"].values())
    elif "models" not in tree.value:
        values["models"] = _every_model(tree, values, reading)
    values["prices"] = {**bundled(), **values.get("prices", {})}
    settings = Settings(**values)
    check(tree, settings, reading)
    return settings


def _override(tree: Node, reading: Reading) -> None:
    source = Source("environment", Path.cwd(), in_file=False)
    for variable, key in OVERRIDES.items():
        text = reading.environ.get(variable, "")
        if text:
            server = tree.value.setdefault("server", Node({}, tree.source, ("server",)))
            value = int(text) if key == "workers" and text.isdecimal() and len(text) < 6 else text
            if isinstance(server.value, dict):
                server.value[key] = Node(value, source, (variable,))


def _every_model(tree: Node, values: dict[str, Any], reading: Reading) -> tuple[ModelRule, ...]:
    """Without [models] every name works: as discovered, or at the first backend that is stated."""
    if "backends" not in tree.value:
        return discover.models(values["backends"])
    stated = values.get("backends", {})
    if len(stated) > 1:
        reading.warn(tree.value["backends"], f"no [models]: every model goes to {next(iter(stated))}")
    return tuple(ModelRule("*", (Target(name),)) for name in [*stated][:1])


def _sorted(faults: list[Fault], files: list[str]) -> list[Fault]:
    """In the order of the files, and within them of the lines; each once."""
    place = {shown: at for at, shown in enumerate(files)}
    unique = dict.fromkeys(faults)
    return sorted(unique, key=lambda f: (place.get(f.file, len(place)), f.line, f.column))
