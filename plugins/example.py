"""A template: one file, one Stage. In gateway.toml: [[plugins]] use = "plugins.example:Example"."""

from typing import Any

from gateway.core.call import Call
from gateway.core.errors import PolicyError
from gateway.core.ports import Stage
from gateway.core.reply import Reply


class Example(Stage):
    """Refuses bodies larger than the option `bytes`."""

    def __init__(self, options: Any, parts: Any) -> None:
        self.limit = int(options.get("bytes", 1_000_000))

    async def admit(self, call: Call) -> Reply | None:
        if len(call.body) > self.limit:
            raise PolicyError(f"Bodies may have {self.limit} bytes here.", code="policy_body_too_large")
        return None
