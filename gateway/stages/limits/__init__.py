"""Limits: what a call may use is held before it is sent, and settled when it has ended."""

from gateway.stages.limits.claim import DEFAULT_OUTPUT
from gateway.stages.limits.stage import Limits

__all__ = ["DEFAULT_OUTPUT", "Limits"]
