"""The API's paths that are known by name, and what a call there does.

A name is the path without its first slash and without a leading /v1; all other paths are "other" and pass
through.
"""

from __future__ import annotations

GENERATING = frozenset(("chat/completions", "completions", "responses", "messages"))  # text, token by token
COMPACT = "responses/compact"  # generates, too; its endpoint is responses

# A POST there has something made, which is then paid for.
MAKING = GENERATING | {
    "embeddings",
    "moderations",
    "rerank",
    "images/generations",
    "images/edits",
    "images/variations",
    "audio/speech",
    "audio/transcriptions",
    "audio/translations",
}
ENDPOINTS = MAKING | {"models", "files", "batches"}
FAMILIES = ("models", "files", "batches", "responses", "images", "audio")  # whose sub-paths belong to them

# Paths that use tokens (/responses/input_tokens only counts them).
COUNTED = GENERATING | {"embeddings", COMPACT}

# Members of a body that bound how much is generated, where they do. Elsewhere a server does not know them.
BOUNDS = {
    "chat/completions": ("max_tokens", "max_completion_tokens"),
    "completions": ("max_tokens",),
    "messages": ("max_tokens",),
    "responses": ("max_output_tokens",),
}
