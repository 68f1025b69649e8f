"""The way out: HTTP to upstreams, pooled, bounded, with deadlines."""
