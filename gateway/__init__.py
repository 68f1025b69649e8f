"""Penstock: an LLM gateway appliance."""

__version__ = "0.1.0"
