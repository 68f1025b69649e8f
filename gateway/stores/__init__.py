"""Where what must last is kept: the ledger, and the authority over limits."""
