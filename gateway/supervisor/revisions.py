"""The configuration over time: one accepted revision serves until a better one is accepted."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from gateway.registry import amiss
from gateway.settings.exec import Execs
from gateway.settings.faults import ConfigError
from gateway.settings.load import load
from gateway.settings.schema import Settings
from gateway.settings.watch import fingerprint

log = logging.getLogger("penstock.config")

# What a running process can't change: these keep the value they had at the start.
_FIXED = ("listen", "admin", "data_dir")
# Revisions whose texts are at hand: the one that serves, the one before and the one that may follow.
_KNOWN = 3


class Revisions:
    """Loads the first revision (raises `ConfigError`), later ones only when they are without fault."""

    def __init__(self, path: Path | None, environ: Mapping[str, str]) -> None:
        self._path = path
        self._environ = environ
        self.execs = Execs()
        texts: dict[str, str] = {}
        self.current = load(path, environ, execs=self.execs, texts=texts, amiss=amiss)
        self._texts = {self.current.revision: texts}
        self.fault = ""  # why the newest configuration does not serve
        self.told = ""  # the same, once log and metrics say so
        self._watched = self.current.sources
        self._seen = fingerprint(self._watched)

    def changed(self) -> bool:
        """Whether a file of the configuration, or a secret that a command gives, has changed."""
        return self.execs.moved or fingerprint(self._watched) != self._seen

    def stamp(self) -> object:
        """What its files look like now."""
        return fingerprint(self._watched)

    def reload(self) -> Settings | None:
        """Read again: the new revision, or None when it is the same or faulty (then `fault` says why)."""
        self._seen = fingerprint(self._watched)  # before reading: a later change is seen next time
        texts: dict[str, str] = {}
        try:
            fresh = load(self._path, self._environ, execs=self.execs, texts=texts, amiss=amiss)
        except ConfigError as error:
            self._watch({*self._watched, *(str(Path(fault.file).absolute()) for fault in error.faults)})
            self.refuse(str(error))
            return None
        self._watch(fresh.sources)
        self.fault = ""
        self._know(fresh.revision, texts)
        if (
            fresh.revision == self.current.revision and not fresh.server.tls
        ):  # a renewed certificate shows nowhere
            return None
        return self._fixed(fresh)

    @property
    def texts(self) -> Mapping[str, str]:
        """The files of the current revision as they were read, by path, secrets and all."""
        return self._texts[self.current.revision]

    def _know(self, revision: str, texts: dict[str, str]) -> None:
        self._texts.pop(revision, None)
        self._texts[revision] = texts
        for old in list(self._texts)[:-_KNOWN]:
            if old != self.current.revision:
                del self._texts[old]

    def _watch(self, sources: set[str] | tuple[str, ...]) -> None:
        if set(sources) != set(self._watched):
            self._watched = tuple(sources)
            self._seen = fingerprint(self._watched)

    def _fixed(self, fresh: Settings) -> Settings:
        old, new = self.current.server, fresh.server
        for name in _FIXED:
            if getattr(new, name) != getattr(old, name):
                log.warning("server.%s has changed: that takes effect at the next start", name)
                new = replace(new, **{name: getattr(old, name)})
        state = fresh.state
        if state.ledger != self.current.state.ledger:
            log.warning("state.ledger has changed: that takes effect at the next start")
            state = replace(state, ledger=self.current.state.ledger)
        return replace(fresh, server=new, state=state)

    def accept(self, settings: Settings) -> None:
        """This revision serves from now on."""
        self.current, self.fault = settings, ""

    def refuse(self, why: str) -> None:
        """A newer configuration can't serve: the old one goes on."""
        log.error("the running configuration is unchanged: %s", why)
        self.fault = why
