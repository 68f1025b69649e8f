"""Where clients come in: bytes to Call, Reply to bytes."""
