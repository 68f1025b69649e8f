"""Messages to workers, gathered while one event is handled."""

from __future__ import annotations

from typing import Any

Message = dict[str, Any]


class Outbox:
    """Keeps the order of messages to each worker; answers that follow each other share a message."""

    def __init__(self) -> None:
        self._messages: list[tuple[int, Message]] = []
        self._open: dict[int, Message] = {}  # worker → its last message, when that is a grant

    def add(self, worker: int, field: str, item: Any) -> None:
        """One more item of a grant's `answers`, `open`, `left` or `raised`."""
        message = self._open.get(worker)
        if message is None:
            message = self._open[worker] = {"t": "grant"}
            self._messages.append((worker, message))
        message.setdefault(field, []).append(item)

    def recall(self, worker: int, name: str, tight: float) -> None:
        """Ask for what is unused."""
        self._open.pop(worker, None)
        self._messages.append((worker, {"t": "recall", "names": [name], "tight": tight}))

    def store(self, worker: int, lost: bool) -> None:
        """Whether the store that replicas share is lost."""
        self._open.pop(worker, None)
        self._messages.append((worker, {"t": "store", "lost": lost}))

    def take(self) -> list[tuple[int, Message]]:
        """All messages; the outbox is empty afterwards."""
        messages, self._messages = self._messages, []
        self._open.clear()
        return messages
