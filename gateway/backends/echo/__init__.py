"""The backend without a provider behind it."""
