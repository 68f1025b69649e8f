"""Measurements of the gateway from outside, against nginx on the same machine."""
