"""Penstock: an LLM gateway appliance."""

from gateway.compiled import engage

__version__ = "0.1.0"

# Before any other module of ours is imported: why the hot path is not compiled, "" where it is.
uncompiled = engage()
