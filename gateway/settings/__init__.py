"""gateway.toml: what may stand in it, how it is read, where a fault is."""
