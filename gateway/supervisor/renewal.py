"""Provider credentials that change while the one process runs; nothing else of a configuration does there."""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import replace

from gateway.settings.schema import BackendSettings, Settings
from gateway.supervisor.revisions import Revisions

log = logging.getLogger("penstock")


class Renewal:
    """Looks at files and commands that give secrets. Only credentials of the backends there are are taken."""

    def __init__(self, revisions: Revisions) -> None:
        self._revisions = revisions
        self.settings = revisions.current
        self._failing: set[str] = set()

    async def look(self) -> Settings | None:
        """The settings with new credentials, None where there are none; to be called once a second or so."""
        execs = self._revisions.execs
        if due := execs.due():
            # In a thread: commands take their time.
            await asyncio.to_thread(lambda: [execs.renew(each, os.environ) for each in due])
            failing = execs.failing()
            for source in failing.keys() - self._failing:
                log.warning("a command that gives a secret failed: %s: %s", source, failing[source])
            self._failing = set(failing)
        if not self._revisions.changed():
            return None
        fresh = await asyncio.to_thread(self._revisions.reload)
        if fresh is None:
            return None
        self._revisions.accept(fresh)
        backends = {
            name: _renewed(mine, fresh.backends.get(name, mine))
            for name, mine in self.settings.backends.items()
        }
        if fresh != replace(self.settings, backends=fresh.backends, revision=fresh.revision):
            log.warning(
                "the configuration has changed: but for credentials it takes effect at the next start"
            )
        if backends == self.settings.backends:
            return None
        self.settings = replace(self.settings, backends=backends)
        return self.settings


def _renewed(mine: BackendSettings, theirs: BackendSettings) -> BackendSettings:
    """What goes to the same place gets the new credentials; else they might be somebody else's."""
    if (mine.kind, mine.base_url) != (theirs.kind, theirs.base_url):
        return mine
    return replace(mine, api_keys=theirs.api_keys, secret_headers=theirs.secret_headers)
