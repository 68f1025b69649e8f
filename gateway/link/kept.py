"""A bucket that is forgotten when nobody has it any more."""

from __future__ import annotations

from gateway.link.bucket import LeasedBucket


class KeptBucket(LeasedBucket):
    """Can be referred to weakly, which a compiled class can't: this one never is."""

    __slots__ = ("__weakref__",)
