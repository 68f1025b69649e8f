"""Tells everybody in this appliance what is new of keys, tenants and raises."""

from __future__ import annotations

from collections.abc import Callable

from gateway.supervisor.directory import Directory, News
from gateway.supervisor.limits import Limits
from gateway.supervisor.lookout import Lookout
from gateway.supervisor.workers import Workers


class Herald:
    """Workers hear what has changed, those that start later all of it; raises go to the authority."""

    def __init__(self, workers: Workers, limits: Limits, lookout: Lookout) -> None:
        self._workers = workers
        self._limits = limits
        self._lookout = lookout
        self.also: Callable[[Directory, News], None] = lambda directory, news: None

    def tell(self, directory: Directory, news: News) -> None:
        """To be given to the directory."""
        self._workers.introduce("keys", directory.message)
        message = directory.message_of(news)
        if message is not None:
            self._workers.tell(message)
        if news.whole or news.keys or news.gone:
            self._lookout.keys(directory.keys())
        self.also(directory, news)
        if news.raises:
            self._limits.replace_raises(directory.raises())
