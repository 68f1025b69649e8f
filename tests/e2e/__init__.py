"""The real gateway, the real SDKs, real sockets."""
