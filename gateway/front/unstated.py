"""The length of a body that ends with its connection: uvicorn would count it, or send it in chunks."""

from __future__ import annotations

import sys


class Unstated(int):
    """However much is taken from it, it stays large, and nothing is missing at the end."""

    def __sub__(self, other: int) -> Unstated:
        return self

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = int.__hash__


UNSTATED = Unstated(sys.maxsize)
