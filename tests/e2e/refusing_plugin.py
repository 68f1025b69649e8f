"""A plugin for the canary tests: breaks, refuses or ends the process, as the call's session asks."""

from __future__ import annotations

import os
import signal
from typing import Any

from gateway.core.call import Call
from gateway.core.errors import PolicyError
from gateway.core.ports import Stage
from gateway.core.reply import Reply


class Refusing(Stage):
    """Looks at the header x-break."""

    def __init__(self, options: Any, parts: Any) -> None:
        self._options = options

    async def admit(self, call: Call) -> Reply | None:
        """Break as told."""
        match call.header(b"x-break"):
            case b"exception":
                raise RuntimeError("a stage of somebody's broke")
            case b"policy":
                raise PolicyError("refused by a plugin")
            case b"kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case b"exit":
                raise SystemExit(3)
        return None
