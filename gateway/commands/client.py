"""The admin API as commands use it: of the gateway that runs, or its operations on the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from gateway.commands.output import Misused, Refused
from gateway.settings.schema import Settings

Document = dict[str, Any]


class Told(Refused):
    """The admin API refused: its message, with its `code` and the member that is at fault."""

    def __init__(self, message: str, code: str = "", param: str = "") -> None:
        super().__init__(_lower(message.removesuffix(".")))
        self.code = code
        self.param = param


class Client(Protocol):
    """Who does what the admin API describes."""

    settings: Settings

    def ask(
        self,
        method: str,
        *path: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        version: int | str | None = None,
    ) -> Document:
        """One operation: its path below /admin/v1 in pieces. Raises `Refused`.

        `version` is that of what was read; of a configuration its revision.
        """


def every(client: Client, *path: str, **query: str) -> list[Document]:
    """All items of a list, page by page."""
    found: list[Document] = []
    after: dict[str, str] = {}
    while True:
        page = client.ask("GET", *path, query={**query, "limit": "1000", **after})
        found += page["data"]
        if page.get("next") is None:
            return [plain(item) for item in found]
        after = {"after": str(page["next"])}


def plain(document: Document) -> Document:
    """Without the version, which is for whoever writes."""
    return {name: value for name, value in document.items() if name != "version"}


def misused(told: Told, options: Mapping[str, str]) -> Refused:
    """The refusal of a member as that of the option it came from, where there is one."""
    name = told.param.split(".")[0].split("[")[0]
    if not name or told.code != "caller_bad_request":
        return told
    option = options.get(name, f"--{name}")
    what = str(told).removeprefix(told.param).lstrip(": ")
    return Misused(f"{option}: {what}")


def _lower(message: str) -> str:
    """As it stands behind a colon; names and abbreviations stay."""
    return message if message[1:2].isupper() else message[:1].lower() + message[1:]
