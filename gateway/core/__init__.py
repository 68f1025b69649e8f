"""Words and contracts of the gateway: no I/O, no third party but orjson and the ranks of tokens."""
