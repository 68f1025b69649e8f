"""From a revision's settings to its pipeline; what did not change is carried over from the one before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from gateway.core.cost import PriceList
from gateway.core.parts import Parts
from gateway.core.ports import Backend, Stage
from gateway.pipeline import Pipeline
from gateway.settings.schema import BackendSettings, Settings
from gateway.settings.secret import Secret


class Composer:
    """Makes a pipeline of each revision. A backend keeps its connections when at most credentials changed.

    `parts` makes the stages' tools from what a revision brings, `backend` and `stages` are the
    registry's.
    """

    def __init__(
        self,
        parts: Callable[..., Parts],
        backend: Callable[[BackendSettings], Backend],
        stages: Callable[[Settings, Parts], Sequence[Stage]],
    ) -> None:
        self._parts = parts
        self._backend = backend
        self._stages = stages
        self._backends: dict[str, tuple[BackendSettings, Backend]] = {}

    async def compose(self, settings: Settings) -> tuple[Pipeline, list[Backend]]:
        """A revision's pipeline, opened, and the backends to close when the calls of the last one are over.

        Raises what a stage or a backend raises: then nothing has changed.
        """
        old, fresh = self._backends, self._choose(settings)
        kept = {id(backend) for _, backend in old.values()}
        added = [backend for _, backend in fresh.values() if id(backend) not in kept]
        try:
            for backend in added:
                await backend.open()
            pipeline = self._pipeline(settings, {name: backend for name, (_, backend) in fresh.items()})
            await pipeline.open()
        except BaseException:
            await asyncio.gather(*(backend.close() for backend in added))
            raise
        self._backends = fresh
        for name, (wanted, backend) in fresh.items():
            if name in old and old[name][1] is backend and old[name][0] != wanted:
                backend.rekey(wanted)
        using = {id(backend) for _, backend in fresh.values()}
        return pipeline, [backend for _, backend in old.values() if id(backend) not in using]

    def _choose(self, settings: Settings) -> dict[str, tuple[BackendSettings, Backend]]:
        fresh = {}
        for name, wanted in settings.backends.items():
            kept = self._backends.get(name)
            same = kept is not None and _but_secrets(kept[0]) == _but_secrets(wanted)
            fresh[name] = (wanted, kept[1] if kept and same else self._backend(wanted))
        return fresh

    def _pipeline(self, settings: Settings, backends: dict[str, Backend]) -> Pipeline:
        parts = self._parts(
            revision=settings.revision,
            backends=backends,
            models=settings.models,
            limits=settings.limits,
            access=settings.access,
            policies=settings.policies,
            prices=PriceList(settings.prices),
            auth_mode=settings.auth.mode,
            jwt=settings.auth.jwt,
        )
        return Pipeline(self._stages(settings, parts), settings.revision, parts.keys)

    @property
    def backends(self) -> list[Backend]:
        """Those of the last revision."""
        return [backend for _, backend in self._backends.values()]


def _but_secrets(settings: BackendSettings) -> BackendSettings:
    """What has to be the same for a backend to stay, with its connections, when a credential was changed."""
    headers = tuple((name, Secret("")) for name, _ in settings.secret_headers)
    return replace(settings, api_keys=(), secret_headers=headers)


async def retire(pipeline: Pipeline, backends: Sequence[Backend]) -> None:
    """Close a pipeline whose calls are over, and the backends that went with it."""
    await pipeline.close()
    await asyncio.gather(*(backend.close() for backend in backends))
