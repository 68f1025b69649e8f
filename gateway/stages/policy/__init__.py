"""Access policies: what callers may ask for, and with which settings."""
